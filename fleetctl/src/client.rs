//! Sends requests to the control plane, in process or over HTTP, with the same interface for every command.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use control_plane::ErrorKind;
use control_plane::auth::operator::InProcess;
use control_plane::serve::AdminSocket;
use fleet_api::changes::ChangeOptions;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use tower::ServiceExt;

use crate::error::{CommandExit, CommandFailure, Result};
use crate::table::plain_text;

/// Maximum size of an answer that is read whole. A page of 1,000 items is much smaller.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Maximum attempts when the connection fails. The idempotency key makes repeating safe.
const ATTEMPTS_MAX: u32 = 3;
/// Name of the socket of a server on the same data directory, as shown to users.
const SOCKET: &str = "the socket";
/// A refused connection fails at once, so a second attempt after this time bridges a restart.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Longer than the longest long poll (60 s), so that only a dead connection reaches it.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// The content types that this program can read.
const ACCEPT: &str = "application/json, application/x-ndjson, application/problem+json";

/// The way to a control plane.
#[derive(Clone)]
pub(crate) enum ClientTransport {
    /// The control plane inside this process.
    InProcess { router: axum::Router, credential: ClientCredential },
    /// A control plane in another process.
    Http { client: reqwest::Client, at: RemoteAddress, token: SecretString },
}

/// The address of a control plane in another process.
#[derive(Clone)]
pub(crate) struct RemoteAddress {
    /// The base address; every target is appended to it.
    base: String,
    /// The address as shown to the user, for whom a socket has no base address.
    shown: String,
    /// Keeps the socket open while this value lives.
    _socket: Option<Arc<AdminSocket>>,
}

/// The caller's identity inside this process.
#[derive(Clone)]
pub(crate) enum ClientCredential {
    /// The user who started the process: for the admin API.
    Operator(InProcess),
    /// A token: for the data API.
    Bearer(SecretString),
}

/// One request to the API.
#[derive(Debug, Clone)]
pub(crate) struct ApiRequest {
    method: Method,
    /// Path and query, percent-encoded.
    target: String,
    body: Option<Value>,
    idempotency_key: Option<String>,
}

impl ApiRequest {
    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self { method: Method::GET, target: target.into(), body: None, idempotency_key: None }
    }
    /// A POST with its own idempotency key: sending the same value again does not repeat the work.
    pub(crate) fn post(target: impl Into<String>, body: &impl Serialize) -> Self {
        let key = uuid::Uuid::now_v7().to_string();
        Self { method: Method::POST, target: target.into(), body: Some(body_of(body)), idempotency_key: Some(key) }
    }
    pub(crate) fn patch(target: impl Into<String>, body: &impl Serialize) -> Self {
        Self { method: Method::PATCH, target: target.into(), body: Some(body_of(body)), idempotency_key: None }
    }
    pub(crate) fn delete(target: impl Into<String>) -> Self {
        Self { method: Method::DELETE, target: target.into(), body: None, idempotency_key: None }
    }

    /// The same request with a new key, so that a stored answer for the old key is not used.
    #[must_use]
    pub(crate) fn with_new_key(&self) -> Self {
        Self {
            idempotency_key: self.idempotency_key.as_ref().map(|_| uuid::Uuid::now_v7().to_string()),
            ..self.clone()
        }
    }

    /// Adds the options of a change: to the body if there is one, otherwise to the query.
    #[must_use]
    pub(crate) fn with_options(mut self, options: &ChangeOptions) -> Self {
        let Value::Object(fields) = body_of(options) else { return self };
        for (key, value) in fields {
            match self.body.as_mut() {
                Some(body) => body[key] = value,
                None => self = self.with_query(&key, &plain_text(&value)),
            }
        }
        self
    }

    /// Adds a query parameter.
    #[must_use]
    pub(crate) fn with_query(mut self, key: &str, value: &str) -> Self {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(&format!("{key}={}", percent_encode(value)));
        self
    }
}

/// The JSON body of a request. The requests are plain data, so they always have one.
fn body_of(request: &impl Serialize) -> Value {
    serde_json::to_value(request).expect("a request is plain JSON")
}

/// A successful answer whose body has not been read yet.
pub(crate) struct ApiAnswer {
    body: BoxStream<'static, Result<Bytes>>,
}

impl std::fmt::Debug for ApiAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiAnswer").finish_non_exhaustive()
    }
}

impl ApiAnswer {
    /// The whole body as JSON; null when it is empty.
    pub(crate) async fn read_json(self) -> Result<Value> {
        let bytes = collect_body(self.body).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|e| CommandFailure::unexpected_answer("the answer is not JSON").with_cause(e))
    }

    /// The body line by line (NDJSON), as it arrives.
    pub(crate) fn into_lines(self) -> AnswerLines {
        AnswerLines { body: self.body, buffer: Vec::new() }
    }
}

/// Lines of an answer; see [`ApiAnswer::into_lines`].
pub(crate) struct AnswerLines {
    body: BoxStream<'static, Result<Bytes>>,
    buffer: Vec<u8>,
}

