//! Requests that name another organisation: by path, header, query or body.

use reqwest::Method;
use serde_json::json;

use crate::stage::Stage;

pub(super) async fn token_cache(stage: &Stage) -> bool {
    stage.fill(1, 1).await;
    stage.shows(&stage.a.get_at(&stage.b.path("/tasks")).await)
}

pub(super) async fn live_without_membership(stage: &Stage) -> bool {
    // The body does not end.
    let request = stage.a.request(Method::GET, &stage.b.path("/live"));
    request.send().await.unwrap().status() == 200
}

pub(super) async fn staff_header(stage: &Stage) -> bool {
    stage.fill(0, 1).await;
    let by_header = stage.a.get_with("/tasks", "x-impersonate", &stage.b.name).await;
    let by_query = stage.a.get(&format!("/tasks?as={}", stage.b.name)).await;
    assert_eq!(stage.shows(&by_header), stage.shows(&by_query));
    stage.shows(&by_header)
}

pub(super) async fn header_beats_path(stage: &Stage) -> bool {
    stage.fill(0, 1).await;
    stage.shows(&stage.a.get_with("/tasks", "x-tenant", &stage.b.name).await)
}

pub(super) async fn body_names_tenant(stage: &Stage) -> bool {
    stage.a.post("/tasks", &json!({ "title": "planted", "tenant": stage.b.name })).await;
    stage.b.get("/tasks").await.text.contains("planted")
}

pub(super) async fn bulk_tenant(stage: &Stage) -> bool {
    let operations = json!([{ "title": "planted", "organisation": stage.b.name }, { "title": "plain" }]);
    let added = stage.a.post("/bulk", &json!({ "operations": operations })).await;
    assert_eq!(added.status, 201, "{}", added.text);
    assert!(stage.a.get("/tasks").await.text.contains("plain"));
    stage.b.get("/tasks").await.text.contains("planted")
}

pub(super) async fn name_prefix(stage: &Stage) -> bool {
    stage.fill(0, 1).await;
    let prefix = &stage.b.name[..stage.b.name.len() - 1];
    let capital = stage.b.name.to_uppercase();
    assert!(!stage.shows(&stage.a.get_at(&stage.b.path("/tasks")).await), "the exact name is refused");
    let by_prefix = stage.a.get_at(&format!("/orgs/{prefix}/api/tasks")).await;
    let by_capital = stage.a.get_at(&format!("/orgs/{capital}/api/tasks")).await;
    assert_eq!(stage.shows(&by_prefix), stage.shows(&by_capital));
    stage.shows(&by_prefix)
}

pub(super) async fn foreign_answer(stage: &Stage) -> bool {
    let foreign = stage.a.get_at(&stage.b.path("/tasks")).await;
    let unknown = stage.a.get_at("/orgs/nowhere/api/tasks").await;
    assert_eq!(unknown.status, 404);
    foreign.status != unknown.status
}

pub(super) async fn error_text(stage: &Stage) -> bool {
    let title = format!("Title {}", stage.b.name);
    stage.b.post("/tasks", &json!({ "title": title, "notes": stage.canary })).await;
    stage.shows(&stage.a.post("/tasks", &json!({ "title": title })).await)
}

pub(super) async fn taken_handle(stage: &Stage) -> bool {
    assert_eq!(stage.b.put("/profile", &json!({ "handle": "same" })).await.status, 200);
    assert_eq!(stage.b.get("/profile").await.body["handle"], "same");
    stage.a.put("/profile", &json!({ "handle": "same" })).await.status == 409
}

pub(super) async fn admin_open(stage: &Stage) -> bool {
    stage.a.get_at("/admin/organisations").await.text.contains(&stage.b.name)
}
