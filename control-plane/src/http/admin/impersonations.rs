//! `/v1/tenants/{tenant}/impersonations`: tickets for operators who act as a member of a tenant.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use catalog::tokens::{self, Impersonation, TokenScope};
use catalog::{events, members};
use fleet_api::changes::PlannedChange;
use fleet_api::impersonations::{ImpersonationRequest, ImpersonationTicket};
use fleet_api::problem::ProblemBody;
use secrecy::ExposeSecret;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{CatalogChange, check_reason, finish_change};
use super::lookup;
use super::members::check_principal;
use crate::error::ErrorKind;
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams};
use crate::time_text;

/// How long a ticket can be exchanged, in milliseconds.
const TICKET_MS: i64 = 60_000;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(request_impersonation))
}

/// Make a ticket to act as a member of a tenant.
///
/// The application exchanges the ticket within a minute for a session with the rights of the member. The tenant sees the
/// request, its reason and the session in its audit log.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/impersonations", tag = "members", request_body = ImpersonationRequest, params(("tenant" = String, Path, description = "Name or id of the tenant")),
    responses((status = 201, description = "The ticket", body = ImpersonationTicket), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn request_impersonation(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    JsonBody(wanted): JsonBody<ImpersonationRequest>,
) -> Result<Response> {
    check_principal(&wanted.member)?;
    check_reason(wanted.reason.as_deref())?;
    if wanted.reason.as_deref().is_none_or(|reason| reason.trim().is_empty()) {
        return Err(Problem::invalid("reason: say why you act as a member; the tenant sees it"));
    }
    let mut tx = api.app.catalog.write().await?;
    let tenant = lookup::find_tenant(&mut tx, &name).await?;
    if members::member_role(&mut tx, tenant.id, &wanted.member).await?.is_none() {
        let detail = format!("'{}' is not a member of {}", lookup::display_safe(&wanted.member), tenant.name);
        return Err(Problem::new(ErrorKind::NotFound, detail));
    }
    let staff = caller.who.actor.clone();
    let of = Impersonation { tenant: tenant.id, principal: wanted.member.clone(), staff: staff.clone() };
    let expires_at = tx.now() + TICKET_MS;
    let (token, secret) =
        tokens::create_token(&mut tx, TokenScope::ImpersonationTicket(of), None, Some(expires_at)).await?;
    let data = serde_json::json!({ "on_behalf_of": wanted.member, "token": token.id });
    let event = caller.caller_event("impersonation.requested", Some(tenant.id), data, wanted.reason.as_deref());
    events::append_events(&mut tx, &[event]).await?;
    let action = format!("you could act as '{}'", lookup::display_safe(&wanted.member));
    let change = CatalogChange { kind: "impersonation.requested", tenant: Some(tenant.name.clone()), action };
    let made = ImpersonationTicket {
        tenant: tenant.name,
        member: wanted.member,
        staff,
        ticket: secret.expose_secret().to_owned(),
        expires_at: time_text::format_time(expires_at),
    };
    finish_change(tx, &caller, wanted.dry_run, change, (StatusCode::CREATED, JsonBody(made))).await
}
