//! Backups and restores through the API: what was written comes back, with the same name and the same token.

use reqwest::Method;
use serde_json::json;

use crate::http::site::{Site, send};

#[tokio::test]
async fn a_tenant_is_restored_in_place_undone_and_copied() {
    let site = Site::with_tenants(&["acme", "globex"]).await;
    let token = site.tenant_token("acme", "writer").await;
    let started = site.post("/v1/backups", &json!({ "selection": { "all": true }, "reason": "a test" })).await;
    assert_eq!(started.status, 202, "{started:?}");
    site.done(started.json()["id"].as_str().unwrap()).await;
    let list = site.get("/v1/backups?tenant=acme").await.ok();
    let backup = list["items"][0].clone();
    assert_eq!((list["items"].as_array().unwrap().len(), backup["tenant"].as_str()), (1, Some("acme")), "{list}");
    let one = site.get(&format!("/v1/backups/{}", backup["id"].as_str().unwrap())).await.ok();
    assert_eq!(one["id"], backup["id"]);
    assert!(one["manifest"].is_object(), "{one}");
    let verified = site.post("/v1/backups/verify", &json!({ "backups": [backup["id"]] })).await.ok();
    site.done(verified["id"].as_str().unwrap()).await;
    let again = site.get(&format!("/v1/backups/{}", backup["id"].as_str().unwrap())).await.ok();
    assert!(again["verified_at"].is_string() && again["verify_error"].is_null(), "{again}");

    let count = json!({ "sql": "select count(*) from notes" });
    site.ask("acme", &token, &json!({ "sql": "insert into notes values (2, 'after')" })).await.ok();
    let preview = site.post("/v1/restores/preview", &json!({ "tenant": "acme", "to": "latest" })).await.ok();
    assert_eq!(preview["backup"]["id"], backup["id"]);
    let restore = site.post("/v1/restores", &json!({ "tenant": "acme", "to": "latest" })).await.ok();
    site.done(restore["id"].as_str().unwrap()).await;
    assert_eq!(site.ask("acme", &token, &count).await.ok()["rows"], json!([[1]]), "same name, same token");
    let undo = site.post("/v1/restores/undo", &json!({ "tenant": "acme" })).await.ok();
    site.done(undo["id"].as_str().unwrap()).await;
    assert_eq!(site.ask("acme", &token, &count).await.ok()["rows"], json!([[2]]));
    let copy = json!({ "tenant": "acme", "to": backup["taken_at"], "as": "acme-copy" });
    let copied = site.post("/v1/restores", &copy).await.ok();
    site.done(copied["id"].as_str().unwrap()).await;
    site.ask("acme-copy", &token, &count).await.problem(404, "not_found");
    let own = site.tenant_token("acme-copy", "reader").await;
    assert_eq!(site.ask("acme-copy", &own, &count).await.ok()["rows"], json!([[1]]));
    let other = json!({ "tenant": "globex", "to": backup["id"] });
    let refused = site.post("/v1/restores/preview", &other).await;
    refused.problem(404, "backup_not_found");
    let early = json!({ "tenant": "acme", "to": "2001-01-01T00:00:00Z" });
    site.post("/v1/restores", &early).await.problem(404, "backup_not_found");
    site.post("/v1/restores", &json!({ "tenant": "acme", "to": "soon" })).await.problem(422, "invalid");
    site.post("/v1/backups/verify", &json!({})).await.problem(422, "invalid");
    site.stop().await;
}

#[tokio::test]
async fn a_protected_tenant_stays_and_a_deleted_one_is_gone_for_its_members() {
    let site = Site::with_tenants(&["acme"]).await;
    let token = site.tenant_token("acme", "reader").await;
    let protect = |on: bool| send(site.admin(Method::PATCH, "/v1/tenants/acme").json(&json!({ "protected": on })));
    assert_eq!(protect(true).await.ok()["protected"], true);
    send(site.admin(Method::DELETE, "/v1/tenants/acme")).await.problem(409, "protected");
    assert_eq!(protect(false).await.ok()["protected"], false);
    let deleted = send(site.admin(Method::DELETE, "/v1/tenants/acme?reason=closed")).await;
    assert_eq!(deleted.status, 202, "{deleted:?}");
    site.done(deleted.json()["id"].as_str().unwrap()).await;
    let tenant = site.get("/v1/tenants/acme").await.ok();
    assert_eq!(tenant["state"], "deleted", "{tenant}");
    assert!(tenant["purge_after_at"].is_string());
    site.ask("acme", &token, &json!({ "sql": "select 1" })).await.problem(404, "not_found");
    site.post("/v1/tenants", &json!({ "name": "acme" })).await.problem(409, "already_exists");
    site.stop().await;
}
