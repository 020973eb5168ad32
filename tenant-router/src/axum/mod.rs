//! The only module that knows HTTP: the extractors, the middleware [`answers`], and errors as `application/problem+json`
//! (RFC 9457).
//!
//! `Tenant<Read>`, `Tenant<Write>` and `Tenant<Manage>` are extractors for any state that contains a [`Router`].
//! Handlers may return [`Error`] unchanged. An application with its own login puts an `Arc<Principal>` into the
//! request's extensions before the extractor runs. The extractor then ignores bearer tokens.

use std::sync::Arc;

use ::axum::extract::{FromRef, FromRequestParts, OriginalUri};
use http::HeaderMap;
use http::header::{self, AsHeaderName};
use http::request::Parts;

use crate::error::{Error, ErrorKind};
use crate::key::{RequestView, TENANT_HEADER};
use crate::principal::Principal;
use crate::router::Router;
use crate::tenant::{AccessLevel, Tenant};
use crate::webhooks::WebhookHeaders;

mod access_log;
mod client_address;
mod event_stream;
mod realtime;
mod responses;
mod websocket;

pub use client_address::{ClientAddress, ProxyInvalid, TrustedProxies, client_address};
pub use realtime::RealtimeRequest;
pub use responses::{PublicAnswer, answers};

impl<A: AccessLevel, S> FromRequestParts<S> for Tenant<A>
where
    Router: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let router = Router::from_ref(state);
        let request = request_view(parts)?;
        let tenant: Self = match parts.extensions.get::<Arc<Principal>>() {
            Some(principal) => router.open_as(Arc::clone(principal), &request).await?,
            None => router.open(&request).await?,
        };
        access_log::name_tenant(&parts.extensions, &tenant);
        responses::name_rate(&parts.extensions, tenant.rate_state());
        Ok(tenant)
    }
}

impl WebhookHeaders for HeaderMap {
    fn header(&self, name: &str) -> Option<&str> {
        single_header(self, name).ok().flatten()
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
