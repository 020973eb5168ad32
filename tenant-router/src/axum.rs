//! The only file that knows HTTP: the extractors, and errors as `application/problem+json` (RFC 9457).
//!
//! `Tenant<Read>`, `Tenant<Write>` and `Tenant<Manage>` are extractors for any state from which a [`Router`] can be had.
//! Handlers may return [`Error`] as it is. An application with its own login puts an `Arc<Principal>` into the request's
//! extensions before the extractor runs; then no bearer token is looked at.

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
use crate::tenant::{Level, Tenant};

/// Names a request in the log; accepted from the client, else made here.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer request ids are replaced: they go into every line of the log.
const REQUEST_ID_BYTES_MAX: usize = 128;

impl<A: Level, S> FromRequestParts<S> for Tenant<A>
where
    Router: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let router = Router::from_ref(state);
        let request = view(parts)?;
        match parts.extensions.get::<Arc<Principal>>() {
            Some(principal) => router.open_as(Arc::clone(principal), &request).await,
            None => router.open(&request).await,
        }
    }
}

/// What of an HTTP request names the tenant and the caller, for applications that call [`Router::open`] themselves.
///
/// # Errors
/// [`ErrorKind::TenantAmbiguous`] when the host or the tenant header is there twice,
/// [`ErrorKind::TenantNameInvalid`] when one is not text.
pub fn view(parts: &Parts) -> Result<RequestView<'_>, ErrorKind> {
    // A nested router sees the rest of the path only; the tenant is named in the whole one.
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    Ok(RequestView {
        credential: bearer(&parts.headers),
        path: uri.path(),
        host: host(uri, &parts.headers)?,
        tenant_header: only(&parts.headers, TENANT_HEADER)?,
    })
}

/// The token of the only `Authorization: Bearer` header; two of them prove nobody.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = only(headers, header::AUTHORIZATION).ok()??;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// The host of the request line (HTTP/2, proxies) or of the Host header; if both are there, they must agree.
fn host<'a>(uri: &'a http::Uri, headers: &'a HeaderMap) -> Result<Option<&'a str>, ErrorKind> {
    let authority = uri.authority().map(http::uri::Authority::as_str);
    match (authority, only(headers, header::HOST)?) {
        (Some(line), Some(header)) if !line.eq_ignore_ascii_case(header) => Err(ErrorKind::TenantAmbiguous),
        (line, header) => Ok(line.or(header)),
    }
}

fn only(headers: &HeaderMap, name: impl AsHeaderName) -> Result<Option<&str>, ErrorKind> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ErrorKind::TenantNameInvalid),
        (Some(_), Some(_)) => Err(ErrorKind::TenantAmbiguous),
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        log(&self);
        let error = Arc::new(self);
        let mut response = problem(&error, &new_request_id());
        // So that `answers` can write it again with the request's own id.
        response.extensions_mut().insert(error);
        response
    }
}

/// A middleware for every route that takes a tenant: nothing may store the answers, and errors carry the request's id.
///
/// `.layer(axum::middleware::from_fn(tenant_router::axum::answers))`
pub async fn answers(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions().get::<Arc<Error>>() {
        response = problem(error, &id);
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// The answer for an error. Everything in it comes from the kind of error, the caller's own statement and the id.
fn problem(error: &Error, request_id: &str) -> Response {
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

/// The log alone learns the cause, and only of what is our trouble.
fn log(error: &Error) {
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
