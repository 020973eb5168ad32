//! The extras do what their documents say, on both engines.

use postgres_fixture::Cluster;
use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::{Stage, TestedFleet};

async fn use_extras(stage: &Stage) {
    let (a, b) = (&stage.a, &stage.b);
    let bulk = json!({ "operations": [{ "title": "100% done" }, { "title": "1000 done" }] });
    assert_eq!(a.post("/bulk", &bulk).await.body, json!({ "ids": [1, 2] }));
    let found = json!([{ "id": 1, "title": "100% done", "notes": "" }]);
    assert_eq!(a.get("/search?q=0%25%20D").await.body, found, "a wildcard is a character like others");
    assert_eq!(b.get("/search?q=").await.body, json!([]));
    let mut imported = Vec::new();
    for key in ["1", "1", "2"] {
        let request = a.request(Method::POST, &a.path("/imports")).header("idempotency-key", key);
        imported.push(a.send(request.json(&json!({ "title": "imported" }))).await.body["id"].clone());
    }
    assert_eq!(imported, [3, 3, 4]);
    let report = a.get("/report").await;
    assert_eq!(report.body, json!({ "title": "Test", "tasks": ["100% done", "1000 done", "imported", "imported"] }));
    assert_eq!(a.get_with("/report", "if-none-match", report.header("etag")).await.status, 304);
    a.add_task("another").await;
    assert_eq!(a.get_with("/report", "if-none-match", report.header("etag")).await.status, 200);
    assert_eq!(a.get("/profile").await.body, json!({ "handle": null }));
    assert_eq!(a.put("/profile", &json!({ "handle": "same" })).await.status, 200);
    assert_eq!(b.put("/profile", &json!({ "handle": "same" })).await.status, 200);
    let broken = json!({ "operations": [{ "title": "not added" }, { "title": " " }] });
    assert_eq!(a.post("/bulk", &broken).await.status, 400);
    assert_eq!(a.get("/counts").await.body, json!({ "open": 5, "done": 0 }));
}

async fn use_files(stage: &Stage) {
    let (a, b) = (&stage.a, &stage.b);
    for name in ["notes.txt", "..%2F..%2Fnotes.txt", "."] {
        let route = format!("/files/{name}");
        assert_eq!(a.get(&route).await.status, 404);
        let written = a.put(&route, &json!({ "content": name })).await;
        assert_eq!(written.status, if name == "." { 404 } else { 200 }, "{name}: {}", written.text);
        assert_eq!(b.get(&route).await.status, 404);
    }
    assert_eq!(a.get("/files/notes.txt").await.body, json!({ "content": "notes.txt" }));
    assert_eq!(a.put("/files/notes.txt", &json!({ "content": "x".repeat(10_001) })).await.status, 400);
}

async fn use_operator_routes(stage: &Stage) {
    assert_eq!(stage.a.get_at("/admin/organisations").await.status, 401);
    let request =
        stage.a.request(Method::GET, "/admin/organisations").header("x-admin-key", &stage.zoo.memory.admin_key);
    assert_eq!(stage.a.send(request).await.body, json!({ "organisations": 2 }));
    for route in ["/search?q=", "/pages/tasks", "/files/x", "/report", "/profile"] {
        assert_eq!(stage.a.get_at(&stage.b.path(route)).await.status, 404, "{route}");
        let visitor = reqwest::get(format!("{}{}", stage.a.url, stage.b.path(route))).await.unwrap();
        assert_eq!(visitor.status(), 401, "{route}");
    }
    let forged = reqwest::Client::new().post(format!("{}{}", stage.a.url, stage.a.path("/bulk")));
    let forged = forged.header("origin", "https://evil.example").json(&json!({ "operations": [] }));
    assert_eq!(forged.send().await.unwrap().json::<Value>().await.unwrap()["code"], "other_origin");
}

async fn use_all(cluster: Option<&Cluster>) {
    let fleet = TestedFleet::open(cluster).await;
    let stage = fleet.stage("extras", None).await;
    use_extras(&stage).await;
    use_files(&stage).await;
    use_operator_routes(&stage).await;
    fleet.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_extras_work_on_sqlite() {
    use_all(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_extras_work_on_postgres() {
    use_all(Some(&Cluster::start())).await;
}
