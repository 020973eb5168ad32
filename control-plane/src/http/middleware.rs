//! The layers around every request, outermost first: request id, access log and metrics, hardened headers, bodies of
//! errors, and caught panics. Nothing here knows a route.

use std::any::Any;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{Counter, Histogram};
use tenant_router::RateState;
use uuid::Uuid;

use super::error::{ErrorAudience, PROBLEM_JSON, Problem, of_status};
use super::extract::text_header;
use super::{RequestTransport, unread_body};
use crate::auth::operator::InProcess;
use crate::error::ErrorKind;
use crate::metrics::{HTTP_PANICS, HTTP_REQUESTS, HTTP_SECONDS};

/// The header with the id of a request, for responses and logs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The caller's trace (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Maximum length of a request id that is accepted from a caller.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The listener that a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    /// The listener for operators.
    Admin,
    /// The listener for tenants.
    Data,
}

impl ListenerKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Data => "data",
        }
    }
}

/// Facts about the current request. Every layer may add to what the access log will contain.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    id: Arc<str>,
    facts: Arc<Mutex<AccessLogFields>>,
}

#[derive(Debug, Default, Clone)]
struct AccessLogFields {
    principal: Option<String>,
    tenant: Option<String>,
    /// The rate of the tenant's plan, for the headers of the answer.
    rate: Option<RateState>,
}

impl RequestContext {
    fn new(headers: &HeaderMap) -> Self {
        let given = text_header(headers, REQUEST_ID.as_str()).filter(|id| is_request_id(id));
        let id = given.map_or_else(|| Uuid::now_v7().simple().to_string(), str::to_owned);
        Self { id: id.into(), facts: Arc::default() }
    }

    /// The request's id.
    pub(crate) fn request_id(&self) -> &str {
        &self.id
    }

    /// Sets the caller, once known.
    pub(crate) fn set_principal(&self, principal: &str) {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).principal = Some(principal.to_owned());
    }

    /// Sets the tenant whose data is used, once known.
    pub(crate) fn set_tenant(&self, tenant: impl ToString) {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).tenant = Some(tenant.to_string());
    }

    /// Sets the rate of the tenant's plan, which the answer tells.
    pub(crate) fn set_rate(&self, rate: Option<RateState>) {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).rate = rate;
    }

    /// Adds the headers about the rate of the tenant's plan.
    fn add_rate_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in self.log_fields().rate.iter().flat_map(RateState::headers) {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&value).expect("digits and quotes"));
        }
    }

    fn log_fields(&self) -> AccessLogFields {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The outermost middleware of both listeners.
pub(crate) async fn handle_request(
    listener: ListenerKind,
    transport: RequestTransport,
    mut request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let context = RequestContext::new(request.headers());
    let traceparent = request.headers().get(TRACEPARENT).filter(|value| is_traceparent(value)).cloned();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let reader =
        if request.extensions().get::<InProcess>().is_some() { ErrorAudience::Owner } else { ErrorAudience::Stranger };
    request.extensions_mut().insert(context.clone());
    let response = if transport == RequestTransport::Http {
        guard_connection(request, next).await
    } else {
        next.run(request).await
    };
    let mut response = finish_error(response, &context, reader, listener);
    harden_headers(response.headers_mut());
    context.add_rate_headers(response.headers_mut());
    response.headers_mut().insert(REQUEST_ID, HeaderValue::from_str(&context.id).expect("checked or made here"));
    if let Some(value) = traceparent {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    // A call in this process is not HTTP, and may come before metrics are recorded.
    if transport == RequestTransport::Http {
        measure_request(listener, &method, &response, began.elapsed());
    }
    log_request(listener, &method, &path, &response, &context, began.elapsed());
    response
}

/// Further requirements of a request over a connection: exactly one host, and a connection that either can serve the
/// next request or says that it cannot.
async fn guard_connection(request: Request, next: Next) -> Response {
    let hosts = check_host(&request);
    let (request, body) = unread_body::watch_body(request);
    let mut response = match hosts {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            // The body is not read from here on.
            drop(request);
            problem.into_response()
        }
    };
    if !body.finish_body().await {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Requires exactly one Host header and refuses others with 400 (RFC 9112, 3.2). A proxy in between could read another
/// one.
fn check_host(request: &Request) -> Result<(), Problem> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts == 1 || (hosts == 0 && request.version() != Version::HTTP_11) {
        return Ok(());
    }
    let detail = format!("HTTP/1.1 needs one Host header, but the request has {hosts}");
    Err(Problem::new(ErrorKind::HostInvalid, detail).try_next("send `Host: <name>` once"))
}

/// Whether an id is printable ASCII without quotes: it is copied unchanged into headers, logs and the audit log.
fn is_request_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b);
    !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.bytes().all(plain)
}

