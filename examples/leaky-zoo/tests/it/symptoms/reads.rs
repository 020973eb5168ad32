//! Rows, files and answers of another organisation.

use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::Stage;

/// Pairs of requests at the same time. A variable of the process is mixed up within the first few.
const ROUNDS: usize = 50;

pub(super) async fn missing_scope(stage: &Stage) -> bool {
    stage.fill(1, 2).await;
    // The fleet may have several organisations with a task 2. This one has none.
    stage.a.get("/tasks/2").await.status == 200
}

pub(super) async fn search_of_both(stage: &Stage) -> bool {
    stage.fill(1, 1).await;
    assert!(stage.shows(&stage.b.get("/search?q=").await));
    stage.shows(&stage.a.get("/search?q=").await)
}

pub(super) async fn lists_of_both(stage: &Stage) -> bool {
    // The first request of all is one of b.
    stage.fill(0, 1).await;
    assert!(stage.shows(&stage.b.get("/tasks").await));
    stage.shows(&stage.a.get("/tasks").await)
}

pub(super) async fn export_ids(stage: &Stage) -> bool {
    stage.fill(1, 1).await;
    let mut ids = Vec::new();
    for founder in [&stage.b, &stage.a] {
        let export = founder.post("/exports", &Value::Null).await.body["id"].as_i64().unwrap();
        assert_eq!(founder.get("/exports").await.body[0]["id"], export);
        let file = founder.get(&format!("/exports/{export}")).await;
        assert_eq!(file.status, 200, "{}", file.text);
        ids.push(export);
    }
    stage.shows(&stage.a.get(&format!("/exports/{}", ids[0])).await)
}

pub(super) async fn signed_link(stage: &Stage) -> bool {
    stage.fill(1, 1).await;
    let mut own = String::new();
    for founder in [&stage.b, &stage.a] {
        let export = founder.post("/exports", &Value::Null).await.body["id"].as_i64().unwrap();
        let link = founder.post(&format!("/exports/{export}/link"), &Value::Null).await;
        own = link.body["path"].as_str().unwrap().to_owned();
        let visitor = reqwest::get(format!("{}{own}", founder.url)).await.unwrap();
        assert_eq!(visitor.status(), 200, "{own}");
    }
    let foreign = own.replace(&stage.a.name, &stage.b.name);
    let visitor = reqwest::get(format!("{}{foreign}", stage.a.url)).await.unwrap();
    visitor.text().await.unwrap().contains(&stage.canary)
}

pub(super) async fn cursor(stage: &Stage) -> bool {
    stage.fill(3, 3).await;
    let page = stage.b.get("/pages/tasks").await;
    assert_eq!(page.body["tasks"].as_array().unwrap().len(), 2, "{}", page.text);
    let route = format!("/pages/tasks?after={}", page.body["next"].as_str().unwrap());
    let rest = stage.b.get(&route).await;
    assert!(rest.body["tasks"][0]["id"] == 3 && rest.body["next"].is_null(), "{}", rest.text);
    stage.shows(&stage.a.get(&route).await)
}

pub(super) async fn files_by_name(stage: &Stage) -> bool {
    let written = stage.b.put("/files/notes.txt", &json!({ "content": stage.canary })).await;
    assert_eq!(written.status, 200, "{}", written.text);
    assert!(stage.shows(&stage.b.get("/files/notes.txt").await));
    stage.shows(&stage.a.get("/files/notes.txt").await)
}

pub(super) async fn idempotency_key(stage: &Stage) -> bool {
    let import = async |founder: &crate::stage::Founder, title: &str| {
        let request = founder.request(Method::POST, &founder.path("/imports")).header("idempotency-key", "1");
        founder.send(request.json(&json!({ "title": title }))).await
    };
    assert!(stage.shows(&import(&stage.b, &stage.canary).await));
    stage.shows(&import(&stage.a, "plain").await)
}

pub(super) async fn location_header(stage: &Stage) -> bool {
    stage.b.add_task(&stage.canary).await;
    stage.a.add_task("plain").await.header("link").contains(&stage.canary)
}

pub(super) async fn fleet_count(stage: &Stage) -> bool {
    stage.fill(1, 2).await;
    stage.a.get("/counts").await.body["open"] != 1
}

pub(super) async fn current_tenant(stage: &Stage) -> bool {
    stage.b.add_task(&stage.canary).await;
    for _ in 0..ROUNDS {
        let (of_a, again, _, _) =
            tokio::join!(stage.a.get("/tasks"), stage.a.get("/tasks"), stage.b.get("/tasks"), stage.b.get("/tasks"));
        if stage.shows(&of_a) || stage.shows(&again) {
            return true;
        }
    }
    false
}
