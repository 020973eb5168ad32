//! One request, one answer: in process or over HTTP, the same for every command.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use control_plane::auth::operator::InProcess;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tower::ServiceExt;

use crate::error::{Exit, Failure, Result};

/// An answer that is read whole is at most this long: a page of 1,000 items is far below it.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Connections that fail are tried this often in all; the idempotency key makes it safe.
const ATTEMPTS_MAX: u32 = 3;
/// Refusing a connection takes no time, so a second attempt soon is enough to bridge a restart's gap.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Longer than the longest long poll (60 s), so that only a dead connection meets it.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// What this program can read.
const ACCEPT: &str = "application/json, application/x-ndjson, application/problem+json";

/// Where requests go.
#[derive(Clone)]
pub(crate) enum Transport {
    /// The control plane of this very process.
    InProcess { router: axum::Router, credential: Credential },
    /// A control plane elsewhere.
    Http { client: reqwest::Client, base: String, token: SecretString },
}

/// Who calls inside this process.
#[derive(Clone)]
pub(crate) enum Credential {
    /// The human who started it: the admin API.
    Operator(InProcess),
    /// A token: the data API.
    Bearer(SecretString),
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: Method,
    /// Path and query, percent-encoded.
    target: String,
    body: Option<Value>,
    idempotency_key: Option<String>,
}

impl Request {
    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self { method: Method::GET, target: target.into(), body: None, idempotency_key: None }
    }
    /// Carries an idempotency key of its own: sending the same value again cannot do the work twice.
    pub(crate) fn post(target: impl Into<String>, body: Value) -> Self {
        let key = uuid::Uuid::now_v7().to_string();
        Self { method: Method::POST, target: target.into(), body: Some(body), idempotency_key: Some(key) }
    }
    pub(crate) fn patch(target: impl Into<String>, body: Value) -> Self {
        Self { method: Method::PATCH, target: target.into(), body: Some(body), idempotency_key: None }
    }
    pub(crate) fn delete(target: impl Into<String>) -> Self {
        Self { method: Method::DELETE, target: target.into(), body: None, idempotency_key: None }
    }

    /// The same work asked for afresh: an answer that was remembered for the old key is not wanted again.
    #[must_use]
    pub(crate) fn renewed(&self) -> Self {
        Self {
            idempotency_key: self.idempotency_key.as_ref().map(|_| uuid::Uuid::now_v7().to_string()),
            ..self.clone()
        }
    }

    /// A field of the body; nothing for requests without one.
    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        if let Some(body) = self.body.as_mut() {
            body[key] = value.into();
        }
        self
    }

    /// A query parameter.
    #[must_use]
    pub(crate) fn query(mut self, key: &str, value: &str) -> Self {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(&format!("{key}={}", encode(value)));
        self
    }

    pub(crate) fn has_body(&self) -> bool {
        self.body.is_some()
    }
}

/// An answer of success, its body still to be read.
pub(crate) struct Answer {
    body: BoxStream<'static, Result<Bytes>>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Answer {
    /// The whole body as JSON; null when it is empty.
    pub(crate) async fn json(self) -> Result<Value> {
        let bytes = collect(self.body).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|e| Failure::unexpected("the answer is not JSON").because(e))
    }

    /// The body line by line (NDJSON), as it arrives.
    pub(crate) fn lines(self) -> Lines {
        Lines { body: self.body, buffer: Vec::new() }
    }
}

/// See [`Answer::lines`].
pub(crate) struct Lines {
    body: BoxStream<'static, Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let rest = self.buffer.split_off(searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched > ANSWER_BYTES_MAX {
                return Err(Failure::unexpected("a line of the answer is too long"));
            }
            match self.body.next().await {
                Some(chunk) => self.buffer.extend_from_slice(&chunk?),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.buffer))),
            }
        }
    }
}

/// Sends requests; cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    transport: Transport,
}

