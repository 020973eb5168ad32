//! Plans over HTTP: what the admin API sets, the data API enforces and tells.

use serde_json::{Value, json};

use crate::http::site::{Answer, Site, send};

/// A site with a plan of these limits, and `acme` has it.
async fn site_with_plan(limits: Value) -> (Site, String) {
    let site = Site::with_tenants(&["acme", "globex"]).await;
    site.post("/v1/plans", &json!({ "name": "free", "limits": limits })).await.ok();
    let set = patch(&site, "/v1/tenants/acme", &json!({ "plan": "free" })).await;
    assert_eq!(set.ok()["plan"], "free");
    let token = site.tenant_token("acme", "writer").await;
    (site, token)
}

async fn patch(site: &Site, path: &str, body: &Value) -> Answer {
    send(site.admin(reqwest::Method::PATCH, path).json(body)).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn answers_tell_the_rate_and_a_used_up_one_is_429() {
    let (site, token) = site_with_plan(json!({ "requests_per_second": 1, "burst": 200 })).await;
    let select = json!({ "sql": "select 1" });
    let answer = site.ask("acme", &token, &select).await;
    answer.ok();
    assert_eq!(header(&answer, "ratelimit-policy"), Some("\"plan\";q=200;w=200"));
    assert_eq!(header(&answer, "ratelimit"), Some("\"plan\";r=199;t=1"));
    let failed = site.ask("acme", &token, &json!({ "sql": "selekt" })).await;
    assert!(failed.status == 422 || failed.status == 400, "{failed:?}");
    assert_eq!(header(&failed, "ratelimit-policy"), Some("\"plan\";q=200;w=200"), "errors tell it, too");
    let smaller = patch(&site, "/v1/plans/free", &json!({ "limits": { "burst": 1 } })).await.ok();
    assert_eq!(smaller["limits"], json!({ "requests_per_second": 1, "burst": 1 }));
    let refused = loop {
        let answer = site.ask("acme", &token, &select).await;
        if answer.status != 200 {
            break answer;
        }
    };
    refused.problem(429, "rate_limited");
    assert_eq!(header(&refused, "retry-after"), Some("1"));
    assert_eq!(header(&refused, "ratelimit"), Some("\"plan\";r=0;t=1"));
    let globex = site.tenant_token("globex", "writer").await;
    let other = site.ask("globex", &globex, &select).await;
    other.ok();
    assert_eq!(header(&other, "ratelimit"), None);
    let stranger = site.ask("acme", &globex, &select).await;
    stranger.problem(404, "not_found");
    assert_eq!(header(&stranger, "ratelimit"), None);
    site.stop().await;
}

#[tokio::test]
async fn a_full_database_is_507_and_a_plan_in_use_stays() {
    let (site, token) = site_with_plan(json!({ "storage_bytes_max": 1_048_576 })).await;
    let insert = json!({ "sql": "insert into notes (body) values (printf('%.*c', 400000, 'x'))" });
    let mut refused = site.ask("acme", &token, &insert).await;
    for _ in 0..5 {
        refused = site.ask("acme", &token, &insert).await;
    }
    refused.problem(507, "storage_full");
    assert_eq!(header(&refused, "retry-after"), None, "waiting does not help");
    site.ask("acme", &token, &json!({ "sql": "select count(*) from notes" })).await.ok();
    send(site.admin(reqwest::Method::DELETE, "/v1/plans/free")).await.problem(409, "plan_in_use");
    assert_eq!(patch(&site, "/v1/tenants/acme", &json!({ "plan": null })).await.ok()["plan"], Value::Null);
    site.ask("acme", &token, &insert).await.ok();
    assert_eq!(send(site.admin(reqwest::Method::DELETE, "/v1/plans/free")).await.status, 204);
    let events = site.get("/v1/events?limit=1000").await.ok();
    let kinds: Vec<_> =
        events["items"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    for kind in ["plan.added", "tenant.plan_set", "plan.removed"] {
        assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
    }
    site.stop().await;
}
