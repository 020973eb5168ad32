//! Who may do what: tokens, roles, revocation, the process itself.

use std::time::{Duration, Instant};

use axum::body::Body;
use reqwest::Method;
use serde_json::json;
use tower::ServiceExt;

use crate::http::site::{Site, send};

#[tokio::test]
async fn only_an_operators_token_opens_the_admin_api_and_none_learns_why() {
    let site = Site::with_tenants(&["acme"]).await;
    let tenant = site.tenant_token("acme", "manager").await;
    let service = site.post("/v1/tokens", &json!({ "service": true, "role": "manager" })).await.ok()["secret"].clone();
    let mut seen = Vec::new();
    for token in ["", "x", "flt_", &tenant, service.as_str().unwrap(), &site.token[..20], &format!("{}x", site.token)] {
        let url = format!("{}/v1/status", site.admin);
        let answer = send(site.client.get(url).bearer_auth(token).header("x-request-id", "same")).await;
        answer.problem(401, "unauthenticated");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        seen.push(answer.text);
    }
    seen.push(send(site.client.get(format!("{}/v1/status", site.admin)).header("x-request-id", "same")).await.text);
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let twice = site.admin(Method::GET, "/v1/status").header("authorization", "Bearer other");
    send(twice).await.problem(401, "unauthenticated");
    site.stop().await;
}

#[tokio::test]
async fn an_operators_token_opens_no_tenants_data() {
    let site = Site::with_tenants(&["acme"]).await;
    let answer = site.ask("acme", &site.token, &json!({ "sql": "select * from notes" })).await;
    answer.problem(404, "not_found");
    site.stop().await;
}

