//! Work outside a request: jobs, webhooks, live messages, metrics and the log.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet_client::ApiRequest;
use fleet_client::fleet_api::accounts::NewAccount;
use futures_util::StreamExt as _;
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::log::logged_text;
use crate::stage::{Founder, Stage};

/// The key of a's account with the payment service.
const KEY: &[u8] = b"the key of the payments of a";

async fn has_digest(stage: &Stage, founder: &Founder) -> bool {
    let sql = "select count(*) from digest";
    stage.open(founder).await.query_as::<i64>(sql, ()).fetch_one().await.unwrap() > 0
}

pub(super) async fn job_without_tenant(stage: &Stage) -> bool {
    stage.fill(1, 1).await;
    assert_eq!(stage.a.post("/digest", &Value::Null).await.status, 202);
    stage.b.get("/tasks").await;
    loop {
        // Without HTTP, because the latest request decides.
        let (of_a, of_b) = (has_digest(stage, &stage.a).await, has_digest(stage, &stage.b).await);
        if of_a || of_b {
            return of_b;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn webhook_from_payload(stage: &Stage) -> bool {
    let secret = SecretString::from(format!("whsec_{}", STANDARD.encode(KEY)));
    let (provider, account) = ("payments".to_owned(), format!("acct-{}", stage.a.name));
    let new = NewAccount { provider, account: account.clone(), secret: Some(secret.into()), ..NewAccount::default() };
    let request = ApiRequest::post(format!("/v1/tenants/{}/accounts", stage.a.name), &new);
    let _: Value = stage.zoo.application.fleet.send(&request).await.unwrap();
    let event =
        json!({ "type": "invoice.paid", "data": { "amount": 1_200, "organisation": stage.b.name } }).to_string();
    let seconds = jiff::Timestamp::now().as_second();
    let signed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), format!("evt_1.{seconds}.{event}").as_bytes());
    let delivery = reqwest::Client::new()
        .post(format!("{}/webhooks/payments/{account}", stage.a.url))
        .header("webhook-id", "evt_1")
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", format!("v1,{}", STANDARD.encode(signed)));
    assert_eq!(delivery.body(event).send().await.unwrap().status(), 204);
    let plans = [stage.a.get("/plan").await.body["plan"].clone(), stage.b.get("/plan").await.body["plan"].clone()];
    assert_eq!(plans.iter().filter(|plan| **plan == "paid").count(), 1, "{plans:?}");
    plans[1] == "paid"
}

pub(super) async fn topic_without_tenant(stage: &Stage) -> bool {
    stage.fill(0, 2).await;
    let live = stage.a.request(Method::GET, &stage.a.path("/live")).send().await.unwrap();
    assert_eq!(live.status(), 200);
    let (mut chunks, mut seen) = (live.bytes_stream(), String::new());
    // The third task of b, and then the first one of a.
    stage.b.add_task(&stage.canary).await;
    stage.a.add_task("plain").await;
    while !seen.contains("\"task\":1") {
        let chunk = chunks.next().await.unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    seen.contains("\"task\":3")
}

pub(super) async fn metric_label(stage: &Stage) -> bool {
    stage.b.add_task(&stage.canary).await;
    let metrics = reqwest::get(format!("{}/metrics", stage.a.url)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("route=\"/orgs/{tenant}/api/tasks\"} 1"), "{metrics}");
    metrics.contains(&stage.canary)
}

pub(super) async fn log_line(stage: &Stage) -> bool {
    stage.b.add_task(&stage.canary).await;
    logged_text().contains(&stage.canary)
}
