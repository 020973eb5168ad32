//! The events of an operation, as they happen.

use reqwest::Method;
use serde_json::json;

use crate::http::site::{Site, send};

/// The ids and kinds of a whole event stream.
fn parse(stream: &str) -> Vec<(i64, String)> {
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let event = |block: &str| Some((field(block, "id:")?.parse().unwrap(), field(block, "event:")?));
    stream.split("\n\n").filter_map(event).collect()
}

#[tokio::test]
async fn a_stream_ends_with_its_operation_and_goes_on_where_it_broke_off() {
    let site = Site::start().await;
    let names: Vec<_> = (0..5).map(|n| json!({ "name": format!("t{n}") })).collect();
    let started = site.post("/v1/tenants/batch", &json!({ "tenants": names })).await.ok();
    let path = format!("/v1/operations/{}/events", started["id"].as_str().unwrap());
    // Opened while it runs; the body ends by itself.
    let live = send(site.admin(Method::GET, &path).header("accept", "text/event-stream")).await;
    assert_eq!(live.headers["content-type"], "text/event-stream");
    let all = parse(&live.text);
    assert!(all.len() >= 2, "{}", live.text);
    assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let rest = site.admin(Method::GET, &path).header("last-event-id", all[0].0.to_string());
    assert_eq!(parse(&send(rest).await.text), all[1..]);
    let page = send(site.admin(Method::GET, &path).header("accept", "application/json")).await.ok();
    assert_eq!(page["items"].as_array().unwrap().len(), all.len());
    for bad in ["x", "-1", ""] {
        send(site.admin(Method::GET, &path).header("last-event-id", bad)).await.problem(400, "invalid_header");
    }
    site.stop().await;
}

#[tokio::test]
async fn an_operation_that_is_over_cannot_be_paused() {
    let site = Site::with_tenants(&["acme"]).await;
    let list = site.get("/v1/operations?kind=create&state=succeeded,failed").await.ok();
    let id = list["items"][0]["id"].as_str().unwrap().to_owned();
    let refused = site.post(&format!("/v1/operations/{id}/pause"), &json!({})).await;
    refused.problem(409, "conflict");
    let planned = site.post(&format!("/v1/operations/{id}/retry"), &json!({ "dry_run": true })).await.ok();
    assert_eq!(planned["plan"]["kind"], "operation.retry");
    let steps = site.get(&format!("/v1/operations/{id}/steps")).await.ok();
    assert_eq!(
        (steps["items"][0]["tenant"].as_str(), steps["items"][0]["state"].as_str()),
        (Some("acme"), Some("succeeded"))
    );
    site.stop().await;
}
