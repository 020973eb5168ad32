//! Members: links, roles and their end.

use serde_json::{Value, json};

use crate::on_both_engines;
use crate::running::{Browser, RunningTasks};

on_both_engines! {
    a_removed_member_is_refused_at_once
    an_organisation_keeps_a_manager
    a_manager_makes_links_for_people_of_the_organisation_only
}

const MEMBERS: &str = "/orgs/acme/api/members";

async fn roles(manager: &Browser) -> Vec<(String, String)> {
    let members = manager.get(MEMBERS).await.body;
    let text = |member: &Value, field: &str| member[field].as_str().unwrap().to_owned();
    members.as_array().unwrap().iter().map(|member| (text(member, "name"), text(member, "role"))).collect()
}

async fn a_removed_member_is_refused_at_once(running: &RunningTasks) {
    let alice = running.sign_up("acme").await;
    let (bob, id) = running.invite(&alice, "acme", "reader").await;
    let owner = ("The founder of acme".to_owned(), "manager".to_owned());
    assert_eq!(roles(&alice).await, [("A reader".to_owned(), "reader".to_owned()), owner.clone()]);
    let path = format!("{MEMBERS}/{id}");
    assert_eq!(bob.post("/orgs/acme/api/tasks", &json!({ "title": "a" })).await.refusal(), (403, "forbidden"));
    assert_eq!(alice.put(&path, &json!({ "role": "writer" })).await.status, 204);
    assert_eq!(bob.post("/orgs/acme/api/tasks", &json!({ "title": "a" })).await.status, 201, "at once");
    assert_eq!(alice.delete(&path).await.status, 204);
    assert_eq!(bob.get("/orgs/acme/api/tasks").await.refusal(), (404, "not_found"), "at once");
    assert_eq!(alice.delete(&path).await.refusal(), (404, "not_found"));
    assert_eq!(alice.put(&path, &json!({ "role": "reader" })).await.refusal(), (404, "not_found"));
    assert_eq!(roles(&alice).await, [owner]);
    let people = alice.get("/orgs/acme/api/people").await.body;
    assert_eq!(people.as_array().unwrap().len(), 1);
}

async fn an_organisation_keeps_a_manager(running: &RunningTasks) {
    let alice = running.sign_up("acme").await;
    let me = alice.get("/orgs/acme/api/session").await.body["person"].as_str().unwrap().to_owned();
    let (own, reader) = (format!("{MEMBERS}/{me}"), json!({ "role": "reader" }));
    assert_eq!(alice.put(&own, &reader).await.refusal(), (409, "last_manager"));
    assert_eq!(alice.delete(&own).await.refusal(), (409, "last_manager"));
    let (bob, other) = running.invite(&alice, "acme", "manager").await;
    let others = format!("{MEMBERS}/{other}");
    // Two managers take the role from each other at the same time. The later request is refused.
    let (one, two) = tokio::join!(alice.put(&others, &reader), bob.put(&own, &reader));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses[0], 204, "{} {}", one.text, two.text);
    assert!([403, 409].contains(&statuses[1]), "{} {}", one.text, two.text);
    let left = if one.status == 204 { &alice } else { &bob };
    let managers = roles(left).await.into_iter().filter(|(_, role)| role == "manager").count();
    assert_eq!(managers, 1);
}

async fn a_manager_makes_links_for_people_of_the_organisation_only(running: &RunningTasks) {
    let alice = running.sign_up("acme").await;
    let (_, id) = running.invite(&alice, "acme", "reader").await;
    let link = alice.post(&format!("{MEMBERS}/{id}/link"), &Value::Null).await;
    assert_eq!((link.status.as_u16(), &link.body["member"]), (201, &json!(id)));
    // An operator has made the founder of another organisation a member of this one, too.
    let bob = running.sign_up("globex").await;
    let foreign = bob.get("/orgs/globex/api/session").await.body["person"].as_str().unwrap().to_owned();
    running.application().fleet.add_member("acme", &foreign, "reader").await.unwrap();
    running.application().router.catch_up().await.unwrap();
    assert_eq!(bob.get("/orgs/acme/api/tasks").await.status, 200);
    let stolen = alice.post(&format!("{MEMBERS}/{foreign}/link"), &Value::Null).await;
    assert_eq!(stolen.refusal(), (404, "not_found"), "this link would open globex");
    let wrong = alice.post(MEMBERS, &json!({ "name": "Eve", "role": "owner" })).await;
    assert_eq!(wrong.refusal(), (400, "invalid"));
}
