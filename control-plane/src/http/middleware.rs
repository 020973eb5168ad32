//! What happens around every request, outermost first: request id, access log and metrics, hardened headers, the body of
//! errors, panics caught. Nothing here knows a route.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use super::error::{PROBLEM_JSON, Problem, Reader, of_status};
use super::extract::text_header;
use super::{Transport, unread};
use crate::auth::operator::InProcess;
use crate::metrics::{HTTP_PANICS, HTTP_REQUESTS, HTTP_SECONDS};

/// Names a request in responses and logs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The caller's trace (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Longer ids are not ids.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Which listener a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// Operators.
    Admin,
    /// Tenants.
    Data,
}

impl Listener {
    fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Data => "data",
        }
    }
}

/// What is known of the request at hand; every layer may add to what the access log will say.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    id: Arc<str>,
    facts: Arc<Mutex<Facts>>,
}

#[derive(Debug, Default, Clone)]
struct Facts {
    principal: Option<String>,
    tenant: Option<String>,
}

impl RequestContext {
    fn new(headers: &HeaderMap) -> Self {
        let given = text_header(headers, REQUEST_ID.as_str()).filter(|id| is_request_id(id));
        let id = given.map_or_else(|| Uuid::now_v7().simple().to_string(), str::to_owned);
        Self { id: id.into(), facts: Arc::default() }
    }

    /// The request's id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Who asks, once known.
    pub(crate) fn set_principal(&self, principal: &str) {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).principal = Some(principal.to_owned());
    }

    /// Which tenant's data is touched, once known.
    pub(crate) fn set_tenant(&self, tenant: impl ToString) {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).tenant = Some(tenant.to_string());
    }

    fn facts(&self) -> Facts {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The outermost middleware of both listeners.
pub(crate) async fn around(listener: Listener, transport: Transport, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let context = RequestContext::new(request.headers());
    let traceparent = request.headers().get(TRACEPARENT).filter(|value| is_traceparent(value)).cloned();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let reader = if request.extensions().get::<InProcess>().is_some() { Reader::Owner } else { Reader::Stranger };
    request.extensions_mut().insert(context.clone());
    let response = if transport == Transport::Http { connected(request, next).await } else { next.run(request).await };
    let mut response = finish_error(response, &context, reader, listener);
    harden(response.headers_mut());
    response.headers_mut().insert(REQUEST_ID, HeaderValue::from_str(&context.id).expect("checked or made here"));
    if let Some(value) = traceparent {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    measure(listener, &method, &response, began.elapsed());
    log(listener, &method, &path, &response, &context, began.elapsed());
    response
}

/// What a request over a connection needs besides: one host, and a connection that is good for the next request or says
/// that it is not.
async fn connected(request: Request, next: Next) -> Response {
    let hosts = check_host(&request);
    let (request, body) = unread::watch(request);
    let mut response = match hosts {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            // Its body is unread from here on.
            drop(request);
            problem.into_response()
        }
    };
    if !body.finish().await {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// HTTP/1.1 asks for one Host header, and for 400 without (RFC 9112, 3.2): a proxy in between could read another one.
fn check_host(request: &Request) -> Result<(), Problem> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts == 1 || (hosts == 0 && request.version() != Version::HTTP_11) {
        return Ok(());
    }
    let detail = format!("HTTP/1.1 needs one Host header, and the request has {hosts}");
    Err(Problem::new(axum::http::StatusCode::BAD_REQUEST, "host_invalid", detail).try_next("send `Host: <name>` once"))
}

/// Printable ASCII without quotes: goes into headers, logs and the audit log as it is.
fn is_request_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b);
    !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.bytes().all(plain)
}

/// `00-<32 hex>-<16 hex>-<2 hex>`.
fn is_traceparent(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    lengths == [2, 32, 16, 2] && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// Gives an error its body, and logs what a 500 hides.
fn finish_error(mut response: Response, context: &RequestContext, reader: Reader, listener: Listener) -> Response {
    let status = response.status();
    if response.extensions_mut().remove::<OwnBody>().is_some() {
        return response;
    }
    let known = response.extensions_mut().remove::<Arc<Problem>>();
    let foreign = (status.is_client_error() || status.is_server_error()) && !is_problem(&response);
    let problem = match known {
        Some(problem) => problem,
        None if foreign => Arc::new(of_status(status)),
        None => return response,
    };
    if status.is_server_error() {
        log_fault(&problem, context);
    }
    let mut body = problem.body(context.id(), reader);
    if listener == Listener::Admin && status.is_client_error() && body.next_steps.is_empty() {
        body.next_steps.push(format!("fleetctl explain {}", body.code));
    }
    let body = serde_json::to_vec(&body).expect("a problem is plain JSON");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    headers.remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body);
    response
}

/// Marks a response whose status is an error and whose body is its own: a probe that says which check failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnBody;

fn is_problem(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE) == Some(&PROBLEM_JSON)
}

/// The one place where the cause of a failed request is written down.
fn log_fault(problem: &Problem, context: &RequestContext) {
    let error = problem.error();
    let cause = error.causes().join(": ");
    match error.status {
        500 => tracing::error!(request_id = context.id(), code = %error.code, detail = %error.detail, cause, "fault"),
        _ => tracing::warn!(request_id = context.id(), code = %error.code, detail = %error.detail, cause, "refused"),
    }
}

/// Answers hold fleet or tenant data: no cache keeps them, no browser guesses their type or frames them.
fn harden(headers: &mut HeaderMap) {
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
}

fn measure(listener: Listener, method: &Method, response: &Response, took: Duration) {
    let method = if is_common(method) { method.to_string() } else { "other".to_owned() };
    let status = response.status().as_u16().to_string();
    let labels = [("listener", listener.as_str().to_owned()), ("method", method), ("status", status)];
    metrics::counter!(HTTP_REQUESTS, &labels).increment(1);
    metrics::histogram!(HTTP_SECONDS, "listener" => listener.as_str()).record(took);
}

/// Callers invent methods; metrics must not grow with them.
fn is_common(method: &Method) -> bool {
    [Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS].contains(method)
}

/// One line per request: who, where, what came of it; never a query string, header, body or parameter.
fn log(listener: Listener, method: &Method, path: &str, response: &Response, context: &RequestContext, took: Duration) {
    let facts = context.facts();
    tracing::info!(
        target: "access",
        listener = listener.as_str(),
        request_id = context.id(),
        method = method.as_str(),
        path,
        status = response.status().as_u16(),
        duration_ms = took.as_secs_f64() * 1_000.0,
        tenant_id = facts.tenant.as_deref().unwrap_or("-"),
        principal = facts.principal.as_deref().unwrap_or("-"),
        "request"
    );
}

/// What a panic in a handler becomes; the hook has printed its message already.
pub(crate) fn panicked(_payload: Box<dyn Any + Send + 'static>) -> Response {
    metrics::counter!(HTTP_PANICS).increment(1);
    Problem::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "internal", "a handler panicked").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_request_id_is_kept_only_if_it_is_harmless() {
        assert!(is_request_id("01J-abc_def.1"));
        for bad in ["", "a b", "a\"b", "a\nb", "é", &"x".repeat(129)] {
            assert!(!is_request_id(bad), "{bad:?}");
        }
    }

    #[test]
    fn only_a_trace_context_is_echoed() {
        let good = HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert!(is_traceparent(&good));
        assert!(!is_traceparent(&HeaderValue::from_static("00-zz-00f067aa0ba902b7-01")));
        assert!(!is_traceparent(&HeaderValue::from_static("")));
    }
}
