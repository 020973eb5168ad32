//! Every error is a problem, whoever makes it, and says nothing it should not.

use reqwest::Method;
use serde_json::json;

use crate::http::site::{Site, raw, send};

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

/// What a client sends next on the same connection is answered, or the answer before said that it would not be.
#[tokio::test]
async fn a_refusal_says_when_it_ends_the_connection() {
    let site = Site::with_tenants(&["acme"]).await;
    let token = site.tenant_token("acme", "reader").await;
    let head = |path: &str, more: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n{more}\r\n"
        )
    };
    let next = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let short = r#"{"sql":"select 1"}"#;
    let with_length = format!("content-length: {}\r\n", short.len());
    let chunked = format!("{:x}\r\n{short}\r\n0\r\n\r\n", short.len());
    // Short bodies are read to their end, and the connection goes on.
    for path in ["/t/acme/query", "/t/nobody/query", "/t/../query", "/nowhere"] {
        for (more, body) in [(with_length.as_str(), short), ("transfer-encoding: chunked\r\n", chunked.as_str())] {
            let both = raw(&site.data, format!("{}{body}{next}", head(path, more))).await;
            assert!(!both.headers.contains_key("connection"), "{path}: {both:?}");
            assert!(both.text.ends_with("ok") && both.text.contains("HTTP/1.1 200"), "{path}: {both:?}");
        }
    }
    // What is longer, is not there, or waits to be asked for ends it, and the answer says so.
    let long = format!("content-length: {}\r\n", 1 << 20);
    let asked = format!("content-length: {}\r\nexpect: 100-continue\r\n", short.len());
    for (more, body) in
        [(long.as_str(), "x".repeat(1 << 20)), (long.as_str(), String::new()), (asked.as_str(), String::new())]
    {
        let refused = raw(&site.data, format!("{}{body}", head("/t/nobody/query", more))).await;
        refused.problem(404, "not_found");
        assert_eq!(refused.headers["connection"], "close", "{more}");
    }
    site.stop().await;
}

#[tokio::test]
async fn a_request_names_one_host() {
    let site = Site::start().await;
    for base in [&site.data, &site.admin] {
        for hosts in ["", "host: a\r\nhost: b\r\n", "host: a\r\nhost: a\r\n"] {
            let refused = raw(base, format!("GET /livez HTTP/1.1\r\n{hosts}connection: close\r\n\r\n")).await;
            refused.problem(400, "host_invalid");
        }
        assert_eq!(
            raw(base, "GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned()).await.status,
            200
        );
        assert_eq!(raw(base, "GET /livez HTTP/1.0\r\n\r\n".to_owned()).await.status, 200);
    }
    site.stop().await;
}
