//! Webhooks over the admin API, and a serving process that sends by itself.

use reqwest::Method;
use serde_json::{Value, json};

use crate::http::site::{Site, send};
use crate::webhook_sink::{SinkReply, WebhookSink};

async fn add(site: &Site, body: Value) -> (String, String) {
    let made = site.post("/v1/webhooks", &body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&made["webhook"]["id"]), text(&made["secret"]))
}

async fn of_kind(site: &Site, kind: &str) -> Value {
    site.get(&format!("/v1/events?kind={kind}")).await.ok()["items"].clone()
}

#[tokio::test]
async fn a_serving_process_sends_what_happens() {
    let site = Site::start().await;
    let mut sink = WebhookSink::start(&[]).await;
    site.create("acme").await;
    let (id, secret) = add(&site, json!({ "url": sink.url(), "allow_private": true })).await;
    // Its own addition is the first event that it gets.
    let first = sink.next().await.json();
    assert_eq!((&first["type"], &first["data"]["data"]["webhook"]), (&json!("webhook.added"), &json!(id)));
    assert!(!first.to_string().contains(&secret));
    let (only_acme, _) = add(
        &site,
        json!({ "url": format!("{}/acme", sink.url()), "allow_private": true, "tenant": "acme", "kinds": ["member.set"] }),
    )
    .await;
    site.create("globex").await;
    for tenant in ["globex", "acme"] {
        let member = json!({ "principal": "user-1", "role": "reader" });
        site.post(&format!("/v1/tenants/{tenant}/members"), &member).await.ok();
    }
    let (mut all, mut of_acme) = (Vec::new(), Vec::new());
    while of_acme.is_empty() || !all.iter().any(|body: &Value| body["data"]["tenant"] == "acme") {
        let received = sink.next().await;
        if received.path.ends_with("/acme") { &mut of_acme } else { &mut all }.push(received.json());
    }
    let seqs: Vec<_> = all.iter().map(|body| body["data"]["seq"].as_i64().unwrap()).collect();
    assert!(seqs.is_sorted() && !seqs.is_empty());
    assert_eq!((of_acme.len(), &of_acme[0]["data"]["tenant"]), (1, &json!("acme")));
    // What is sent is what the events API shows.
    let shown = of_kind(&site, "member.set").await;
    assert!(shown.as_array().unwrap().contains(&of_acme[0]["data"]));
    let listed = site.get("/v1/webhooks").await.ok();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert_eq!((&listed["items"][1]["id"], &listed["items"][1]["tenant"]), (&json!(only_acme), &json!("acme")));
    assert!(!listed.to_string().contains("whsec_"), "{listed}");
    site.stop().await;
}

#[tokio::test]
async fn a_test_message_tells_what_the_receiver_answered() {
    let site = Site::start().await;
    let mut sink = WebhookSink::start(&[SinkReply::Status(204), SinkReply::Status(401)]).await;
    let kinds = json!(["history.changed"]);
    let (id, _) = add(&site, json!({ "url": sink.url(), "allow_private": true, "kinds": kinds })).await;
    let path = format!("/v1/webhooks/{id}");
    let tested = site.post(&format!("{path}/test"), &json!({})).await.ok();
    assert_eq!(
        (&tested["result"], &tested["status"], &tested["error"]),
        (&json!("delivered"), &json!(204), &Value::Null)
    );
    let received = sink.next().await;
    assert_eq!(
        (received.json()["type"].clone(), received.message_id()),
        (json!("webhook.test"), tested["message_id"].as_str().unwrap())
    );
    let failed = site.post(&format!("{path}/test"), &json!({})).await.ok();
    assert_eq!((&failed["result"], &failed["status"]), (&json!("failed"), &json!(401)));
    let logged = site.get(&format!("{path}/deliveries?limit=1")).await.ok();
    assert_eq!(logged["items"], json!([failed]));
    let rest = site.get(&format!("{path}/deliveries?cursor={}", logged["next_cursor"].as_str().unwrap())).await.ok();
    assert_eq!(rest["items"], json!([tested]));
    // A test changes neither the place nor the state.
    assert_eq!(site.get("/v1/webhooks").await.ok()["items"][0]["state"], "enabled");
    site.stop().await;
}

