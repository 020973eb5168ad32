//! The sign-up of organisations.

use serde_json::json;
use uuid::Uuid;

use crate::on_both_engines;
use crate::running::{Browser, RunningTasks, sign_up_form};

on_both_engines! { a_form_that_is_sent_twice_makes_one_organisation }

async fn a_form_that_is_sent_twice_makes_one_organisation(running: &RunningTasks) {
    let (mut alice, key) = (running.visitor(), Uuid::now_v7());
    let form = sign_up_form("acme", key);
    let (one, two) = tokio::join!(alice.post("/api/organisations", &form), alice.post("/api/organisations", &form));
    assert_eq!((one.status.as_u16(), two.status.as_u16()), (201, 201), "{} {}", one.text, two.text);
    assert_eq!(one.header("set-cookie"), two.header("set-cookie"));
    let cookie = one.header("set-cookie");
    assert!(cookie.contains("; Path=/orgs/acme; HttpOnly; SameSite=Strict") && !cookie.contains("Secure"), "{cookie}");
    alice.keep_cookie(&one);
    alice.post("/orgs/acme/api/tasks", &json!({ "title": "first" })).await;
    let again = alice.post("/api/organisations", &form).await;
    assert_eq!((again.status.as_u16(), &again.body), (201, &json!({ "organisation": "acme" })));
    assert_eq!(alice.get("/orgs/acme/api/tasks").await.body.as_array().unwrap().len(), 1, "nothing was made anew");
    let session = alice.get("/orgs/acme/api/session").await.body;
    assert_eq!((&session["title"], &session["name"]), (&json!("The acme"), &json!("The founder of acme")));
    assert_eq!(alice.get("/orgs/acme/api/members").await.body.as_array().unwrap().len(), 1);
    let hash = session["person"].as_str().unwrap();
    assert!(!hash.contains(&key.simple().to_string()), "who knows the key gets the token of the founder");
    refuses_other_forms(&running.visitor(), key).await;
}

async fn refuses_other_forms(visitor: &Browser, key: Uuid) {
    let taken = visitor.post("/api/organisations", &sign_up_form("acme", Uuid::now_v7())).await;
    assert_eq!(taken.refusal(), (409, "name_taken"));
    let other = visitor.post("/api/organisations", &sign_up_form("globex", key)).await;
    assert_eq!(other.refusal(), (409, "form_sent"));
    for wrong in ["", "Acme", "a.b", "-a", "www", "../acme"] {
        let refused = visitor.post("/api/organisations", &sign_up_form(wrong, Uuid::now_v7())).await;
        assert_eq!(refused.refusal(), (400, "invalid"), "{wrong}");
    }
}
