//! What the log knows of a request: a span with its id, its tenant and its principal, and one line at its end.

use std::time::Instant;

use ::axum::extract::{MatchedPath, Request};
use ::axum::middleware::Next;
use ::axum::response::Response;
use http::{Extensions, Method};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::client_address::ClientAddress;
use crate::tenant::{AccessLevel, Tenant};

/// The span of a request, for the extractor of a tenant.
#[derive(Debug, Clone)]
struct RequestSpan(Span);

/// The log of one request.
pub(super) struct RequestLog {
    span: Span,
    began: Instant,
    method: Method,
    /// The pattern of the route. The path itself may contain data of a customer.
    route: Option<MatchedPath>,
}

impl RequestLog {
    pub(super) fn new(id: &str, request: &Request) -> Self {
        // A span of the highest level: lines of every level have its fields, also if the log has errors only.
        let span = tracing::error_span!(
            "request",
            request_id = id,
            client = Empty,
            tenant = Empty,
            principal = Empty,
            on_behalf_of = Empty
        );
        if let Some(ClientAddress(client)) = request.extensions().get() {
            span.record("client", tracing::field::display(client));
        }
        let route = request.extensions().get::<MatchedPath>().cloned();
        Self { span, began: Instant::now(), method: request.method().clone(), route }
    }

    /// Runs the request inside the span, and writes its line.
    pub(super) async fn follow_request(self, mut request: Request, next: Next) -> Response {
        request.extensions_mut().insert(RequestSpan(self.span.clone()));
        let response = next.run(request).instrument(self.span.clone()).await;
        let _entered = self.span.enter();
        tracing::info!(
            method = %self.method,
            route = self.route.as_ref().map(MatchedPath::as_str),
            status = response.status().as_u16(),
            duration_ms = self.began.elapsed().as_secs_f64() * 1_000.0,
            "request"
        );
        response
    }
}

/// Adds the tenant and its caller to the span of the request.
pub(super) fn name_tenant<A: AccessLevel>(extensions: &Extensions, tenant: &Tenant<A>) {
    if let Some(RequestSpan(span)) = extensions.get() {
        span.record("tenant", tracing::field::display(tenant.id()));
        let principal = tenant.principal();
        span.record("principal", principal.staff().unwrap_or(principal.name()));
        if principal.staff().is_some() {
            span.record("on_behalf_of", principal.name());
        }
    }
}
