//! Exports as CSV.

use serde_json::{Value, json};

use crate::on_both_engines;
use crate::running::RunningTasks;

on_both_engines! { an_export_holds_the_tasks_of_its_moment }

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
