//! PURE: checks the signature of a webhook over its raw body, and finds the id of its event.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::provider::SignatureScheme;
use super::receive::WebhookHeaders;

/// Signatures in one header: a service that replaces its secret sends two.
const SIGNATURES_MAX: usize = 8;
/// Maximum length of an event's id. An index holds it.
const EVENT_ID_BYTES_MAX: usize = 255;

/// A webhook whose signature is right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProvenWebhook {
    /// The same for every delivery of the event.
    pub(super) event_id: String,
}

/// The parts of a webhook that are signed, and the signatures that came with them.
struct SignedParts {
    /// What is signed before the body.
    prefix: String,
    signatures: Vec<Vec<u8>>,
    /// Seconds since 1970; `None` when the scheme signs no time.
    signed_at: Option<i64>,
    event_id: Option<String>,
}

/// The proven webhook, or `None` when it is not signed with one of these secrets, or not now. `now` in milliseconds since 1970.
pub(super) fn prove_webhook(
    scheme: SignatureScheme,
    secrets: &[SecretString],
    headers: &dyn WebhookHeaders,
    body: &[u8],
    (now, tolerance): (i64, Duration),
) -> Option<ProvenWebhook> {
    let parts = match scheme {
        SignatureScheme::StandardWebhooks => standard_parts(headers),
        SignatureScheme::Stripe => stripe_parts(headers),
        SignatureScheme::GitHub => github_parts(headers),
    }?;
    let signed = [parts.prefix.as_bytes(), body].concat();
    let is_signed = secrets.iter().any(|secret| is_signed_with(scheme, secret, &signed, &parts.signatures));
    if !is_signed || !parts.signed_at.is_none_or(|at| is_near(at, now, tolerance)) {
        return None;
    }
    let event_id = match scheme {
        SignatureScheme::StandardWebhooks => parts.event_id?,
        SignatureScheme::Stripe => json_field(body, "/id")?,
        SignatureScheme::GitHub => lower_hex(digest(&SHA256, body).as_ref()),
    };
    is_event_id(&event_id).then_some(ProvenWebhook { event_id })
}

/// A text or a number of a JSON body.
pub(super) fn json_field(body: &[u8], pointer: &str) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    match body.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

fn is_event_id(id: &str) -> bool {
    (1..=EVENT_ID_BYTES_MAX).contains(&id.len()) && !id.chars().any(char::is_control)
}

fn is_near(signed_at: i64, now: i64, tolerance: Duration) -> bool {
    let tolerance = i64::try_from(tolerance.as_secs()).unwrap_or(i64::MAX);
    let distance = (now / 1_000).checked_sub(signed_at).and_then(i64::checked_abs);
    distance.is_some_and(|seconds| seconds <= tolerance)
}

/// Compares in constant time. An empty secret proves nothing.
fn is_signed_with(scheme: SignatureScheme, secret: &SecretString, signed: &[u8], signatures: &[Vec<u8>]) -> bool {
    let text = secret.expose_secret();
    let key = match scheme {
        SignatureScheme::StandardWebhooks => match STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)) {
            Ok(key) => key,
            Err(_) => return false,
        },
        SignatureScheme::Stripe | SignatureScheme::GitHub => text.as_bytes().to_vec(),
    };
    if key.is_empty() {
        return false;
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    // All are compared, so that the time does not tell which one was right.
    signatures.iter().filter(|signature| hmac::verify(&key, signed, signature).is_ok()).count() > 0
}

fn standard_parts(headers: &dyn WebhookHeaders) -> Option<SignedParts> {
    let (id, time) = (headers.header("webhook-id")?, headers.header("webhook-timestamp")?);
    let of_version = |part: &str| part.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
    let signatures = headers.header("webhook-signature")?.split(' ').filter_map(of_version);
    Some(SignedParts {
        prefix: format!("{id}.{time}."),
        signatures: signatures.take(SIGNATURES_MAX).collect(),
        signed_at: Some(parse_seconds(time)?),
        event_id: Some(id.to_owned()),
    })
}

fn stripe_parts(headers: &dyn WebhookHeaders) -> Option<SignedParts> {
    let pairs: Vec<_> =
        headers.header("stripe-signature")?.split(',').filter_map(|pair| pair.trim().split_once('=')).collect();
    let mut times = pairs.iter().filter(|(name, _)| *name == "t").map(|(_, value)| *value);
    let time = times.next().filter(|_| times.next().is_none())?;
    let signatures = pairs.iter().filter(|(name, _)| *name == "v1").filter_map(|(_, value)| parse_hex(value));
    Some(SignedParts {
        prefix: format!("{time}."),
        signatures: signatures.take(SIGNATURES_MAX).collect(),
        signed_at: Some(parse_seconds(time)?),
        event_id: None,
    })
}

fn github_parts(headers: &dyn WebhookHeaders) -> Option<SignedParts> {
    let signature = parse_hex(headers.header("x-hub-signature-256")?.strip_prefix("sha256=")?)?;
    Some(SignedParts { prefix: String::new(), signatures: vec![signature], signed_at: None, event_id: None })
}

/// Digits only: a sign or a space would make two texts of one time.
fn parse_seconds(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

fn lower_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;
    const WITHIN: Duration = Duration::from_secs(300);

    fn prove(scheme: SignatureScheme, secret: &str, headers: &[(&str, &str)], body: &str) -> Option<String> {
        let secrets = [SecretString::from("another secret of the service"), SecretString::from(secret)];
        prove_webhook(scheme, &secrets, &headers, body.as_bytes(), (NOW, WITHIN)).map(|proven| proven.event_id)
    }

    /// Made with `openssl dgst -sha256 -hmac`.
    const STRIPE: &str = "3baf2e9a8ad0a6d1f6b6b0d3b0a2ee0c";

    #[test]
    fn hexadecimal_digits_come_in_pairs() {
        assert_eq!(parse_hex("00fF"), Some(vec![0, 255]));
        assert!(["0", "zz", "0x", "é"].iter().all(|text| parse_hex(text).is_none()));
        assert_eq!(parse_hex(STRIPE).map(|bytes| bytes.len()), Some(16));
    }

    #[test]
    fn a_time_is_digits_and_near() {
        for (text, seconds) in
            [("1700000000", Some(1_700_000_000)), ("-1", None), ("+1", None), (" 1", None), ("", None)]
        {
            assert_eq!(parse_seconds(text), seconds, "{text}");
        }
        for (seconds, near) in [(0, true), (300, true), (301, false), (-300, true), (-301, false), (i64::MIN, false)] {
            assert_eq!(is_near(1_700_000_000_i64.saturating_add(seconds), NOW, WITHIN), near, "{seconds}");
        }
    }

    #[test]
    fn a_header_that_is_missing_or_odd_proves_nothing() {
        for scheme in [SignatureScheme::StandardWebhooks, SignatureScheme::Stripe, SignatureScheme::GitHub] {
            for headers in [
                &[][..],
                &[("stripe-signature", "t=1700000000")],
                &[("stripe-signature", "t=1700000000,t=1700000000,v1=00")],
                &[("stripe-signature", "v1=00")],
                &[("x-hub-signature-256", "sha1=00")],
                &[("x-hub-signature-256", "sha256=")],
                &[("webhook-id", "1"), ("webhook-timestamp", "1700000000")],
                &[("webhook-id", "1"), ("webhook-timestamp", "1700000000"), ("webhook-signature", "v1,")],
            ] {
                for secret in ["secret", ""] {
                    assert_eq!(prove(scheme, secret, headers, "{\"id\":\"evt_1\"}"), None, "{scheme:?} {headers:?}");
                }
            }
        }
    }
}