impl Client {
    pub(crate) fn new(transport: Transport) -> Self {
        Self { transport }
    }

    /// A control plane at this address.
    pub(crate) fn http(base: &str, token: SecretString, ca: Option<&[u8]>) -> Result<Self> {
        let unusable = |e: reqwest::Error| Failure::new(Exit::Failed, "cannot set up HTTP").because(chain(&e));
        let mut builder =
            reqwest::Client::builder().read_timeout(READ_TIMEOUT).connect_timeout(Duration::from_secs(10));
        if let Some(pem) = ca {
            builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem).map_err(unusable)?);
        }
        if is_loopback(base) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(unusable)?;
        Ok(Self::new(Transport::Http { client, base: base.trim_end_matches('/').to_owned(), token }))
    }

    /// True when the control plane ends with this process.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self.transport, Transport::InProcess { .. })
    }

    /// Sends it and reads a JSON answer.
    pub(crate) async fn json(&self, request: &Request) -> Result<Value> {
        self.send(request).await?.json().await
    }

    /// Sends it; an answer that is no success becomes a failure with the problem's own words.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer> {
        let (status, body) = match &self.transport {
            Transport::InProcess { router, credential } => {
                in_process(router.clone(), credential.clone(), request).await?
            }
            Transport::Http { client, base, token } => over_http(client, base, token, request).await?,
        };
        if status.is_success() {
            return Ok(Answer { body });
        }
        let text = collect(body).await?;
        let problem = serde_json::from_slice(&text).unwrap_or(Value::Null);
        Err(Failure::from_problem(status.as_u16(), &problem))
    }
}

type Raw = (StatusCode, BoxStream<'static, Result<Bytes>>);

async fn in_process(router: axum::Router, credential: Credential, request: &Request) -> Result<Raw> {
    let builder = axum::http::Request::builder().method(request.method.clone()).uri(&request.target);
    let mut builder = builder.header(header::ACCEPT, ACCEPT);
    builder = match credential {
        Credential::Operator(principal) => builder.extension(principal),
        Credential::Bearer(token) => builder.header(header::AUTHORIZATION, format!("Bearer {}", token.expose_secret())),
    };
    if let Some(key) = &request.idempotency_key {
        builder = builder.header("idempotency-key", key);
    }
    let body = match &request.body {
        Some(json) => {
            builder = builder.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Body::from(json.to_string())
        }
        None => Body::empty(),
    };
    let ask = builder.body(body).map_err(|e| Failure::usage("this cannot be asked").because(e))?;
    let answer = router.oneshot(ask).await.unwrap_or_else(|never| match never {});
    let broken = |e: axum::Error| Failure::new(Exit::Failed, "the answer broke off").because(e);
    let status = answer.status();
    Ok((status, answer.into_body().into_data_stream().map(move |chunk| chunk.map_err(broken)).boxed()))
}

async fn over_http(client: &reqwest::Client, base: &str, token: &SecretString, request: &Request) -> Result<Raw> {
    let mut attempt = 1;
    let answer = loop {
        let mut ask = client.request(request.method.clone(), format!("{base}{}", request.target));
        ask = ask.bearer_auth(token.expose_secret()).header(header::ACCEPT, ACCEPT);
        if let Some(key) = &request.idempotency_key {
            ask = ask.header("idempotency-key", key);
        }
        if let Some(body) = &request.body {
            ask = ask.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        match ask.send().await {
            Ok(answer) => break answer,
            Err(e) if attempt < ATTEMPTS_MAX && may_repeat(request, &e) => {
                tokio::time::sleep(RETRY_AFTER * attempt).await
            }
            Err(e) => return Err(unreachable(base, &e)),
        }
        attempt += 1;
    };
    let base = base.to_owned();
    let status = answer.status();
    Ok((status, answer.bytes_stream().map(move |chunk| chunk.map_err(|e| unreachable(&base, &e))).boxed()))
}

/// A request that never arrived may be sent again; one that may have arrived only if doing it twice is doing it once.
fn may_repeat(request: &Request, error: &reqwest::Error) -> bool {
    let harmless = request.method == Method::GET || request.idempotency_key.is_some();
    error.is_connect() || (harmless && error.is_request() && !error.is_timeout())
}

fn unreachable(base: &str, error: &reqwest::Error) -> Failure {
    let exit = if error.is_builder() { Exit::Usage } else { Exit::Unreachable };
    Failure::new(exit, format!("cannot reach the control plane at {base}"))
        .because(chain(error))
        .try_next("fleetctl config show --origin      # says where the address comes from")
}

/// An error and its sources in one line, without addresses that may hold credentials.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    if text.is_empty() { "the request failed".to_owned() } else { text }
}

/// Whether the address is this machine's own, where no proxy should be asked.
fn is_loopback(base: &str) -> bool {
    let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
    ["127.", "localhost", "[::1]"].iter().any(|own| rest.starts_with(own))
}

async fn collect(mut body: BoxStream<'static, Result<Bytes>>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(chunk) = body.next().await {
        out.extend_from_slice(&chunk?);
        if out.len() > ANSWER_BYTES_MAX {
            return Err(Failure::unexpected("the answer is too long"));
        }
    }
    Ok(out)
}

