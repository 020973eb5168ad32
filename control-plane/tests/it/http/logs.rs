//! What the log says of a request, and what it never says.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt;

use crate::http::site::{Site, send};

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn one_line_per_request_without_a_secret() {
    let kept = Kept::default();
    let writer = kept.clone();
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(move || writer.clone());
    // For this thread: the runtime of this test has no other.
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines));
    let site = Site::with_tenants(&["acme"]).await;
    let token = site.tenant_token("acme", "writer").await;
    let body = json!({ "sql": "insert into notes values (5, ?1)", "params": ["a private parameter"] });
    let url = format!("{}/t/acme/query?key=in-the-query", site.data);
    let request = site.client.post(url).bearer_auth(&token).header("x-request-id", "find-me").json(&body);
    send(request).await.ok();
    let tenant = site.get("/v1/tenants/acme").await.ok()["id"].clone();
    let first = site.token.clone();
    site.stop().await;
    let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    let found: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["target"] == "access" && line["request_id"] == "find-me")
        .collect();
    assert_eq!(found.len(), 1, "{text}");
    let line = &found[0];
    assert_eq!((line["status"].as_u64(), line["method"].as_str()), (Some(200), Some("POST")));
    assert_eq!((&line["tenant_id"], line["path"].as_str()), (&tenant, Some("/t/acme/query")));
    assert!(line["principal"].as_str().unwrap().starts_with("token:tok_"), "{line}");
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0);
    for secret in [token.as_str(), &first, "a private parameter", "in-the-query"] {
        assert!(!text.contains(secret), "the log holds {secret}");
    }
}