impl AnswerLines {
    /// The next line; `None` at the end.
    pub(crate) async fn next_line(&mut self) -> Result<Option<Vec<u8>>> {
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
                return Err(CommandFailure::unexpected_answer("a line of the answer is too long"));
            }
            match self.body.next().await {
                Some(chunk) => self.buffer.extend_from_slice(&chunk?),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.buffer))),
            }
        }
    }
}

/// Sends requests to one control plane; cheap to clone.
#[derive(Clone)]
pub(crate) struct ApiClient {
    transport: ClientTransport,
}

impl ApiClient {
    pub(crate) fn new(transport: ClientTransport) -> Self {
        Self { transport }
    }

    /// A client for a control plane at this address.
    pub(crate) fn over_address(base: &str, token: SecretString, ca: Option<&[u8]>) -> Result<Self> {
        let unusable = |e: reqwest::Error| {
            CommandFailure::new(CommandExit::Failed, "cannot set up HTTP").with_cause(error_chain(&e))
        };
        let mut builder =
            reqwest::Client::builder().read_timeout(READ_TIMEOUT).connect_timeout(Duration::from_secs(10));
        if let Some(pem) = ca {
            builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem).map_err(unusable)?);
        }
        if is_loopback(base) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(unusable)?;
        let base = base.trim_end_matches('/').to_owned();
        let at = RemoteAddress { shown: base.clone(), base, _socket: None };
        Ok(Self::new(ClientTransport::Http { client, at, token }))
    }

    /// A client for the server on this data directory, through its socket. Its address and certificate are not needed.
    pub(crate) fn over_socket(data_dir: &Path, socket: AdminSocket, token: SecretString) -> Result<Self> {
        let builder =
            reqwest::Client::builder().read_timeout(READ_TIMEOUT).no_proxy().unix_socket(socket.socket_path());
        let client = builder
            .build()
            .map_err(|e| CommandFailure::new(CommandExit::Failed, "cannot set up HTTP").with_cause(error_chain(&e)))?;
        let shown = format!("{SOCKET} in {}", data_dir.display());
        let at = RemoteAddress { base: "http://localhost".to_owned(), shown, _socket: Some(Arc::new(socket)) };
        Ok(Self::new(ClientTransport::Http { client, at, token }))
    }

    /// True when the control plane runs in this process and ends with it.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self.transport, ClientTransport::InProcess { .. })
    }

    /// Sends the request and reads a JSON answer.
    pub(crate) async fn send_for_json(&self, request: &ApiRequest) -> Result<Value> {
        self.send_request(request).await?.read_json().await
    }

    /// Sends the request. An unsuccessful answer becomes a failure with the problem's text.
    pub(crate) async fn send_request(&self, request: &ApiRequest) -> Result<ApiAnswer> {
        let (status, body) = match &self.transport {
            ClientTransport::InProcess { router, credential } => {
                send_in_process(router.clone(), credential.clone(), request).await?
            }
            ClientTransport::Http { client, at, token } => send_over_http(client, at, token, request).await?,
        };
        if status.is_success() {
            return Ok(ApiAnswer { body });
        }
        let text = collect_body(body).await?;
        let problem = serde_json::from_slice(&text).unwrap_or(Value::Null);
        Err(CommandFailure::from_problem(status.as_u16(), &problem))
    }
}

