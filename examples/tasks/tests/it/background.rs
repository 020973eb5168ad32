//! A job of the organisation, and the webhook of its payment service.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet_client::ApiRequest;
use fleet_client::fleet_api::accounts::NewAccount;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::on_both_engines;
use crate::running::{Browser, RunningTasks};

on_both_engines! { a_digest_is_made_in_the_background_for_its_organisation_alone a_payment_changes_the_organisation_of_its_account_once }

async fn a_digest_is_made_in_the_background_for_its_organisation_alone(running: &RunningTasks) {
    let (alice, bob) = (running.sign_up("acme").await, running.sign_up("globex").await);
    for due_on in ["2020-01-01", "2999-01-01"] {
        alice.post("/orgs/acme/api/tasks", &json!({ "title": "x", "due_on": due_on })).await;
    }
    assert_eq!(alice.get("/orgs/acme/api/digest").await.body, Value::Null);
    let (reader, _) = running.invite(&alice, "acme", "reader").await;
    assert_eq!(reader.post("/orgs/acme/api/digest", &Value::Null).await.status, 403);
    for _ in 0..3 {
        assert_eq!(alice.post("/orgs/acme/api/digest", &Value::Null).await.status, 202);
    }
    let digest = digest_of(&alice, "acme").await;
    assert_eq!((&digest["open"], &digest["overdue"]), (&json!(2), &json!(1)));
    assert_eq!(bob.get("/orgs/globex/api/digest").await.body, Value::Null);
}

/// Waits for the job, as the page does.
async fn digest_of(browser: &Browser, organisation: &str) -> Value {
    loop {
        let digest = browser.get(&format!("/orgs/{organisation}/api/digest")).await.body;
        if !digest.is_null() {
            return digest;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const KEYS: [&[u8]; 2] = [b"the key of acme's payments", b"the key of globex's payments"];

async fn link(running: &RunningTasks, organisation: &str, account: &str, key: &[u8]) {
    let secret = SecretString::from(format!("whsec_{}", STANDARD.encode(key)));
    let new = NewAccount {
        provider: "payments".to_owned(),
        account: account.to_owned(),
        secret: Some(secret.into()),
        ..NewAccount::default()
    };
    let request = ApiRequest::post(format!("/v1/tenants/{organisation}/accounts"), &new);
    let _: Value = running.application().fleet.send(&request).await.unwrap();
}

async fn deliver(running: &RunningTasks, account: &str, key: &[u8], id: &str, body: &str) -> u16 {
    let seconds = jiff::Timestamp::now().as_second();
    let signed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), format!("{id}.{seconds}.{body}").as_bytes());
    let request = reqwest::Client::new()
        .post(format!("{}/webhooks/payments/{account}", running.url))
        .header("webhook-id", id)
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", format!("v1,{}", STANDARD.encode(signed)))
        .body(body.to_owned());
    request.send().await.unwrap().status().as_u16()
}

async fn a_payment_changes_the_organisation_of_its_account_once(running: &RunningTasks) {
    let (alice, bob) = (running.sign_up("acme").await, running.sign_up("globex").await);
    link(running, "acme", "acct_1", KEYS[0]).await;
    link(running, "globex", "acct_2", KEYS[1]).await;
    let plan = async |browser: &Browser, name: &str| browser.get(&format!("/orgs/{name}/api/plan")).await.body;
    assert_eq!(plan(&alice, "acme").await, json!({ "plan": "free", "paid": 0 }));
    let event = r#"{"type":"invoice.paid","data":{"amount":1200,"organisation":"globex"}}"#;
    for _ in 0..2 {
        assert_eq!(deliver(running, "acct_1", KEYS[0], "evt_1", event).await, 204);
    }
    for (account, key) in [("acct_2", KEYS[0]), ("acct_1", KEYS[1]), ("acct_3", KEYS[0])] {
        assert_eq!(deliver(running, account, key, "evt_2", event).await, 401, "{account}");
    }
    assert_eq!(deliver(running, "acct_1", KEYS[0], "evt_3", r#"{"type":"other","data":{"amount":1}}"#).await, 204);
    assert_eq!(deliver(running, "acct_1", KEYS[0], "evt_4", "not JSON").await, 400);
    assert_eq!(plan(&alice, "acme").await, json!({ "plan": "paid", "paid": 1200 }));
    assert_eq!(plan(&bob, "globex").await, json!({ "plan": "free", "paid": 0 }));
}
