//! Sends requests over HTTP to one control plane. Only this module knows the HTTP library.

use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use reqwest::header;
use secrecy::{ExposeSecret, SecretString};

use crate::answer::ApiAnswer;
use crate::error::{Error, ErrorKind, Result};
use crate::request::{ACCEPTED_TYPES, ApiRequest, HttpVerb};

/// Maximum attempts when the connection fails. The idempotency key makes repeating safe.
const ATTEMPTS_MAX: u32 = 3;
/// A refused connection fails at once, so a second attempt after this time bridges a restart.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// A machine that does not answer at all is given up after this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the longest long poll (60 s), so that only a dead connection reaches it.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(90);
/// What the client shows of a content type that it does not know.
const SHOWN_MAX: usize = 70;
/// The content types that the API answers with.
const SPOKEN: [&str; 4] = ["application/json", "application/problem+json", "application/x-ndjson", "text/event-stream"];

/// The HTTP connection to one control plane; cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpTransport {
    client: reqwest::Client,
    /// The base address; every target is appended to it.
    base: String,
    /// The address as messages show it: a socket has no base address.
    shown: String,
    is_socket: bool,
    token: SecretString,
}

impl HttpTransport {
    /// A transport to the control plane at this address. `ca` holds further certificates to trust, as PEM. A connection
    /// is given up when nothing arrives for `read_timeout`; `None` means 90 seconds.
    ///
    /// # Errors
    /// `setup_failed` when HTTP or TLS cannot be set up, for instance because `ca` holds no certificate.
    pub fn over_address(
        base: &str,
        token: SecretString,
        ca: Option<&[u8]>,
        read_timeout: Option<Duration>,
    ) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .read_timeout(read_timeout.unwrap_or(READ_TIMEOUT))
            .connect_timeout(CONNECT_TIMEOUT);
        if let Some(pem) = ca {
            let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|e| setup_error(&e))?;
            builder = builder.tls_certs_merge(certificates);
        }
        if is_loopback(base) {
            builder = builder.no_proxy();
        }
        if is_loopback(base) && base.starts_with("http://") {
            // Reading the system's certificates takes longer than most commands.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|e| setup_error(&e))?;
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { client, shown: base.clone(), base, is_socket: false, token })
    }

    /// A transport to a server on this machine, through its Unix socket. Messages name the socket as `shown`.
    ///
    /// # Errors
    /// `setup_failed` when HTTP cannot be set up.
    pub fn over_socket(socket: &Path, shown: &str, token: SecretString) -> Result<Self> {
        let builder = reqwest::Client::builder().read_timeout(READ_TIMEOUT).no_proxy().unix_socket(socket);
        let client = builder.tls_certs_only([]).build().map_err(|e| setup_error(&e))?;
        Ok(Self { client, base: "http://localhost".to_owned(), shown: shown.to_owned(), is_socket: true, token })
    }

    /// Sends the request, and returns the answer with any status. A request that may be repeated is sent up to three
    /// times when the connection fails.
    ///
    /// # Errors
    /// `unreachable`, `invalid_address`; `other_program` when the answer cannot come from a control plane.
    pub async fn send_request(&self, request: &ApiRequest) -> Result<ApiAnswer> {
        let mut attempt = 1;
        let answer = loop {
            match self.http_request(request).send().await {
                Ok(answer) => break answer,
                Err(e) if attempt < ATTEMPTS_MAX && may_repeat(request, &e) => {
                    tokio::time::sleep(RETRY_AFTER * attempt).await;
                }
                Err(e) => return Err(self.unreachable_error(&e)),
            }
            attempt += 1;
        };
        self.require_api(&answer)?;
        let (status, retry_after) = (answer.status().as_u16(), retry_after(&answer));
        let this = self.clone();
        let body = answer.bytes_stream().map_err(move |e| this.unreachable_error(&e));
        Ok(ApiAnswer::from_stream(status, body).with_retry_after(retry_after))
    }

    fn http_request(&self, request: &ApiRequest) -> reqwest::RequestBuilder {
        let method = match request.verb() {
            HttpVerb::Get => reqwest::Method::GET,
            HttpVerb::Post => reqwest::Method::POST,
            HttpVerb::Patch => reqwest::Method::PATCH,
            HttpVerb::Delete => reqwest::Method::DELETE,
        };
        let mut ask = self.client.request(method, format!("{}{}", self.base, request.target()));
        ask = ask.bearer_auth(self.token.expose_secret()).header(header::ACCEPT, ACCEPTED_TYPES);
        if let Some(key) = request.idempotency_key() {
            ask = ask.header("idempotency-key", key);
        }
        match request.body() {
            Some(body) => ask.header(header::CONTENT_TYPE, "application/json").body(body.to_string()),
            None => ask,
        }
    }

    /// Refuses an answer that cannot come from a control plane: a page of a web server or proxy, or a redirect.
    fn require_api(&self, answer: &reqwest::Response) -> Result<()> {
        let status = answer.status();
        let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("nothing");
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if SPOKEN.contains(&essence.as_str()) || status == reqwest::StatusCode::NO_CONTENT {
            return Ok(());
        }
        let detail = format!("the program at {} is not a control plane's admin API", self.shown);
        Err(Error::new(ErrorKind::OtherProgram, detail)
            .with_status(status.as_u16())
            .with_cause(format!("it answered with status {} and {}", status.as_u16(), shorten_text(kind)))
            .try_next("use the admin address that `fleetctl serve` prints, without a path"))
    }

    fn unreachable_error(&self, error: &reqwest::Error) -> Error {
        let cause = last_cause(error);
        let kind = if error.is_builder() {
            ErrorKind::InvalidAddress
        } else if self.is_socket {
            ErrorKind::SocketFailed
        } else if error.is_timeout() {
            ErrorKind::NoAnswer
        } else if cause.to_lowercase().contains("refused") {
            ErrorKind::NotListening
        } else {
            ErrorKind::ConnectionFailed
        };
        let detail = format!("cannot reach the control plane at {}", self.shown);
        Error::new(kind, detail).with_cause(cause).try_next(self.next_step(kind))
    }

    fn next_step(&self, kind: ErrorKind) -> &'static str {
        match kind {
            ErrorKind::SocketFailed => "see the log of `fleetctl serve`: it just ended, or has too many connections",
            ErrorKind::NotListening | ErrorKind::NoAnswer => "check that the control plane runs at this address",
            _ if self.base.starts_with("https:") => "if the port speaks plain HTTP: use http://",
            _ => "if the port speaks TLS: use https://",
        }
    }
}