type RawAnswer = (StatusCode, BoxStream<'static, Result<Bytes>>);

async fn send_in_process(
    router: axum::Router,
    credential: ClientCredential,
    request: &ApiRequest,
) -> Result<RawAnswer> {
    let builder = axum::http::Request::builder().method(request.method.clone()).uri(&request.target);
    let mut builder = builder.header(header::ACCEPT, ACCEPT);
    builder = match credential {
        ClientCredential::Operator(principal) => builder.extension(principal),
        ClientCredential::Bearer(token) => {
            builder.header(header::AUTHORIZATION, format!("Bearer {}", token.expose_secret()))
        }
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
    let ask = builder.body(body).map_err(|e| CommandFailure::usage_error("the request is not valid").with_cause(e))?;
    let answer = router.oneshot(ask).await.unwrap_or_else(|never| match never {});
    let broken = |e: axum::Error| CommandFailure::new(CommandExit::Failed, "the answer was cut short").with_cause(e);
    let status = answer.status();
    Ok((status, answer.into_body().into_data_stream().map(move |chunk| chunk.map_err(broken)).boxed()))
}

async fn send_over_http(
    client: &reqwest::Client,
    at: &RemoteAddress,
    token: &SecretString,
    request: &ApiRequest,
) -> Result<RawAnswer> {
    let mut attempt = 1;
    let answer = loop {
        let mut ask = client.request(request.method.clone(), format!("{}{}", at.base, request.target));
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
            Err(e) => return Err(unreachable_failure(&at.shown, &e)),
        }
        attempt += 1;
    };
    let base = at.shown.clone();
    let status = answer.status();
    require_api(&base, &answer)?;
    Ok((status, answer.bytes_stream().map(move |chunk| chunk.map_err(|e| unreachable_failure(&base, &e))).boxed()))
}

/// Refuses an answer that cannot come from a control plane: a page of a web server or proxy, or a redirect.
fn require_api(base: &str, answer: &reqwest::Response) -> Result<()> {
    const SPOKEN: [&str; 4] =
        ["application/json", "application/problem+json", "application/x-ndjson", "text/event-stream"];
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("nothing");
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if SPOKEN.contains(&essence.as_str()) || status == StatusCode::NO_CONTENT {
        return Ok(());
    }
    let exit = match status.as_u16() {
        401 | 403 | 407 => CommandExit::NotAuthorised,
        _ => CommandExit::Unreachable,
    };
    Err(CommandFailure::new(exit, format!("the program at {base} is not a control plane's admin API"))
        .with_cause(format!("it answered with status {} and {}", status.as_u16(), crate::error::shorten_text(kind)))
        .try_next("use the admin address that `fleetctl serve` prints, without a path")
        .try_next("fleetctl config show --origin      # says where the address comes from"))
}

/// A request that never arrived may be sent again. One that may have arrived may be sent again only if it is
/// idempotent.
fn may_repeat(request: &ApiRequest, error: &reqwest::Error) -> bool {
    let harmless = request.method == Method::GET || request.idempotency_key.is_some();
    error.is_connect() || (harmless && error.is_request() && !error.is_timeout())
}

fn unreachable_failure(base: &str, error: &reqwest::Error) -> CommandFailure {
    let exit = if error.is_builder() { CommandExit::Usage } else { CommandExit::Unreachable };
    let other = if base.starts_with("https:") { "plain HTTP: use http://" } else { "TLS: use https://" };
    let failure =
        CommandFailure::new(exit, format!("cannot reach the control plane at {base}")).with_cause(error_chain(error));
    if base.starts_with(SOCKET) {
        return failure.try_next("see the log of `fleetctl serve`: it just ended, or has too many connections");
    }
    // A refused connection is not caused by the wrong scheme.
    let failure = match error.is_timeout() || error_chain(error).to_lowercase().contains("refused") {
        true => failure,
        false => failure.try_next(format!("if the port speaks {other} in --url")),
    };
    failure.try_next("fleetctl config show --origin      # says where the address comes from")
}

/// An error and its sources in one line, without addresses that may contain credentials.
fn error_chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    if text.is_empty() { "the request failed".to_owned() } else { text }
}

/// True when the address is on this machine, where no proxy should be used.
fn is_loopback(base: &str) -> bool {
    let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
    ["127.", "localhost", "[::1]"].iter().any(|own| rest.starts_with(own))
}

async fn collect_body(mut body: BoxStream<'static, Result<Bytes>>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(chunk) = body.next().await {
        out.extend_from_slice(&chunk?);
        if out.len() > ANSWER_BYTES_MAX {
            return Err(CommandFailure::unexpected_answer("the answer is too long"));
        }
    }
    Ok(out)
}

/// Encodes user input as one path segment, so that it cannot change the path.
///
/// Refuses `.` and `..`: clients and proxies resolve them even when they are encoded.
pub(crate) fn path_segment(text: &str) -> Result<String> {
    if text.is_empty() || text == "." || text == ".." {
        return Err(
            CommandFailure::usage_error(format!("{text:?} is not a name or an id")).code(ErrorKind::Invalid.code())
        );
    }
    Ok(percent_encode(text))
}

/// RFC 3986: encodes everything except unreserved characters as `%XX`.
pub(crate) fn percent_encode(text: &str) -> String {
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
        assert_eq!(path_segment("a/../b?c#d é").unwrap(), "a%2F..%2Fb%3Fc%23d%20%C3%A9");
        assert_eq!(path_segment("%2e%2e").unwrap(), "%252e%252e");
        for wrong in ["", ".", ".."] {
            assert_eq!(path_segment(wrong).unwrap_err().exit, CommandExit::Usage);
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

    #[tokio::test]
    async fn lines_arrive_whole_however_the_body_is_cut() {
        let chunks = ["{\"a\"", ":1}\n{}", "\n", "last"].map(|c| Ok(Bytes::from(c)));
        let mut lines = ApiAnswer { body: stream::iter(chunks).boxed() }.into_lines();
        let mut seen = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            seen.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(seen, ["{\"a\":1}", "{}", "last"]);
    }

    #[tokio::test]
    async fn nothing_listening_is_unreachable() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client =
            ApiClient::over_address(&format!("http://127.0.0.1:{port}/"), "t".to_owned().into(), None).unwrap();
        let failure = client.send_for_json(&ApiRequest::get("/v1/status")).await.unwrap_err();
        assert_eq!(failure.exit, CommandExit::Unreachable);
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
