//! Members: links, roles and their end.

use serde_json::{Value, json};

use crate::on_both_engines;
use crate::running::{Browser, RunningTasks, invitation};

on_both_engines! {
    a_removed_member_is_refused_at_once
    an_organisation_keeps_a_manager
    a_link_opens_one_organisation_and_ends_the_link_before_it
    an_invitation_that_is_sent_twice_makes_one_member
    a_change_that_ended_in_the_middle_is_finished_by_the_next_one
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
    assert_eq!(bob.get("/orgs/acme/api/tasks").await.refusal(), (401, "unauthenticated"), "at once");
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

async fn a_link_opens_one_organisation_and_ends_the_link_before_it(running: &RunningTasks) {
    let alice = running.sign_up("acme").await;
    let (reader, id) = running.invite(&alice, "acme", "reader").await;
    let link = alice.post(&format!("{MEMBERS}/{id}/link"), &Value::Null).await;
    assert_eq!((link.status.as_u16(), &link.body["member"]), (201, &json!(id)));
    assert_eq!(reader.get("/orgs/acme/api/tasks").await.refusal(), (401, "unauthenticated"), "its session has ended");
    // An operator has made the founder of another organisation a member of this one, too.
    let bob = running.sign_up("globex").await;
    let foreign = bob.get("/orgs/globex/api/session").await.body["person"].as_str().unwrap().to_owned();
    running.application().fleet.add_member("acme", &foreign, "reader").await.unwrap();
    running.application().router.catch_up().await.unwrap();
    assert_eq!(bob.get("/orgs/acme/api/tasks").await.refusal(), (404, "not_found"), "bob is signed in to globex");
    let link = alice.post(&format!("{MEMBERS}/{foreign}/link"), &Value::Null).await;
    let mut eve = running.visitor();
    eve.cookie = Some(format!("tasks_session={}", link.body["token"].as_str().unwrap()));
    assert_eq!(eve.get("/orgs/acme/api/tasks").await.status, 200);
    assert_eq!(eve.get("/orgs/globex/api/tasks").await.refusal(), (404, "not_found"), "the link is of acme");
    assert_eq!(bob.get("/orgs/globex/api/tasks").await.status, 200, "the session in globex goes on");
}

async fn an_invitation_that_is_sent_twice_makes_one_member(running: &RunningTasks) {
    let (alice, bob) = (running.sign_up("acme").await, running.sign_up("globex").await);
    let form = invitation("Carol", "writer");
    let first = alice.post(MEMBERS, &form).await.body;
    let id = first["member"].as_str().unwrap();
    assert_eq!(alice.put(&format!("{MEMBERS}/{id}"), &json!({ "role": "reader" })).await.status, 204);
    let again = alice.post(MEMBERS, &form).await.body;
    assert_eq!(again["member"], first["member"]);
    let carol = ("Carol".to_owned(), "reader".to_owned());
    assert_eq!(roles(&alice).await.iter().filter(|member| **member == carol).count(), 1, "the new role stays");
    let elsewhere = bob.post("/orgs/globex/api/members", &form).await.body;
    assert_ne!(elsewhere["member"], first["member"], "one person of each organisation");
    for (wrong, named) in [(json!({ "name": "Eve", "role": "reader" }), "key"), (invitation("Eve", "owner"), "owner")] {
        let refused = alice.post(MEMBERS, &wrong).await;
        assert_eq!(refused.refusal(), (400, "invalid"));
        assert!(refused.text.contains(named), "{}", refused.text);
    }
}

/// The catalog was changed and the organisation's database was not, as after a kill between the two.
async fn a_change_that_ended_in_the_middle_is_finished_by_the_next_one(running: &RunningTasks) {
    let alice = running.sign_up("acme").await;
    let (_, id) = running.invite(&alice, "acme", "reader").await;
    let fleet = running.application().fleet;
    fleet.remove_member("acme", &id).await.unwrap();
    running.application().router.catch_up().await.unwrap();
    let people = async || alice.get("/orgs/acme/api/people").await.body.as_array().unwrap().len();
    assert_eq!(people().await, 2);
    assert_eq!(alice.delete(&format!("{MEMBERS}/{id}")).await.status, 204);
    assert_eq!(people().await, 1);
    assert_eq!(alice.delete(&format!("{MEMBERS}/{id}")).await.refusal(), (404, "not_found"));
    let tokens = fleet.list_member_tokens("acme", &id, None).await.unwrap().items;
    assert!(!tokens.is_empty() && tokens.iter().all(|token| token.revoked_at.is_some()), "{tokens:?}");
}
