//! Signed webhooks, as an outside service sends them.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::error::{KitError, Result};
use crate::world::Side;

/// How a service signs its webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookStyle {
    /// The specification Standard Webhooks.
    Standard,
    /// Stripe's header `Stripe-Signature`.
    Stripe,
    /// GitHub's header `X-Hub-Signature-256`.
    Github,
}

/// The account of one tenant with the service.
#[derive(Debug, Clone)]
pub struct WebhookAccount {
    /// The account's name, in the path or in the body.
    pub account: String,
    /// The secret with which the service signs.
    pub secret: String,
}

/// A service that sends webhooks to a route.
#[derive(Debug, Clone)]
pub struct WebhookSender {
    /// The route: `POST /webhooks/payments/{account}`.
    pub route: String,
    /// How the service signs.
    pub style: WebhookStyle,
    /// The account of tenant A.
    pub first: WebhookAccount,
    /// The account of tenant B.
    pub second: WebhookAccount,
    /// A webhook that the application accepts. `{account}` in its texts becomes the account.
    pub payload: Value,
}

impl WebhookStyle {
    /// The style of a word: `standard`, `stripe` or `github`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "standard" => Some(Self::Standard),
            "stripe" => Some(Self::Stripe),
            "github" => Some(Self::Github),
            _ => None,
        }
    }

    /// The headers of a signed webhook. `now` is in seconds since 1970.
    pub(crate) fn sign(self, secret: &str, id: &str, now: u64, body: &[u8]) -> Result<Vec<(&'static str, String)>> {
        Ok(match self {
            Self::Standard => {
                let key = secret.strip_prefix("whsec_").unwrap_or(secret);
                let key = STANDARD.decode(key).map_err(|error| {
                    KitError::new(
                        "webhook_secret_invalid",
                        format!("the secret of a standard webhook is not base64: {error}"),
                    )
                })?;
                let tag = sign_parts(&key, &[id.as_bytes(), b".", now.to_string().as_bytes(), b".", body]);
                let signature = format!("v1,{}", STANDARD.encode(tag));
                vec![
                    ("webhook-id", id.to_owned()),
                    ("webhook-timestamp", now.to_string()),
                    ("webhook-signature", signature),
                ]
            }
            Self::Stripe => {
                let tag = sign_parts(secret.as_bytes(), &[now.to_string().as_bytes(), b".", body]);
                vec![("stripe-signature", format!("t={now},v1={}", hex_text(tag.as_ref())))]
            }
            Self::Github => {
                let tag = sign_parts(secret.as_bytes(), &[body]);
                let signature = format!("sha256={}", hex_text(tag.as_ref()));
                vec![("x-hub-signature-256", signature), ("x-github-delivery", id.to_owned())]
            }
        })
    }
}

impl WebhookSender {
    pub(crate) fn account(&self, side: Side) -> &WebhookAccount {
        match side {
            Side::First => &self.first,
            Side::Second => &self.second,
        }
    }

    /// The payload for an account.
    pub(crate) fn payload_for(&self, side: Side) -> Value {
        let text = self.payload.to_string().replace("{account}", &self.account(side).account);
        serde_json::from_str(&text).unwrap_or_default()
    }
}

fn sign_parts(key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}

fn hex_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