/// One segment of a path: what a user typed, so that it cannot become another path.
///
/// `.` and `..` are refused: clients and proxies resolve them, whatever their spelling.
pub(crate) fn segment(text: &str) -> Result<String> {
    if text.is_empty() || text == "." || text == ".." {
        return Err(Failure::usage(format!("{text:?} is neither a name nor an id")).code("invalid"));
    }
    Ok(encode(text))
}

/// RFC 3986: everything but unreserved characters as `%XX`.
pub(crate) fn encode(text: &str) -> String {
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
    use futures_util::stream;

    #[test]
    fn what_a_user_types_stays_one_segment() {
        assert_eq!(segment("a/../b?c#d é").unwrap(), "a%2F..%2Fb%3Fc%23d%20%C3%A9");
        assert_eq!(segment("%2e%2e").unwrap(), "%252e%252e");
        for wrong in ["", ".", ".."] {
            assert_eq!(segment(wrong).unwrap_err().exit, Exit::Usage);
        }
    }

    #[test]
    fn a_query_is_encoded_and_a_body_gains_fields() {
        let request =
            Request::post("/v1/x", serde_json::json!({"a": 1})).query("k", "v w").query("l", "1").with("b", true);
        assert_eq!(request.target, "/v1/x?k=v%20w&l=1");
        assert_eq!(request.body, Some(serde_json::json!({"a": 1, "b": true})));
        assert_ne!(request.idempotency_key, request.renewed().idempotency_key);
        assert_eq!(Request::get("/").with("b", true).body, None);
    }

    #[tokio::test]
    async fn lines_arrive_whole_however_the_body_is_cut() {
        let chunks = ["{\"a\"", ":1}\n{}", "\n", "last"].map(|c| Ok(Bytes::from(c)));
        let mut lines = Answer { body: stream::iter(chunks).boxed() }.lines();
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            seen.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(seen, ["{\"a\":1}", "{}", "last"]);
    }

    #[tokio::test]
    async fn nothing_listening_is_unreachable() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = Client::http(&format!("http://127.0.0.1:{port}/"), "t".to_owned().into(), None).unwrap();
        let failure = client.json(&Request::get("/v1/status")).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.causes[0].to_lowercase().contains("refused"), "{failure:?}");
    }

    #[test]
    fn the_own_machine_needs_no_proxy() {
        assert!(
            is_loopback("http://127.0.0.1:8081") && is_loopback("https://[::1]:1") && is_loopback("http://localhost:1")
        );
        assert!(!is_loopback("https://fleet.example.org"));
    }
}
