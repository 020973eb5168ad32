//! The answers: errors as problems, the headers against shared caches, and the middleware that adds both.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::axum::body::Body;
use ::axum::extract::Request;
use ::axum::middleware::Next;
use ::axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName};
use http::{Extensions, HeaderMap, HeaderValue, StatusCode};

use super::access_log::RequestLog;
use crate::error::{Error, ErrorKind};
use crate::limits::RateState;

/// Identifies a request in the log. Taken from the client, or made here.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer request ids are replaced, because they appear in every line of the log.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// An answer that browsers and shared caches may keep for this time, and give to every caller.
///
/// Without this type, [`answers`] forbids to keep an answer. Use it for data that every visitor may see, such as a logo. The
/// URL must name the tenant, by its path or host, because a shared cache finds the answer by the URL alone.
#[derive(Debug, Clone)]
pub struct PublicAnswer<R> {
    /// The answer.
    pub answer: R,
    /// How long it may be kept.
    pub age_max: Duration,
}

/// How long an answer may be kept, beside the answer.
#[derive(Debug, Clone, Copy)]
struct PublicAge(Duration);

impl<R: IntoResponse> IntoResponse for PublicAnswer<R> {
    fn into_response(self) -> Response {
        let mut response = self.answer.into_response();
        response.extensions_mut().insert(PublicAge(self.age_max));
        response
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        log_error(&self);
        let error = Arc::new(self);
        let mut response = problem_response(&error, &new_request_id());
        // Stored so that `answers` can write the response again with the request's own id.
        response.extensions_mut().insert(error);
        response
    }
}

/// A middleware for every route that takes a tenant:
///
/// - It forbids storing the answers, except those of the type [`PublicAnswer`].
/// - It adds the request's id to errors, and to a header of each answer.
/// - Every line of the log has the request's id, the tenant's id and the principal. One line tells the result of the
///   request. No line contains a path, a parameter or a secret.
///
/// `.layer(axum::middleware::from_fn(tenant_router::axum::answers))`
pub async fn answers(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let rate = RateCell::default();
    request.extensions_mut().insert(rate.clone());
    let mut response = RequestLog::new(&id, &request).follow_request(request, next).await;
    if let Some(rate) = rate.0.get() {
        add_rate_headers(response.headers_mut(), *rate);
    }
    if let Some(error) = response.extensions().get::<Arc<Error>>() {
        response = problem_response(error, &id);
    }
    let cache_control = cache_control(&response);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, cache_control);
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// The rate of the request's tenant, from the extractor to the answer.
#[derive(Debug, Clone, Default)]
struct RateCell(Arc<OnceLock<RateState>>);

/// Tells the answer the rate of the tenant's plan.
pub(super) fn name_rate(extensions: &Extensions, rate: Option<RateState>) {
    if let (Some(RateCell(cell)), Some(rate)) = (extensions.get(), rate) {
        // A second tenant of one request does not replace the first one's rate.
        let _ = cell.set(rate);
    }
}

fn add_rate_headers(headers: &mut HeaderMap, rate: RateState) {
    for (name, value) in rate.headers() {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Only a success may be kept: an error may be true for one caller alone.
fn cache_control(response: &Response) -> HeaderValue {
    let public = response.extensions().get::<PublicAge>().filter(|_| response.status().is_success());
    let text = public.map(|PublicAge(age)| format!("public, max-age={}", age.as_secs()));
    text.and_then(|text| HeaderValue::from_str(&text).ok()).unwrap_or(NOT_KEPT)
}

const NOT_KEPT: HeaderValue = HeaderValue::from_static("private, no-store");

/// The response for an error. It contains only the kind of error, the error of the caller's own statement, and the id.
fn problem_response(error: &Error, request_id: &str) -> Response {
    let body = serde_json::json!({
        "type": format!("urn:fleet:problem:{}", error.code()),
        "title": error.kind().title(),
        "status": error.status(),
        "detail": error.detail(),
        "instance": format!("urn:fleet:request:{request_id}"),
        "code": error.code(),
        "request_id": request_id,
        "next_steps": error.kind().next_steps(),
    });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, NOT_KEPT);
    if error.kind() == ErrorKind::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(rate) = error.rate_state() {
        add_rate_headers(headers, rate);
    }
    if let Some(after) = error.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    response
}

/// Only the log gets the cause, and only for errors that are not the caller's fault.
fn log_error(error: &Error) {
    if error.status() >= 500 {
        let source = std::error::Error::source(error).map(tracing::field::display);
        tracing::warn!(code = error.code(), source, "a request to a tenant failed");
    }
}

fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()))
        .map_or_else(new_request_id, str::to_owned)
}

fn new_request_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}