fn setup_error(error: &reqwest::Error) -> Error {
    Error::new(ErrorKind::SetupFailed, "cannot set up HTTP").with_cause(last_cause(error))
}

/// A request that never arrived may be sent again. One that may have arrived may be sent again only if it is
/// idempotent.
fn may_repeat(request: &ApiRequest, error: &reqwest::Error) -> bool {
    error.is_connect() || (request.is_repeatable() && error.is_request() && !error.is_timeout())
}

/// The header Retry-After, which the API writes in seconds.
fn retry_after(answer: &reqwest::Response) -> Option<Duration> {
    answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// The innermost cause of an error. The outer ones may contain addresses with credentials.
fn last_cause(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    if text.is_empty() { "the request failed".to_owned() } else { text }
}

/// Shortens a text of the other side to fit one line of a message.
fn shorten_text(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// True when the address is on this machine, where no proxy should be used.
fn is_loopback(base: &str) -> bool {
    let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
    ["127.", "localhost", "[::1]"].iter().any(|own| rest.starts_with(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_listening_is_unreachable() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let base = format!("http://127.0.0.1:{port}/");
        let transport = HttpTransport::over_address(&base, "t".into(), None, None).unwrap();
        let error = transport.send_request(&ApiRequest::get("/v1/status")).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::NotListening, "unreachable"));
        assert!(error.causes()[0].to_lowercase().contains("refused"), "{error:?}");
    }

    #[test]
    fn the_own_machine_needs_no_proxy() {
        assert!(
            is_loopback("http://127.0.0.1:8081") && is_loopback("https://[::1]:1") && is_loopback("http://localhost:1")
        );
        assert!(!is_loopback("https://fleet.example.org"));
    }

    #[test]
    fn what_is_shown_back_is_cut() {
        assert_eq!(shorten_text("short"), "short");
        assert_eq!(shorten_text(&"é".repeat(300)).chars().count(), 71);
    }
}
