//! One request and its answer.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::canary::{Canaries, CanaryHit};
use crate::world::Side;

/// Headers that differ from answer to answer and say nothing about tenants.
const VARYING_HEADERS: [&str; 5] = ["content-length", "date", "server-timing", "traceparent", "x-request-id"];

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Method, path and caller, for reports.
    pub request: String,
    /// The path with its query, as it was sent.
    pub path: String,
    /// The status of the answer.
    pub status: StatusCode,
    /// The headers of the answer.
    pub headers: HeaderMap,
    /// The body of the answer.
    pub body: bytes::Bytes,
}

impl Exchange {
    /// The body as JSON; null if it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether the request did its work.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// A canary of this tenant in the body or the headers.
    #[must_use]
    pub fn find(&self, canaries: &Canaries, side: Side) -> Option<CanaryHit> {
        let headers = self.headers.iter().map(|(_, value)| value.as_bytes());
        std::iter::once(&*self.body).chain(headers).find_map(|bytes| canaries.find(bytes, side))
    }

    /// The start of the answer, for reports.
    #[must_use]
    pub fn evidence(&self, length: usize) -> String {
        let body = String::from_utf8_lossy(&self.body);
        let body: String = body.chars().take(length).map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("{} {body}", self.status.as_u16())
    }

    /// The answer without what varies, and with a word in the place of the tenant's name: the answers for two tenants
    /// without a difference are equal.
    #[must_use]
    pub(crate) fn comparable(&self, name: &str) -> ComparableAnswer {
        let mut answer = self.comparable_row(name);
        answer.headers.iter_mut().for_each(|(_, value)| *value = with_word(value, name));
        answer
    }

    /// As [`Exchange::comparable`], for a row's key. A key may be a single digit, so it is looked for in the body only.
    pub(crate) fn comparable_row(&self, key: &str) -> ComparableAnswer {
        let kept = self.headers.iter().filter(|(name, _)| !VARYING_HEADERS.contains(&name.as_str()));
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut headers: Vec<_> = kept.map(|(name, value)| (name.to_string(), text(value))).collect();
        headers.sort();
        let body = with_word(&String::from_utf8_lossy(&self.body), key);
        ComparableAnswer { status: self.status, headers, body }
    }
}

/// The text with a word in the place of the name, where the name is not a part of a longer word.
fn with_word(text: &str, name: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(name).filter(|_| !name.is_empty()) {
        let end = at + name.len();
        let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let before = rest[..at].chars().next_back().or_else(|| out.chars().next_back());
        let is_part = is_word(before) || is_word(rest[end..].chars().next());
        out.push_str(&rest[..at]);
        out.push_str(if is_part { name } else { "{tenant}" });
        rest = &rest[end..];
    }
    out + rest
}

/// An answer in the form in which two of them are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ComparableAnswer {
    pub(crate) status: StatusCode,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl ComparableAnswer {
    /// The answer without the parts of a JSON body, and without the headers, in which two equal requests differed.
    pub(crate) fn without_varying(mut self, one: &Self, two: &Self) -> Self {
        let varies = |name: &str| {
            let values = |answer: &Self| answer.headers.iter().filter(|(n, _)| n == name).cloned().collect::<Vec<_>>();
            values(one) != values(two)
        };
        self.headers.retain(|(name, _)| !varies(name));
        if one.body != two.body {
            let parse = |body: &str| serde_json::from_str::<Value>(body).unwrap_or_default();
            let paths = differing_paths(&parse(&one.body), &parse(&two.body));
            self.body = match serde_json::from_str::<Value>(&self.body) {
                Ok(mut json) if !paths.is_empty() => {
                    paths.iter().for_each(|path| mask_path(&mut json, path));
                    json.to_string()
                }
                _ => String::new(),
            };
        }
        self
    }
}

/// JSON pointers of the values in which two documents differ.
pub(crate) fn differing_paths(one: &Value, two: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    collect_differences(one, two, String::new(), &mut paths);
    paths
}

fn collect_differences(one: &Value, two: &Value, path: String, paths: &mut Vec<String>) {
    match (one, two) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            for (key, value) in a {
                let key_text = key.replace('~', "~0").replace('/', "~1");
                collect_differences(value, &b[key], format!("{path}/{key_text}"), paths);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (position, (one, two)) in a.iter().zip(b).enumerate() {
                collect_differences(one, two, format!("{path}/{position}"), paths);
            }
        }
        _ if one == two => {}
        _ => paths.push(path),
    }
}

pub(crate) fn mask_path(json: &mut Value, path: &str) {
    if let Some(value) = json.pointer_mut(path) {
        *value = Value::String("(varies)".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(status: u16, body: &Value, header: Option<&'static str>) -> Exchange {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", body.to_string().len().into());
        if let Some(value) = header {
            headers.insert("x-owner", value.parse().unwrap());
        }
        let (request, path) = (String::new(), String::new());
        Exchange {
            request,
            path,
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: body.to_string().into(),
        }
    }

    #[test]
    fn answers_are_equal_when_only_the_name_and_varying_parts_differ() {
        let unknown = |id: u8| answer(404, &json!({ "id": id, "tenant": "zqxj", "code": "not_found" }), None);
        let (one, two) = (unknown(1).comparable("zqxj"), unknown(2).comparable("zqxj"));
        let compared = |exchange: &Exchange| exchange.comparable("acme").without_varying(&one, &two);
        let expected = one.clone().without_varying(&one, &two);
        let same = answer(404, &json!({ "id": 3, "tenant": "acme", "code": "not_found" }), None);
        assert_eq!(compared(&same), expected);
        let others = [
            answer(403, &json!({ "id": 3, "tenant": "acme", "code": "not_found" }), None),
            answer(404, &json!({ "id": 3, "tenant": "acme", "code": "forbidden" }), None),
            answer(404, &json!({ "id": 3, "tenant": "acme", "code": "not_found" }), Some("acme")),
        ];
        for other in others {
            assert_ne!(compared(&other), expected, "{other:?}");
        }
    }

    #[test]
    fn a_name_is_replaced_where_it_is_a_word() {
        assert_eq!(with_word("/t/acme/x acme-2 acmes \"acme\"", "acme"), "/t/{tenant}/x {tenant}-2 acmes \"{tenant}\"");
        assert_eq!(with_word("66 6 a6 6", "6"), "66 {tenant} a6 {tenant}");
        assert_eq!(with_word("acmeacme", "acme"), "acmeacme");
        assert_eq!(with_word("x", ""), "x");
        let server = answer(404, &json!({}), Some("Server/0.6"));
        assert_eq!(server.comparable_row("6"), server.comparable_row("999"));
    }

    #[test]
    fn differences_are_named_by_their_place() {
        let one = json!({ "a": [1, 2], "b/c": { "d": 1 }, "e": 1 });
        let two = json!({ "a": [1, 3], "b/c": { "d": 2 }, "e": 1 });
        assert_eq!(differing_paths(&one, &two), ["/a/1", "/b~1c/d"]);
        assert_eq!(differing_paths(&one, &json!({ "a": [] })), [""]);
    }
}
