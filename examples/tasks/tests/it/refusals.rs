//! Requests that the application refuses: from other sites, with wrong fields, without an address.

use reqwest::Method;
use serde_json::{Value, json};

use crate::running::RunningTasks;

const TASKS: &str = "/orgs/acme/api/tasks";

#[tokio::test(flavor = "multi_thread")]
async fn a_change_comes_from_the_own_page() {
    let running = RunningTasks::start(None).await;
    let alice = running.sign_up("acme").await;
    let body = || Some(json!({ "title": "forged" }).to_string());
    let (json_type, own) = (("content-type", "application/json"), ("origin", &*running.url));
    for (headers, refusal) in [
        (vec![json_type], (403, "other_origin")),
        (vec![json_type, ("origin", "https://evil.example")], (403, "other_origin")),
        (vec![json_type, ("origin", "null")], (403, "other_origin")),
        (vec![("content-type", "text/plain"), own], (415, "not_json")),
        (vec![("content-type", "application/x-www-form-urlencoded"), own], (415, "not_json")),
        (vec![own], (415, "not_json")),
    ] {
        assert_eq!(alice.send(Method::POST, TASKS, body(), &headers).await.refusal(), refusal, "{headers:?}");
        let sign_up = running.visitor().send(Method::POST, "/api/organisations", body(), &headers).await;
        assert_eq!(sign_up.refusal(), refusal, "{headers:?}");
        let sign_out = alice.send(Method::DELETE, "/orgs/acme/api/session", None, &headers).await;
        assert_eq!(sign_out.refusal(), refusal, "{headers:?}");
    }
    assert_eq!(alice.get(TASKS).await.body, json!([]), "nothing was changed");
    // A program sends its own token, which no other site can make a browser do.
    let bearer = format!("Bearer {}", alice.cookie.as_deref().unwrap().split_once('=').unwrap().1);
    let headers = [json_type, ("authorization", &*bearer)];
    assert_eq!(running.visitor().send(Method::POST, TASKS, body(), &headers).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_breaks_a_rule_is_named() {
    let running = RunningTasks::start(None).await;
    let alice = running.sign_up("acme").await;
    let long = "x".repeat(201);
    for (task, named) in [
        (json!({ "title": " " }), "title"),
        (json!({ "title": "a\nb" }), "title"),
        (json!({ "title": long }), "201"),
        (json!({ "title": "a", "notes": "x".repeat(2_001) }), "notes"),
        (json!({ "title": "a", "notes": "a\u{0}b" }), "notes"),
        (json!({ "title": "a", "due_on": "2026-02-30" }), "due_on"),
        (json!({ "title": "a", "due_on": "tomorrow" }), "due_on"),
        (json!({ "title": "a", "assignee": "nobody" }), "assignee"),
        (json!({ "notes": "a" }), "title"),
    ] {
        let refused = alice.post(TASKS, &task).await;
        assert_eq!(refused.refusal(), (400, "invalid"), "{task}");
        assert!(refused.body["title"].as_str().unwrap().contains(named), "{}", refused.text);
    }
    let huge = alice.post(TASKS, &json!({ "title": "a", "notes": "x".repeat(70_000) })).await;
    assert_eq!(huge.refusal(), (413, "body_refused"));
    assert_eq!(alice.get(&format!("{TASKS}/first")).await.refusal(), (404, "not_found"));
    assert_eq!(alice.get("/orgs/acme/api/nothing").await.refusal(), (404, "not_found"));
    assert_eq!(alice.get("/nothing").await.refusal(), (404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_get_strict_headers_and_no_data_in_the_page() {
    let running = RunningTasks::start(None).await;
    let alice = running.sign_up("acme").await;
    for path in ["/", "/orgs/acme", "/orgs/nowhere", "/assets/app.js", "/assets/style.css", TASKS, "/nothing"] {
        let answer = alice.get(path).await;
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
    assert_eq!(alice.get("/orgs/acme").await.text, running.visitor().get("/orgs/nowhere").await.text);
    assert_eq!(alice.get(TASKS).await.header("cache-control"), "private, no-store");
    let out = alice.delete("/orgs/acme/api/session").await;
    assert_eq!(out.status, 204);
    let cookie = "tasks_session=; Max-Age=0; Path=/orgs/acme; HttpOnly; SameSite=Strict";
    assert_eq!((out.header("set-cookie"), &out.body), (cookie, &Value::Null));
}
