//! Who calls the admin API, and whether the route is theirs to call.
//!
//! Sits directly around the matched route: authenticates, asks [`crate::auth::policy`], and leaves a [`Caller`] for the
//! handler. A handler that takes a `Caller` cannot run without one.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use catalog::TenantId;
use catalog::events::NewEvent;
use catalog::tokens::OperatorRole;

use super::Api;
use super::error::{Problem, Result, of_status, too_large};
use super::extract::{in_time, text_header};
use super::middleware::RequestContext;
use crate::auth::operator::InProcess;
use crate::auth::policy::{Decision, decide, methods_of, rule_of};
use crate::runner::submit;

/// A dry run's body is read before the route's own limit applies.
const PEEK_BYTES_MAX: usize = 32 << 20;

/// The operator behind a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// As the audit log names them.
    pub(crate) who: submit::Caller,
}

impl Caller {
    /// An event of this caller's request.
    pub(crate) fn event(
        &self,
        kind: &str,
        tenant_id: Option<TenantId>,
        mut data: serde_json::Value,
        reason: Option<&str>,
    ) -> NewEvent {
        if let Some(reason) = reason {
            data["reason"] = reason.into();
        }
        NewEvent {
            kind: kind.to_owned(),
            actor: self.who.actor.clone(),
            tenant_id,
            op_id: None,
            request_id: self.who.request_id.clone(),
            data,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "a route is registered outside the admission")
        })
    }
}

/// The middleware.
pub(crate) async fn admit(State(api): State<Api>, request: Request, next: Next) -> Result<Response> {
    let context = request.extensions().get::<RequestContext>().cloned();
    let context = context.expect("the outermost middleware sets it");
    let (in_process, authorization) = (request.extensions().get::<InProcess>(), authorization(request.headers()));
    let operator = match in_process {
        Some(principal) => principal.operator(),
        // The text, not the request: a request is not to be held across an await.
        None => {
            let authorization = authorization.map(str::to_owned);
            api.operators.authenticate(&api.app.catalog, authorization.as_deref()).await?
        }
    };
    context.set_principal(&operator.actor);
    let template = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let rule = rule_of(request.method().as_str(), &template);
    if let (None, known @ [_, ..]) = (rule, methods_of(&template).as_slice()) {
        return Ok(method_not_allowed(known));
    }
    let mut request = match decide(rule, operator.role) {
        Decision::Allow => request,
        Decision::AllowDryRun => only_dry_run(request, operator.role).await?,
        Decision::Refuse => return Err(forbidden(operator.role)),
    };
    let who = submit::Caller { actor: operator.actor, request_id: Some(context.id().to_owned()), once: None };
    request.extensions_mut().insert(Caller { who });
    Ok(next.run(request).await)
}

/// The one Authorization header; two are none, because who reads which is anybody's guess.
fn authorization(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    all.next().filter(|_| all.next().is_none())?;
    text_header(headers, header::AUTHORIZATION.as_str())
}

/// Lets the request through if its body asks for a plan only.
async fn only_dry_run(request: Request, role: OperatorRole) -> Result<Request> {
    let (parts, body) = request.into_parts();
    let body = in_time(to_bytes(body, PEEK_BYTES_MAX)).await?.map_err(|_| too_large())?;
    let asked = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let in_body = asked.and_then(|json| json.get("dry_run").and_then(serde_json::Value::as_bool)) == Some(true);
    // As the query extractor reads it: exactly this spelling, and a second one is refused there.
    let in_query = parts.uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "dry_run=true"));
    let dry_run = if parts.method == Method::DELETE { in_query } else { in_body };
    if !dry_run {
        return Err(forbidden(role).try_next("send \"dry_run\": true to see the plan"));
    }
    Ok(Request::from_parts(parts, Body::from(body)))
}

/// Answered here: what has no rule goes no further, not even to be told that it is unknown.
fn method_not_allowed(known: &[&str]) -> Response {
    let mut response = of_status(StatusCode::METHOD_NOT_ALLOWED).into_response();
    let allow = HeaderValue::from_str(&known.join(", ")).expect("methods are ASCII");
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

fn forbidden(role: OperatorRole) -> Problem {
    let role = match role {
        OperatorRole::Viewer => "viewer",
        OperatorRole::Operator => "operator",
        OperatorRole::Admin => "admin",
    };
    Problem::new(StatusCode::FORBIDDEN, "forbidden", format!("the role {role} may not do this"))
        .try_next("use a token of a higher role: `fleetctl token create --operator admin`")
}
