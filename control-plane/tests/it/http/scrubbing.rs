//! `/v1/scrub` beside tenants that are served: who may call it, and what it refuses.

use reqwest::Method;
use serde_json::{Value, json};

use crate::http::site::{Answer, Site, send};

async fn as_role(site: &Site, role: &str, path: &str, body: &Value) -> Answer {
    let (_, secret) = site.operator(role).await;
    send(site.client.request(Method::POST, format!("{}{path}", site.admin)).bearer_auth(secret).json(body)).await
}

#[tokio::test]
async fn operators_look_and_admins_put_aside() {
    let site = Site::with_tenants(&["acme", "globex"]).await;
    as_role(&site, "viewer", "/v1/scrub", &json!({})).await.problem(403, "forbidden");
    let report = as_role(&site, "operator", "/v1/scrub", &json!({})).await.ok();
    assert_eq!((&report["findings"], &report["opened"], &report["version"]), (&json!([]), &json!(2), &json!(1)));

    let mut wish = json!({ "version": 1, "fleet_id": report["fleet_id"], "findings": [] });
    as_role(&site, "operator", "/v1/scrub/quarantine", &wish).await.problem(403, "forbidden");
    site.post("/v1/scrub/quarantine", &wish).await.problem(422, "invalid");
    // What an honest report never says of a tenant's database changes nothing.
    let current = json!({
        "kind": "orphan_database", "severity": "warning", "server": "local", "what": "database",
        "name": site.get("/v1/tenants/acme").await.ok()["id"],
    });
    wish["findings"] = json!([current]);
    wish["dry_run"] = json!(true);
    let planned = as_role(&site, "operator", "/v1/scrub/quarantine", &wish).await.ok();
    assert_eq!((&planned["dry_run"], &planned["items"][0]["outcome"]), (&json!(true), &json!("refused")), "{planned}");
    site.stop().await;
}

#[tokio::test]
async fn a_report_that_does_not_fit_is_refused_as_a_whole() {
    let site = Site::with_tenants(&["acme"]).await;
    let fleet = site.post("/v1/scrub", &json!({})).await.ok()["fleet_id"].clone();
    let finding = json!({ "kind": "orphan_file", "severity": "warning", "server": "local", "name": "x" });
    for (key, wrong, words) in [
        ("version", json!(2), "version"),
        ("fleet_id", json!("flt_01907000000070008000000000000009"), "another fleet"),
        ("findings", json!([{ "kind": "orphan_file" }]), "missing field"),
        ("findings", json!(vec![finding.clone(); 1_001]), "at most 1000"),
    ] {
        let mut wish = json!({ "version": 1, "fleet_id": fleet, "findings": [] });
        wish[key] = wrong;
        let problem = site.post("/v1/scrub/quarantine", &wish).await.problem(422, "invalid");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
    let mut odd = finding;
    odd["what"] = json!("planet");
    let wish = json!({ "version": 1, "fleet_id": fleet, "findings": [odd] });
    let problem = site.post("/v1/scrub/quarantine", &wish).await.problem(422, "invalid");
    assert!(problem["detail"].as_str().unwrap().contains("findings[0]"), "{problem}");
    site.stop().await;
}
