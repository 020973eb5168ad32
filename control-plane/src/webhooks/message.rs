//! Makes the messages that webhooks send, and signs them. The format is Standard Webhooks: a JSON body
//! `{"type","timestamp","data"}`, and the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`. PURE, except
//! that the names in an event come from the catalog.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use catalog::events::EventRecord;
use catalog::{ReadTx, WebhookId};

use crate::error::{Error, Result};
use crate::event_views::event_views;
use crate::time_text;

/// The kind of a message that an operator sends to test a webhook. Not an event of the log.
pub(crate) const TEST_KIND: &str = "webhook.test";

/// A message, not yet signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebhookMessage {
    /// The header `webhook-id`: the same in every attempt, so that a receiver can drop a repetition.
    pub(crate) id: String,
    /// The kind of the event.
    pub(crate) kind: String,
    /// The body, JSON.
    pub(crate) body: String,
}

/// The message about an event, with the fields of the events API.
///
/// # Errors
/// Those of the catalog.
pub(crate) async fn event_message(tx: &mut ReadTx, event: EventRecord) -> Result<WebhookMessage> {
    // With the time, because a catalog that is restored from a copy gives the same number again.
    let (id, kind) = (format!("evt_{}_{}", event.seq, event.at), event.event.kind.clone());
    let view = event_views(tx, vec![event]).await?.pop().ok_or_else(|| Error::internal("an event has no view"))?;
    let body = serde_json::json!({ "type": kind, "timestamp": view.at, "data": view }).to_string();
    Ok(WebhookMessage { id, kind, body })
}

/// A message without an event, at the time `now`, milliseconds since 1970.
pub(crate) fn test_message(webhook: WebhookId, now: i64) -> WebhookMessage {
    let id = format!("test_{}", uuid::Uuid::now_v7().simple());
    let data = serde_json::json!({ "webhook": webhook.to_string() });
    let body = serde_json::json!({ "type": TEST_KIND, "timestamp": time_text::format_time(now), "data": data });
    WebhookMessage { id, kind: TEST_KIND.to_owned(), body: body.to_string() }
}

/// The header `webhook-signature` of a message that is sent at `seconds` since 1970.
pub(crate) fn sign_message(key: &[u8], message: &WebhookMessage, seconds: i64) -> String {
    let signed = format!("{}.{seconds}.{}", message.id, message.body);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the format's specification.
    #[test]
    fn a_signature_is_the_one_of_the_specification() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let message = WebhookMessage {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
            kind: "test".to_owned(),
            body: r#"{"test": 2432232314}"#.to_owned(),
        };
        let signature = sign_message(&key, &message, 1_614_265_330);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
