//! Every error is a problem, whoever makes it, and says nothing it should not.

use reqwest::Method;
use serde_json::json;

use crate::site::{Site, raw, send};

#[tokio::test]
async fn whatever_goes_wrong_is_a_problem() {
    let site = Site::start().await;
    site.get("/v1/nothing").await.problem(404, "not_found");
    site.get("/").await.problem(404, "not_found");
    let refused = send(site.admin(Method::PUT, "/v1/tenants")).await;
    refused.problem(405, "method_not_allowed");
    assert!(refused.headers["allow"].to_str().unwrap().contains("POST"));
    assert_eq!(send(site.admin(Method::HEAD, "/v1/tenants")).await.status, 200);
    let post = |path| site.admin(Method::POST, path);
    let typed = |kind| post("/v1/tenants").header("content-type", kind).body(r#"{"name":"acme"}"#);
    send(typed("text/plain")).await.problem(415, "unsupported_media_type");
    send(post("/v1/tenants").body(r#"{"name":"acme"}"#)).await.problem(415, "unsupported_media_type");
    let body = |text: &'static str| post("/v1/tenants").header("content-type", "application/json").body(text);
    send(body("{\"name\"")).await.problem(400, "invalid_json");
    let unknown = send(body(r#"{"name":"acme","nmae":"x"}"#)).await.problem(422, "invalid");
    assert!(unknown["detail"].as_str().unwrap().contains("`nmae`"), "{unknown}");
    let missing = send(body("{}")).await.problem(422, "invalid");
    assert!(missing["detail"].as_str().unwrap().contains("`name`"), "{missing}");
    site.get("/v1/tenants?limit=many").await.problem(400, "invalid_query");
    site.get("/v1/tenants?limit=0").await.problem(400, "invalid_query");
    site.get("/v1/tenants?colour=red").await.problem(400, "invalid_query");
    site.get("/v1/tenants?state=alive").await.problem(422, "invalid");
    site.get("/v1/tenants/%ff").await.problem(400, "invalid_path");
    site.get("/v1/operations/op_1").await.problem(404, "not_found");
    site.get(&format!("/v1/operations/{}", catalog::OperationId::generate())).await.problem(404, "not_found");
    let huge = json!({ "name": "x".repeat(2 << 20) });
    site.post("/v1/tenants", &huge).await.problem(413, "body_too_large");
    let data = |path: &str| site.client.post(format!("{}{path}", site.data)).json(&json!({ "sql": "select 1" }));
    send(data("/nothing")).await.problem(404, "not_found");
    send(data("/t/acme/query")).await.problem(401, "unauthenticated");
    send(site.client.get(format!("{}/t/acme/query", site.data))).await.problem(405, "method_not_allowed");
    site.stop().await;
}

#[tokio::test]
async fn bad_names_are_named_and_make_nothing() {
    let site = Site::with_tenants(&["acme"]).await;
    let long = "x".repeat(300);
    let bad = ["..", "%2e", "ACME.", "xn--acme-x", &long, "a\0b", "", "-a", "a b", "../../etc/passwd", "é"];
    for name in bad {
        let refused = site.post("/v1/tenants", &json!({ "name": name })).await.problem(422, "invalid");
        assert!(refused["detail"].as_str().unwrap().len() < 400, "{refused}");
    }
    let batch = json!({ "tenants": [{ "name": "good" }, { "name": ".." }, { "name": long }, { "name": "good" }] });
    let refused = site.post("/v1/tenants/batch", &batch).await.problem(422, "invalid");
    let lines: Vec<_> =
        refused["errors"].as_array().unwrap().iter().map(|line| line["index"].as_u64().unwrap()).collect();
    assert!(lines.contains(&1) && lines.contains(&2), "{refused}");
    assert_eq!(site.get("/v1/tenants").await.ok()["items"].as_array().unwrap().len(), 1);
    let token = site.tenant_token("acme", "reader").await;
    for path in [
        "/t/../query",
        "/t/%2e/query",
        "/t/%2e%2e/query",
        "/t/ACME./query",
        "/t/xn--acme-x/query",
        "/t/a%00b/query",
        "/t/..%2f..%2fetc/query",
        &format!("/t/{long}/query"),
    ] {
        let body = r#"{"sql":"select 1"}"#;
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let refused = raw(&site.data, request).await;
        assert!([400, 404].contains(&refused.status), "{path}: {refused:?}");
        refused.problem(refused.status, refused.json()["code"].as_str().unwrap());
    }
    site.stop().await;
}

#[tokio::test]
async fn requests_are_named_and_traces_echoed() {
    let site = Site::start().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = site.admin(Method::GET, "/v1/status").header("x-request-id", "mine-1").header("traceparent", trace);
    let answer = send(request).await;
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    assert_eq!(answer.headers["traceparent"], trace);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let request = site.admin(Method::GET, "/v1/status").header("x-request-id", "a b").header("traceparent", "x");
    let answer = send(request).await;
    assert_ne!(answer.headers["x-request-id"], "a b");
    assert!(!answer.headers.contains_key("traceparent"));
    site.stop().await;
}
