//! Admits requests to the admin API: who the caller is, and whether they may call the route.
//!
//! This layer sits directly around the matched route. It authenticates the caller, asks [`crate::auth::policy`], and
//! leaves an [`AdmittedCaller`] for the handler. A handler that takes an `AdmittedCaller` cannot run without one.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use catalog::TenantId;
use catalog::events::NewEvent;
use catalog::tokens::OperatorRole;

use super::ApiState;
use super::error::{Problem, Result, of_status, too_large};
use super::extract::{in_time, text_header};
use super::middleware::RequestContext;
use crate::auth::operator::InProcess;
use crate::auth::policy::{AccessDecision, RouteRule, decide_access, methods_of, rule_of};
use crate::error::ErrorKind;
use crate::runner::submit;

/// Maximum size of a body that is read to find `dry_run`. It is read before the route's own limit applies.
const PEEK_BYTES_MAX: usize = 32 << 20;

/// The operator behind a request.
#[derive(Debug, Clone)]
pub(crate) struct AdmittedCaller {
    /// The operator as the audit log names them.
    pub(crate) who: submit::AuditCaller,
}

impl AdmittedCaller {
    /// An event of this caller's request.
    pub(crate) fn caller_event(
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

impl<S: Send + Sync> FromRequestParts<S> for AdmittedCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Problem::new(ErrorKind::Internal, "a route is registered outside the admission"))
    }
}

/// The middleware that admits a request.
pub(crate) async fn admit_request(State(api): State<ApiState>, request: Request, next: Next) -> Result<Response> {
    let context = request.extensions().get::<RequestContext>().cloned();
    let context = context.expect("the outermost middleware sets it");
    let (in_process, authorization) =
        (request.extensions().get::<InProcess>(), authorization_header(request.headers()));
    let operator = match in_process {
        Some(principal) => principal.as_operator(),
        // Only the text, because a request must not be held across an await.
        None => {
            let authorization = authorization.map(str::to_owned);
            api.operators.authenticate_header(&api.app.catalog, authorization.as_deref()).await?
        }
    };
    context.set_principal(&operator.actor);
    let template = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let rule = rule_of(request.method().as_str(), &template);
    if let (None, known @ [_, ..]) = (rule, methods_of(&template).as_slice()) {
        return Ok(method_not_allowed(known));
    }
    let mut request = match decide_access(rule, operator.role) {
        AccessDecision::Allow => request,
        AccessDecision::AllowDryRun => only_dry_run(request, rule, operator.role).await?,
        AccessDecision::Refuse => return Err(role_forbidden(rule, operator.role)),
    };
    let who =
        submit::AuditCaller { actor: operator.actor, request_id: Some(context.request_id().to_owned()), once: None };
    request.extensions_mut().insert(AdmittedCaller { who });
    Ok(next.run(request).await)
}

/// The only Authorization header. Two count as none, because programs differ in which one they read.
fn authorization_header(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    all.next().filter(|_| all.next().is_none())?;
    text_header(headers, header::AUTHORIZATION.as_str())
}

/// Lets the request pass if its body or query asks for a plan only.
async fn only_dry_run(request: Request, rule: Option<&RouteRule>, role: OperatorRole) -> Result<Request> {
    let (parts, body) = request.into_parts();
    let body = in_time(to_bytes(body, PEEK_BYTES_MAX)).await?.map_err(|_| too_large())?;
    let asked = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let in_body = asked.and_then(|json| json.get("dry_run").and_then(serde_json::Value::as_bool)) == Some(true);
    // As the query extractor reads it: exactly this spelling. The extractor refuses a second one.
    let in_query = parts.uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "dry_run=true"));
    let dry_run = if parts.method == Method::DELETE { in_query } else { in_body };
    if !dry_run {
        return Err(role_forbidden(rule, role).try_next("send \"dry_run\": true to see the plan"));
    }
    Ok(Request::from_parts(parts, Body::from(body)))
}

/// Answered here: a method without a rule goes no further, even to be called unknown.
fn method_not_allowed(known: &[&str]) -> Response {
    let mut response = of_status(StatusCode::METHOD_NOT_ALLOWED).into_response();
    let allow = HeaderValue::from_str(&known.join(", ")).expect("methods are ASCII");
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

/// The refusal of a role: the route, the role that it needs, and who can grant it.
fn role_forbidden(rule: Option<&RouteRule>, role: OperatorRole) -> Problem {
    let role = role.as_str();
    let Some(rule) = rule else {
        let detail = format!("the role {role} may not do this, and no other role may");
        return Problem::new(ErrorKind::Forbidden, detail);
    };
    let needed = rule.role.as_str();
    let detail = format!("{} {} needs the role {needed}; this token has the role {role}", rule.method, rule.path);
    Problem::new(ErrorKind::Forbidden, detail)
        .try_next(format!("ask an admin for a token: fleetctl token create --operator {needed}"))
}
