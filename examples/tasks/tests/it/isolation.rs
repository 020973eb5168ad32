//! Two organisations whose rows have the same ids see nothing of each other.

use reqwest::Method;
use serde_json::{Value, json};

use crate::on_both_engines;
use crate::running::{Browser, RunningTasks, invitation};

on_both_engines! { a_member_of_one_organisation_finds_nothing_in_another }

/// Every route that reads.
const READS: [&str; 9] =
    ["session", "tasks", "counts", "tasks/1", "tasks/1/comments", "exports", "exports/1", "people", "members"];

/// Every route of an organisation, with a body that it accepts.
fn routes(member: &str) -> Vec<(Method, String, Value)> {
    let task = json!({ "title": "stolen", "version": 1 });
    let reads = READS.map(|path| (Method::GET, path.to_owned(), Value::Null));
    let changes = [
        // Never read: it does not end.
        (Method::GET, "live".to_owned(), Value::Null),
        (Method::POST, "tasks".to_owned(), task.clone()),
        (Method::PUT, "tasks/1".to_owned(), task),
        (Method::PUT, "tasks/1/done".to_owned(), json!({ "done": true, "version": 1 })),
        (Method::DELETE, "tasks/1".to_owned(), json!({ "version": 1 })),
        (Method::POST, "tasks/1/comments".to_owned(), json!({ "text": "stolen" })),
        (Method::POST, "exports".to_owned(), Value::Null),
        (Method::POST, "exports/1/link".to_owned(), Value::Null),
        (Method::POST, "members".to_owned(), invitation("Eve", "manager")),
        (Method::PUT, format!("members/{member}"), json!({ "role": "reader" })),
        (Method::POST, format!("members/{member}/link"), Value::Null),
        (Method::DELETE, format!("members/{member}"), Value::Null),
    ];
    reads.into_iter().chain(changes).collect()
}

async fn fill(browser: &Browser, name: &str) {
    let base = format!("/orgs/{name}/api");
    let task = browser.post(&format!("{base}/tasks"), &json!({ "title": format!("of {name}") })).await;
    assert_eq!((task.status.as_u16(), &task.body["id"]), (201, &json!(1)), "each organisation counts from 1");
    browser.post(&format!("{base}/tasks/1/comments"), &json!({ "text": format!("about {name}") })).await;
    browser.post(&format!("{base}/exports"), &Value::Null).await;
}

/// Everything that a manager sees of the organisation.
async fn everything(browser: &Browser, name: &str) -> String {
    let mut seen = String::new();
    for path in READS {
        let answer = browser.get(&format!("/orgs/{name}/api/{path}")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        seen.push_str(&answer.text);
    }
    seen
}

async fn a_member_of_one_organisation_finds_nothing_in_another(running: &RunningTasks) {
    let (alice, bob) = (running.sign_up("acme").await, running.sign_up("globex").await);
    fill(&alice, "acme").await;
    fill(&bob, "globex").await;
    let before = everything(&bob, "globex").await;
    assert!(before.contains("of globex") && before.contains("about globex") && !before.contains("acme"), "{before}");
    let member = bob.get("/orgs/globex/api/session").await.body["person"].as_str().unwrap().to_owned();
    for (method, path, body) in routes(&member) {
        let foreign = alice.change(method.clone(), &format!("/orgs/globex/api/{path}"), &body).await;
        assert_eq!(foreign.refusal(), (404, "not_found"), "{method} {path}");
        let unknown = alice.change(method.clone(), &format!("/orgs/nowhere/api/{path}"), &body).await;
        assert_eq!(without_request(foreign.body), without_request(unknown.body), "{method} {path}");
        let visitor = running.visitor().change(method.clone(), &format!("/orgs/globex/api/{path}"), &body).await;
        assert_eq!(visitor.refusal(), (401, "unauthenticated"), "{method} {path}");
    }
    assert_eq!(everything(&bob, "globex").await, before, "nothing was changed");
    // A sign-in with the token of another organisation.
    let token = alice.cookie.as_deref().unwrap().split_once('=').unwrap().1;
    let stolen = running.visitor().post("/orgs/globex/api/session", &json!({ "token": token })).await;
    assert_eq!(stolen.refusal(), (404, "not_found"));
}

/// The problem without the id of its request.
fn without_request(mut problem: Value) -> Value {
    let fields = problem.as_object_mut().unwrap();
    fields.remove("instance");
    fields.remove("request_id");
    problem
}
