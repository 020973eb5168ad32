//! Tasks and their comments.

use serde_json::{Value, json};

use crate::on_both_engines;
use crate::running::RunningTasks;

on_both_engines! {
    a_task_lives_from_its_first_title_to_its_end
    an_edit_of_an_old_version_is_refused
    the_counts_follow_every_change_of_their_organisation
}

const TASKS: &str = "/orgs/acme/api/tasks";

async fn a_task_lives_from_its_first_title_to_its_end(running: &RunningTasks) {
    let alice = running.sign_up("acme").await;
    let (_, bob) = running.invite(&alice, "acme", "writer").await;
    let fields = json!({ "title": " <b>Buy</b> milk ", "notes": "a\nb", "due_on": "2026-12-24", "assignee": bob });
    let added = alice.post(TASKS, &fields).await;
    assert_eq!(added.status, 201, "{}", added.text);
    let created_at = added.body["created_at"].as_str().unwrap();
    assert!(created_at.parse::<jiff::Timestamp>().is_ok(), "{created_at}");
    let expected = json!({ "id": 1, "title": "<b>Buy</b> milk", "notes": "a\nb", "done": false, "due_on": "2026-12-24",
                           "assignee": bob, "version": 1, "created_at": created_at });
    assert_eq!(added.body, expected);
    alice.post(TASKS, &json!({ "title": "without a date" })).await;
    let comment = alice.post(&format!("{TASKS}/1/comments"), &json!({ "text": "fresh\nplease" })).await;
    assert_eq!((comment.status.as_u16(), &comment.body["text"]), (201, &json!("fresh\nplease")));
    let me = alice.get("/orgs/acme/api/session").await.body["person"].clone();
    assert_eq!(comment.body["author"], me);
    alice.put(&format!("{TASKS}/1/done"), &json!({ "done": true, "version": 1 })).await;
    let list = alice.get(TASKS).await.body;
    let shown: Vec<_> = list.as_array().unwrap().iter().map(|task| (&task["id"], &task["comments"])).collect();
    assert_eq!(shown, [(&json!(2), &json!(0)), (&json!(1), &json!(1))], "open tasks are first");
    // The removed assignee leaves the task without one, and the task's comments go with it.
    alice.delete(&format!("/orgs/acme/api/members/{bob}")).await;
    assert_eq!(alice.get(&format!("{TASKS}/1")).await.body["assignee"], Value::Null);
    let task = format!("{TASKS}/1");
    let version = alice.get(&task).await.body["version"].as_i64().unwrap();
    assert_eq!(alice.delete_seen(&task, version - 1).await.refusal(), (409, "task_changed"));
    assert_eq!(alice.delete_seen(&task, version).await.status, 204);
    assert_eq!(alice.delete_seen(&task, version).await.refusal(), (404, "not_found"));
    assert_eq!(alice.get(&format!("{TASKS}/1")).await.refusal(), (404, "not_found"));
    assert_eq!(alice.get(&format!("{TASKS}/1/comments")).await.refusal(), (404, "not_found"));
    let late = alice.post(&format!("{TASKS}/1/comments"), &json!({ "text": "too late" })).await;
    assert_eq!(late.refusal(), (404, "not_found"));
}

async fn an_edit_of_an_old_version_is_refused(running: &RunningTasks) {
    let alice = running.sign_up("acme").await;
    alice.post(TASKS, &json!({ "title": "first" })).await;
    let edit = |title: &str, version: i64| json!({ "title": title, "version": version });
    let path = format!("{TASKS}/1");
    assert_eq!(alice.put(&path, &edit("second", 1)).await.body["version"], 2);
    assert_eq!(alice.put(&path, &edit("lost", 1)).await.refusal(), (409, "task_changed"));
    let done = alice.put(&format!("{path}/done"), &json!({ "done": true, "version": 1 })).await;
    assert_eq!(done.refusal(), (409, "task_changed"));
    assert_eq!(alice.put(&format!("{TASKS}/9"), &edit("nowhere", 1)).await.refusal(), (404, "not_found"));
    let (one, two) = (edit("one", 2), edit("two", 2));
    let (one, two) = tokio::join!(alice.put(&path, &one), alice.put(&path, &two));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "of two edits at the same time one wins");
    let task = alice.get(&path).await.body;
    assert_eq!((&task["version"], &task["done"]), (&json!(3), &json!(false)));
}

async fn the_counts_follow_every_change_of_their_organisation(running: &RunningTasks) {
    let (alice, bob) = (running.sign_up("acme").await, running.sign_up("globex").await);
    let counts = async || {
        let body = alice.get("/orgs/acme/api/counts").await.body;
        (body["open"].as_i64().unwrap(), body["done"].as_i64().unwrap())
    };
    assert_eq!(counts().await, (0, 0));
    alice.post(TASKS, &json!({ "title": "first" })).await;
    alice.post(TASKS, &json!({ "title": "second" })).await;
    assert_eq!(counts().await, (2, 0));
    alice.put(&format!("{TASKS}/1/done"), &json!({ "done": true, "version": 1 })).await;
    assert_eq!(counts().await, (1, 1));
    alice.delete_seen(&format!("{TASKS}/2"), 1).await;
    assert_eq!(counts().await, (0, 1));
    assert_eq!(bob.get("/orgs/globex/api/counts").await.body, json!({ "open": 0, "done": 0 }));
}
