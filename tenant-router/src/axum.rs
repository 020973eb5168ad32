//! The only file that knows HTTP: the extractor, and the answers as `application/problem+json`.
//!
//! `Tenant<Read>`, `Tenant<Write>` and `Tenant<Manage>` are extractors for any state from which a [`Router`] can be had.

use ::axum::extract::{FromRef, FromRequestParts, Request};
use ::axum::middleware::Next;
use ::axum::response::{IntoResponse, Response};
use http::request::Parts;

use crate::error::Error;
use crate::router::Router;
use crate::tenant::{Level, Tenant};

impl<A: Level, S> FromRequestParts<S> for Tenant<A>
where
    Router: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Error;

    async fn from_request_parts(_parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        todo!()
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        todo!()
    }
}

/// A middleware for every route that takes a tenant: answers are `Cache-Control: private, no-store`, and errors name the
/// request: `.layer(axum::middleware::from_fn(tenant_router::axum::answers))`.
pub async fn answers(_request: Request, _next: Next) -> Response {
    todo!()
}