/// Whether a value has the form `00-<32 hex>-<16 hex>-<2 hex>`.
fn is_traceparent(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    lengths == [2, 32, 16, 2] && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// Writes the body of an error, and logs what a 500 hides.
fn finish_error(
    mut response: Response,
    context: &RequestContext,
    reader: ErrorAudience,
    listener: ListenerKind,
) -> Response {
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
    let mut body = problem.problem_body(context.request_id(), reader);
    if listener == ListenerKind::Admin && status.is_client_error() && body.next_steps.is_empty() {
        body.next_steps.push(format!("fleetctl explain {}", body.code));
    }
    let body = serde_json::to_vec(&body).expect("a problem is plain JSON");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    headers.remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body);
    response
}

/// Marks an error response that has a body of its own, such as a probe that says which check failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnBody;

fn is_problem(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE) == Some(&PROBLEM_JSON)
}

/// Logs the cause of a failed request. No other code does.
fn log_fault(problem: &Problem, context: &RequestContext) {
    let error = problem.as_error();
    let cause = error.cause_messages().join(": ");
    match problem.http_status() {
        StatusCode::INTERNAL_SERVER_ERROR => {
            tracing::error!(request_id = context.request_id(), code = %error.code(), detail = %error.detail, cause, "fault")
        }
        _ => {
            tracing::warn!(request_id = context.request_id(), code = %error.code(), detail = %error.detail, cause, "refused")
        }
    }
}

/// Adds security headers. Responses contain fleet or tenant data, so no cache may store them, and no browser may guess
/// their type or frame them.
fn harden_headers(headers: &mut HeaderMap) {
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
}

fn measure_request(listener: ListenerKind, method: &Method, response: &Response, took: Duration) {
    let method = METHODS.iter().position(|known| *known == method.as_str());
    match (method, response.status().as_u16()) {
        // Nearly every response. Its counter is looked up once.
        (Some(at), 200) => counter_of_success(listener, at).increment(1),
        (at, status) => request_counter(listener, at.map_or("other", |at| METHODS[at]), status).increment(1),
    }
    duration_histogram(listener).record(took);
}

fn request_counter(listener: ListenerKind, method: &'static str, status: u16) -> Counter {
    let labels =
        [("listener", listener.as_str().to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
    metrics::counter!(HTTP_REQUESTS, &labels)
}

fn counter_of_success(listener: ListenerKind, method: usize) -> &'static Counter {
    static COUNTERS: [[OnceLock<Counter>; METHODS.len()]; 2] =
        [const { [const { OnceLock::new() }; METHODS.len()] }; 2];
    COUNTERS[listener as usize][method].get_or_init(|| request_counter(listener, METHODS[method], 200))
}

fn duration_histogram(listener: ListenerKind) -> &'static Histogram {
    static DURATIONS: [OnceLock<Histogram>; 2] = [const { OnceLock::new() }; 2];
    let look_up = || metrics::histogram!(HTTP_SECONDS, "listener" => listener.as_str());
    DURATIONS[listener as usize].get_or_init(look_up)
}

/// The methods that metrics name. Callers can invent methods, and metrics must not grow with them.
const METHODS: [&str; 6] = ["GET", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// One line per request: caller, route and result. It never contains a query string, header, body or parameter.
fn log_request(
    listener: ListenerKind,
    method: &Method,
    path: &str,
    response: &Response,
    context: &RequestContext,
    took: Duration,
) {
    let facts = context.log_fields();
    tracing::info!(
        target: "access",
        listener = listener.as_str(),
        request_id = context.request_id(),
        method = method.as_str(),
        path,
        status = response.status().as_u16(),
        duration_ms = took.as_secs_f64() * 1_000.0,
        tenant_id = facts.tenant.as_deref().unwrap_or("-"),
        principal = facts.principal.as_deref().unwrap_or("-"),
        "request"
    );
}

/// The response for a panic in a handler. The panic hook has already printed the message.
pub(crate) fn panic_response(_payload: Box<dyn Any + Send + 'static>) -> Response {
    metrics::counter!(HTTP_PANICS).increment(1);
    Problem::new(ErrorKind::Internal, "a handler panicked").into_response()
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