#[tokio::test]
async fn a_webhook_is_paused_resumed_and_removed_and_each_leaves_an_event() {
    let site = Site::start().await;
    let mut sink = WebhookSink::start(&[]).await;
    let new = json!({ "url": sink.url(), "allow_private": true, "kinds": ["tenant.labelled", "tenant.labelled"] });
    let (id, _) = add(&site, new).await;
    let path = format!("/v1/webhooks/{id}");
    let planned = site.post(&format!("{path}/pause"), &json!({ "dry_run": true })).await.ok();
    assert_eq!((&planned["dry_run"], &planned["plan"]["kind"]), (&json!(true), &json!("webhook.paused")));
    let paused = site.post(&format!("{path}/pause"), &json!({ "reason": "moving" })).await.ok();
    assert_eq!((&paused["state"], &paused["kinds"]), (&json!("paused"), &json!(["tenant.labelled"])));
    site.post(&format!("{path}/pause"), &json!({})).await.problem(409, "conflict");
    assert_eq!(site.post(&format!("{path}/resume"), &json!({})).await.ok()["state"], "enabled");
    site.post(&format!("{path}/resume"), &json!({})).await.problem(409, "conflict");
    let planned = send(site.admin(Method::DELETE, &format!("{path}?dry_run=true"))).await.ok();
    assert_eq!(planned["plan"]["kind"], "webhook.removed");
    assert_eq!(send(site.admin(Method::DELETE, &path)).await.status, 204);
    for (method, path) in [(Method::DELETE, path.clone()), (Method::GET, format!("{path}/deliveries"))] {
        send(site.admin(method, &path)).await.problem(404, "not_found");
    }
    for kind in ["webhook.added", "webhook.paused", "webhook.resumed", "webhook.removed"] {
        let found = of_kind(&site, kind).await;
        assert_eq!(found.as_array().unwrap().len(), 1, "{kind}");
        assert_eq!((&found[0]["data"]["webhook"], &found[0]["tenant_id"]), (&json!(id), &Value::Null));
    }
    assert_eq!(of_kind(&site, "webhook.paused").await[0]["data"]["reason"], "moving");
    assert!(sink.rest().is_empty());
    site.stop().await;
}

#[tokio::test]
async fn addresses_kinds_and_roles_are_refused() {
    let site = Site::start().await;
    site.create("acme").await;
    for body in [
        json!({ "url": "https://receiver.example/", "kinds": ["tenant.exploded"] }),
        json!({ "url": "https://receiver.example/", "kinds": [""] }),
        json!({ "url": "http://receiver.example/" }),
        json!({ "url": "https://127.0.0.1/" }),
        json!({ "url": "https://user:word@receiver.example/" }),
        json!({ "url": "https://169.254.169.254/", "allow_private": true }),
    ] {
        site.post("/v1/webhooks", &body).await.problem(422, "invalid");
    }
    let unknown = json!({ "url": "https://receiver.example/", "tenant": "nobody" });
    site.post("/v1/webhooks", &unknown).await.problem(404, "not_found");
    let planned = json!({ "url": "https://receiver.example/", "dry_run": true });
    let plan = site.post("/v1/webhooks", &planned).await.ok();
    assert_eq!(plan["plan"]["kind"], "webhook.added");
    assert!(!plan.to_string().contains("whsec_"), "{plan}");
    assert_eq!(site.get("/v1/webhooks").await.ok()["items"], json!([]));
    assert_eq!(of_kind(&site, "webhook.added").await, json!([]));
    let (_, operator) = site.operator("operator").await;
    let good = json!({ "url": "https://receiver.example/" });
    let refused = site.client.post(format!("{}/v1/webhooks", site.admin)).bearer_auth(operator).json(&good);
    send(refused).await.problem(403, "forbidden");
    site.stop().await;
}
