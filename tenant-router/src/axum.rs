//! The only module that knows HTTP: the extractors, and errors as `application/problem+json` (RFC 9457).
//!
//! `Tenant<Read>`, `Tenant<Write>` and `Tenant<Manage>` are extractors for any state that contains a [`Router`].
//! Handlers may return [`Error`] unchanged. An application with its own login puts an `Arc<Principal>` into the
//! request's extensions before the extractor runs. The extractor then ignores bearer tokens.

use std::sync::Arc;

use ::axum::body::Body;
use ::axum::extract::{FromRef, FromRequestParts, OriginalUri, Request};
use ::axum::middleware::Next;
use ::axum::response::{IntoResponse, Response};
use http::header::{self, AsHeaderName, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::error::{Error, ErrorKind};
use crate::key::{RequestView, TENANT_HEADER};
use crate::principal::Principal;
use crate::router::Router;
use crate::tenant::{AccessLevel, Tenant};

/// Identifies a request in the log. Taken from the client, or made here.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer request ids are replaced, because they appear in every line of the log.
const REQUEST_ID_BYTES_MAX: usize = 128;

impl<A: AccessLevel, S> FromRequestParts<S> for Tenant<A>
where
    Router: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let router = Router::from_ref(state);
        let request = request_view(parts)?;
        match parts.extensions.get::<Arc<Principal>>() {
            Some(principal) => router.open_as(Arc::clone(principal), &request).await,
            None => router.open(&request).await,
        }
    }
}

/// The parts of an HTTP request that name the tenant and the caller, for applications that call [`Router::open`]
/// themselves.
///
/// # Errors
/// [`ErrorKind::TenantAmbiguous`] when the host or the tenant header is present twice,
/// [`ErrorKind::TenantNameInvalid`] when either is not text.
pub fn request_view(parts: &Parts) -> Result<RequestView<'_>, ErrorKind> {
    // A nested router sees only the rest of the path, but the full path names the tenant.
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    Ok(RequestView {
        credential: bearer_token(&parts.headers),
        path: uri.path(),
        host: request_host(uri, &parts.headers)?,
        tenant_header: single_header(&parts.headers, TENANT_HEADER)?,
    })
}

/// The token of the only `Authorization: Bearer` header. Two such headers prove no principal.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = single_header(headers, header::AUTHORIZATION).ok()??;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// The host of the request line (HTTP/2, proxies) or of the Host header. If both are present, they must agree.
fn request_host<'a>(uri: &'a http::Uri, headers: &'a HeaderMap) -> Result<Option<&'a str>, ErrorKind> {
    let authority = uri.authority().map(http::uri::Authority::as_str);
    match (authority, single_header(headers, header::HOST)?) {
        (Some(line), Some(header)) if !line.eq_ignore_ascii_case(header) => Err(ErrorKind::TenantAmbiguous),
        (line, header) => Ok(line.or(header)),
    }
}

fn single_header(headers: &HeaderMap, name: impl AsHeaderName) -> Result<Option<&str>, ErrorKind> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ErrorKind::TenantNameInvalid),
        (Some(_), Some(_)) => Err(ErrorKind::TenantAmbiguous),
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

/// A middleware for every route that takes a tenant. It forbids storing the answers and adds the request's id to
/// errors.
///
/// `.layer(axum::middleware::from_fn(tenant_router::axum::answers))`
pub async fn answers(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions().get::<Arc<Error>>() {
        response = problem_response(error, &id);
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

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
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    if error.kind() == ErrorKind::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
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
