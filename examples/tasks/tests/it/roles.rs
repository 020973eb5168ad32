//! What each role may do.

use reqwest::Method;
use serde_json::{Value, json};

use crate::on_both_engines;
use crate::running::{RunningTasks, invitation};

on_both_engines! { each_role_may_do_what_it_is_for }

async fn each_role_may_do_what_it_is_for(running: &RunningTasks) {
    let manager = running.sign_up("acme").await;
    manager.post("/orgs/acme/api/tasks", &json!({ "title": "first" })).await;
    manager.post("/orgs/acme/api/exports", &Value::Null).await;
    let (viewer, viewer_id) = running.invite(&manager, "acme", "reader").await;
    let (editor, _) = running.invite(&manager, "acme", "writer").await;
    for path in ["session", "tasks", "counts", "tasks/1", "tasks/1/comments", "people", "exports", "exports/1"] {
        for browser in [&viewer, &editor] {
            assert_eq!(browser.get(&format!("/orgs/acme/api/{path}")).await.status, 200, "{path}");
        }
    }
    let writes = [
        (Method::POST, "tasks", json!({ "title": "second" }), 201),
        (Method::PUT, "tasks/1", json!({ "title": "renamed", "version": 1 }), 200),
        (Method::PUT, "tasks/1/done", json!({ "done": true, "version": 2 }), 200),
        (Method::POST, "tasks/1/comments", json!({ "text": "hello" }), 201),
        (Method::POST, "exports", Value::Null, 201),
        (Method::DELETE, "tasks/1", json!({ "version": 3 }), 204),
    ];
    for (method, path, body, success) in writes {
        let path = format!("/orgs/acme/api/{path}");
        let refused = viewer.change(method.clone(), &path, &body).await;
        assert_eq!(refused.refusal(), (403, "forbidden"), "{path}");
        let done = editor.change(method, &path, &body).await;
        assert_eq!(done.status, success, "{path}: {}", done.text);
    }
    let member = format!("members/{viewer_id}");
    let managing = [
        (Method::GET, "members", Value::Null),
        (Method::POST, "members", invitation("Eve", "manager")),
        (Method::PUT, &*member, json!({ "role": "manager" })),
        (Method::POST, &*format!("{member}/link"), Value::Null),
        (Method::DELETE, &*member, Value::Null),
    ];
    for (method, path, body) in managing {
        for browser in [&viewer, &editor] {
            let refused = browser.change(method.clone(), &format!("/orgs/acme/api/{path}"), &body).await;
            assert_eq!(refused.refusal(), (403, "forbidden"), "{path}");
        }
    }
    assert_eq!(viewer.get("/orgs/acme/api/session").await.body["role"], "reader");
}