#[tokio::test]
async fn a_revoked_token_is_refused_within_a_second() {
    let site = Site::start().await;
    let (id, secret) = site.operator("viewer").await;
    let status =
        || async { send(site.client.get(format!("{}/v1/status", site.admin)).bearer_auth(&secret)).await.status };
    assert_eq!(status().await, 200);
    let revoked = send(site.admin(Method::DELETE, &format!("/v1/tokens/{id}"))).await.ok();
    assert!(revoked["revoked_at"].is_string());
    let began = Instant::now();
    while status().await != 401 {
        assert!(began.elapsed() < Duration::from_secs(1), "still accepted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    site.stop().await;
}

#[tokio::test]
async fn a_viewer_looks_and_plans_but_changes_nothing() {
    let site = Site::with_tenants(&["acme"]).await;
    let (_, viewer) = site.operator("viewer").await;
    let call =
        |method: Method, path: &str| site.client.request(method, format!("{}{path}", site.admin)).bearer_auth(&viewer);
    for path in [
        "/v1/status",
        "/v1/doctor",
        "/v1/tenants",
        "/v1/tenants/acme/description",
        "/v1/tokens",
        "/v1/servers",
        "/v1/releases",
        "/v1/operations",
        "/v1/events",
        "/v1/backups",
        "/v1/migrations/status",
    ] {
        assert_eq!(send(call(Method::GET, path)).await.status, 200, "{path}");
    }
    let member = json!({ "principal": "alice", "role": "reader" });
    send(call(Method::POST, "/v1/tenants/acme/members").json(&member)).await.problem(403, "forbidden");
    send(call(Method::POST, "/v1/tenants").json(&json!({ "name": "new" }))).await.problem(403, "forbidden");
    send(call(Method::DELETE, "/v1/tenants/acme")).await.problem(403, "forbidden");
    let query = json!({ "sql": "select 1", "selection": { "all": true } });
    send(call(Method::POST, "/v1/queries").json(&query)).await.problem(403, "forbidden");
    let planned = send(call(Method::POST, "/v1/tenants").json(&json!({ "name": "new", "dry_run": true }))).await.ok();
    assert_eq!((planned["dry_run"].as_bool(), planned["plan"]["tenants"].as_u64()), (Some(true), Some(1)), "{planned}");
    assert_eq!(send(call(Method::DELETE, "/v1/tenants/acme?dry_run=true")).await.status, 200);
    assert_eq!(site.get("/v1/tenants").await.ok()["items"].as_array().unwrap().len(), 1);
    let (_, operator) = site.operator("operator").await;
    let url = format!("{}/v1/tokens", site.admin);
    let wanted = json!({ "operator": "admin" });
    send(site.client.post(url).bearer_auth(operator).json(&wanted)).await.problem(403, "forbidden");
    site.stop().await;
}

#[tokio::test]
async fn a_dry_run_leaves_nothing_behind() {
    let site = Site::with_tenants(&["acme"]).await;
    let before = site.get("/v1/events?limit=1000").await.ok()["items"].as_array().unwrap().len();
    let file = json!({ "name": "0002_x.sql", "sql": "create table x (a);" });
    let notes =
        json!({ "name": "0001_notes.sql", "sql": "create table notes (id integer primary key, body text) strict;" });
    for (path, body) in [
        ("/v1/tenants/acme/members", json!({ "principal": "alice", "role": "reader", "dry_run": true })),
        ("/v1/tokens", json!({ "operator": "admin", "dry_run": true })),
        ("/v1/servers/local/cordon", json!({ "dry_run": true })),
        ("/v1/releases", json!({ "files": [file], "dry_run": true })),
        ("/v1/migrations", json!({ "files": [notes, file], "selection": { "all": true }, "dry_run": true })),
    ] {
        let planned = site.post(path, &body).await;
        assert_eq!(planned.status, 200, "{path}: {planned:?}");
        assert_eq!(planned.json()["dry_run"], true, "{path}");
        assert!(!planned.text.contains("ftk_"), "{path}: {planned:?}");
    }
    let url = "/v1/tenants/acme";
    let patch =
        site.admin(Method::PATCH, url).json(&json!({ "labels": { "a": "b" }, "protected": true, "dry_run": true }));
    assert_eq!(send(patch).await.ok()["dry_run"], true);
    assert_eq!(site.get(url).await.ok()["protected"], false);
    assert_eq!(site.get("/v1/servers/local").await.ok()["state"], "active");
    assert_eq!(site.get("/v1/releases").await.ok()["items"].as_array().unwrap().len(), 1);
    assert_eq!(site.get("/v1/tenants/acme/members").await.ok()["items"], json!([]));
    let after = site.get("/v1/events?limit=1000").await.ok()["items"].as_array().unwrap().len();
    assert_eq!(before, after);
    site.stop().await;
}

#[tokio::test]
async fn the_process_itself_is_an_administrator_and_nobody_else_without_a_token() {
    let site = Site::start().await;
    let router = control_plane::http::admin_router(std::sync::Arc::clone(&site.app));
    let request = |principal: bool| {
        let mut request = axum::http::Request::get("/v1/tokens").body(Body::empty()).unwrap();
        if principal {
            request.extensions_mut().insert(site.app.in_process_principal("me@here"));
        }
        router.clone().oneshot(request)
    };
    assert_eq!(request(true).await.unwrap().status(), 200);
    assert_eq!(request(false).await.unwrap().status(), 401);
    site.stop().await;
}

#[tokio::test]
async fn only_the_process_itself_is_told_what_a_500_is_about() {
    let site = Site::start().await;
    let other = rusqlite::Connection::open(site.dir.path().join("data/catalog.db")).unwrap();
    other.execute_batch("alter table releases rename to elsewhere").unwrap();
    let router = control_plane::http::admin_router(std::sync::Arc::clone(&site.app));
    let mut request = axum::http::Request::get("/v1/releases").body(Body::empty()).unwrap();
    request.extensions_mut().insert(site.app.in_process_principal("me@here"));
    let answer = router.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 500);
    let told = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    assert!(String::from_utf8_lossy(&told).contains("no such table: releases"), "{told:?}");
    let stranger = site.get("/v1/releases").await.problem(500, "catalog_corrupt");
    assert!(!stranger.to_string().contains("releases"), "{stranger}");
    other.execute_batch("alter table elsewhere rename to releases").unwrap();
    site.stop().await;
}
