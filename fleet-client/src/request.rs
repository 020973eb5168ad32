//! Requests to the API as values, so that the same request can be sent again.

use fleet_api::changes::ChangeOptions;
use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

/// The content types that an [`ApiAnswer`](crate::ApiAnswer) can be read from: the value of the header Accept.
pub const ACCEPTED_TYPES: &str = "application/json, application/x-ndjson, application/problem+json";
/// Maximum length of an idempotency key in bytes, as in the API.
const KEY_BYTES_MAX: usize = 255;

/// The HTTP method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVerb {
    /// Reads.
    Get,
    /// Changes something, or starts an operation.
    Post,
    /// Changes fields of an object.
    Patch,
    /// Removes an object.
    Delete,
}

impl HttpVerb {
    /// The method as HTTP writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// One request to the API.
#[derive(Debug, Clone)]
pub struct ApiRequest {
    verb: HttpVerb,
    target: String,
    body: Option<Value>,
    idempotency_key: Option<String>,
    repeatable: bool,
}

impl ApiRequest {
    /// A request that reads.
    pub fn get(target: impl Into<String>) -> Self {
        Self { verb: HttpVerb::Get, target: target.into(), body: None, idempotency_key: None, repeatable: false }
    }

    /// A POST with its own idempotency key: sending the same value again does not repeat the work.
    pub fn post(target: impl Into<String>, body: &impl Serialize) -> Self {
        let idempotency_key = Some(new_key());
        Self {
            verb: HttpVerb::Post,
            target: target.into(),
            body: Some(body_of(body)),
            idempotency_key,
            repeatable: false,
        }
    }

    /// A change of an object's fields.
    pub fn patch(target: impl Into<String>, body: &impl Serialize) -> Self {
        Self {
            verb: HttpVerb::Patch,
            target: target.into(),
            body: Some(body_of(body)),
            idempotency_key: None,
            repeatable: false,
        }
    }

    /// A removal of an object.
    pub fn delete(target: impl Into<String>) -> Self {
        Self { verb: HttpVerb::Delete, target: target.into(), body: None, idempotency_key: None, repeatable: false }
    }

    /// The same request with a new key, so that a stored answer for the old key is not used.
    #[must_use]
    pub fn with_new_key(&self) -> Self {
        Self { idempotency_key: self.idempotency_key.as_ref().map(|_| new_key()), ..self.clone() }
    }

    /// The same request with a key that the caller chooses: 1 to 255 printable ASCII characters.
    ///
    /// # Errors
    /// `invalid` for another key.
    pub fn with_key(mut self, key: &str) -> Result<Self> {
        let fits = (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if !fits {
            let detail = format!("an idempotency key has 1 to {KEY_BYTES_MAX} printable ASCII characters");
            return Err(Error::new(ErrorKind::Invalid, detail).try_next("choose another key"));
        }
        self.idempotency_key = Some(key.to_owned());
        Ok(self)
    }

    /// Adds the options of a change: to the body if there is one, otherwise to the query.
    #[must_use]
    pub fn with_options(mut self, options: &ChangeOptions) -> Self {
        let Value::Object(fields) = body_of(options) else { return self };
        for (key, value) in fields {
            match (self.body.as_mut(), value) {
                (Some(body), value) => body[key] = value,
                (None, Value::String(text)) => self = self.with_query(&key, &text),
                (None, value) => self = self.with_query(&key, &value.to_string()),
            }
        }
        self
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn with_query(mut self, key: &str, value: &str) -> Self {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(&format!("{key}={}", percent_encode(value)));
        self
    }

    /// The HTTP method.
    #[must_use]
    pub fn verb(&self) -> HttpVerb {
        self.verb
    }

    /// Path and query, percent-encoded.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The JSON body; `None` for a request without one.
    #[must_use]
    pub fn body(&self) -> Option<&Value> {
        self.body.as_ref()
    }

    /// The idempotency key; only a POST has one.
    #[must_use]
    pub fn idempotency_key(&self) -> Option<&str> {
        self.idempotency_key.as_deref()
    }

    /// Says that a server that gets the request twice ends in the same state.
    pub(crate) fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    /// True when the request may be sent again after a lost answer.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.verb == HttpVerb::Get || self.repeatable || self.idempotency_key.is_some()
    }
}

fn new_key() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// The JSON body of a request. The requests are plain data, so they always have one.
fn body_of(request: &impl Serialize) -> Value {
    serde_json::to_value(request).expect("a request is plain JSON")
}

/// Encodes a name or an id as one path segment, so that it cannot change the path.
///
/// Refuses `.` and `..`: clients and proxies resolve them even when they are encoded.
///
/// # Errors
/// `invalid` for an empty text, `.` and `..`.
pub fn path_segment(text: &str) -> Result<String> {
    if text.is_empty() || text == "." || text == ".." {
        return Err(Error::new(ErrorKind::Invalid, format!("{text:?} is not a name or an id")));
    }
    Ok(percent_encode(text))
}

/// RFC 3986: encodes everything except unreserved characters as `%XX`.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(path_segment("a/../b?c#d é").unwrap(), "a%2F..%2Fb%3Fc%23d%20%C3%A9");
        assert_eq!(path_segment("%2e%2e").unwrap(), "%252e%252e");
        for wrong in ["", ".", ".."] {
            assert_eq!(path_segment(wrong).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn a_query_is_encoded_and_options_go_into_the_body_or_the_query() {
        let options = ChangeOptions { dry_run: true, reason: Some("a b".to_owned()) };
        let request = ApiRequest::post("/v1/x", &serde_json::json!({"a": 1}))
            .with_query("k", "v w")
            .with_query("l", "1")
            .with_options(&options);
        assert_eq!(request.target, "/v1/x?k=v%20w&l=1");
        assert_eq!(request.body, Some(serde_json::json!({"a": 1, "dry_run": true, "reason": "a b"})));
        assert_ne!(request.idempotency_key, request.with_new_key().idempotency_key);
        let request = ApiRequest::delete("/v1/x").with_options(&options);
        assert_eq!((request.target.as_str(), request.body), ("/v1/x?dry_run=true&reason=a%20b", None));
    }

    #[test]
    fn a_key_fits_into_a_header() {
        let request = || ApiRequest::post("/v1/x", &serde_json::json!({}));
        assert_eq!(request().with_key("signup-4711").unwrap().idempotency_key(), Some("signup-4711"));
        for wrong in ["", "a\nb", "é", &"x".repeat(256)] {
            assert_eq!(request().with_key(wrong).unwrap_err().code(), "invalid");
        }
    }
}
