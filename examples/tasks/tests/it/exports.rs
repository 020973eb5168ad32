//! Exports as CSV.

use serde_json::{Value, json};

use crate::on_both_engines;
use crate::running::RunningTasks;

on_both_engines! { an_export_holds_the_tasks_of_its_moment a_link_opens_one_export_of_one_organisation }

async fn an_export_holds_the_tasks_of_its_moment(running: &RunningTasks) {
    let alice = running.sign_up("acme").await;
    let exports = "/orgs/acme/api/exports";
    let me = alice.get("/orgs/acme/api/session").await.body["person"].clone();
    let task = json!({ "title": "=1+1", "notes": "a, \"b\"\nc", "due_on": "2026-12-24", "assignee": me });
    let created_at = alice.post("/orgs/acme/api/tasks", &task).await.body["created_at"].as_str().unwrap().to_owned();
    let made = alice.post(exports, &Value::Null).await;
    assert_eq!((made.status.as_u16(), &made.body["task_count"]), (201, &json!(1)), "{}", made.text);
    alice.delete_seen("/orgs/acme/api/tasks/1", 1).await;
    let file = alice.get(&format!("{exports}/1")).await;
    assert_eq!(file.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(file.header("content-disposition"), "attachment; filename=\"acme-tasks-1.csv\"");
    let line = format!("1,'=1+1,false,2026-12-24,The founder of acme,\"a, \"\"b\"\"\nc\",{created_at}\n");
    assert_eq!(file.text, format!("id,title,done,due_on,assignee,notes,created_at\n{line}"));
    for _ in 0..20 {
        assert_eq!(alice.post(exports, &Value::Null).await.status, 201);
    }
    let kept = alice.get(exports).await.body;
    let ids: Vec<_> = kept.as_array().unwrap().iter().map(|export| export["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, (2..=21).rev().collect::<Vec<_>>(), "the newest are kept");
    assert_eq!(alice.get(&format!("{exports}/1")).await.refusal(), (404, "not_found"));
}

async fn a_link_opens_one_export_of_one_organisation(running: &RunningTasks) {
    let (alice, bob, visitor) = (running.sign_up("acme").await, running.sign_up("globex").await, running.visitor());
    for (browser, name) in [(&alice, "acme"), (&bob, "globex")] {
        browser.post(&format!("/orgs/{name}/api/tasks"), &json!({ "title": format!("of {name}") })).await;
        browser.post(&format!("/orgs/{name}/api/exports"), &Value::Null).await;
    }
    let made = alice.post("/orgs/acme/api/exports/1/link", &Value::Null).await;
    let path = made.body["path"].as_str().unwrap();
    let file = visitor.get(path).await;
    assert_eq!(file.header("content-disposition"), "attachment; filename=\"acme-tasks-1.csv\"");
    assert!(file.text.contains("of acme"), "{}", file.text);
    assert_eq!(file.header("cache-control"), "private, no-store");
    let stolen = path.replace("/orgs/acme/", "/orgs/globex/");
    for wrong in [&*stolen, &path[..path.len() - 1], "/orgs/acme/download/x", &path.replace("/orgs/acme/", "/orgs/no/")]
    {
        assert_eq!(visitor.get(wrong).await.refusal(), (404, "not_found"), "{wrong}");
    }
    let missing = alice.post("/orgs/acme/api/exports/9/link", &Value::Null).await;
    assert_eq!(missing.refusal(), (404, "not_found"));
}
