//! `/v1/tenants/{tenant}/members`: the members of a tenant and their roles.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use catalog::members::{self, Role};
use catalog::{TenantState, events};
use fleet_api::changes::{ChangeOptions, PlannedChange};
use fleet_api::members::{MemberListQuery, MemberView, NewMember};
use fleet_api::pages::PageOf;
use fleet_api::problem::ProblemBody;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{CatalogChange, check_reason, finish_change};
use super::lookup;
use crate::error::ErrorKind;
use crate::http::ApiState;
use crate::http::admin::words::{parse_choice, word_of};
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams};
use crate::http::pages::PageWindow;
use crate::time_text;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_members, add_member)).routes(routes!(remove_member))
}

fn member_view(member: members::MemberRecord, tenant: &str) -> MemberView {
    MemberView {
        tenant: tenant.to_owned(),
        tenant_id: member.tenant_id.to_string(),
        principal: member.principal,
        role: word_of(&member.role),
        created_at: time_text::format_time(member.created_at),
    }
}

/// List the members of a tenant, ordered by principal.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/members", tag = "members", params(("tenant" = String, Path, description = "Name or id of the tenant"), MemberListQuery),
    responses((status = 200, description = "One page of the list", body = PageOf<MemberView>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_members(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    QueryParams(part): QueryParams<MemberListQuery>,
) -> Result<JsonBody<PageOf<MemberView>>> {
    let mut tx = api.app.catalog.read().await?;
    let tenant = lookup::find_tenant(&mut tx, &name).await?;
    let window = PageWindow::open_window(&api, &caller, "members", &tenant.id, (part.limit, part.cursor.as_deref()))?;
    let after: Option<String> = window.after_key()?;
    let rows = members::list_members(&mut tx, tenant.id, after.as_deref(), window.rows_to_read()).await?;
    Ok(JsonBody(window.into_page(rows, |row| row.principal.clone(), |row| member_view(row, &tenant.name))))
}

/// Add a member to a tenant, or change the role of a member.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/members", tag = "members", request_body = NewMember, params(("tenant" = String, Path, description = "Name or id of the tenant")),
    responses((status = 201, description = "The member that was added or changed", body = MemberView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn add_member(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    JsonBody(new): JsonBody<NewMember>,
) -> Result<Response> {
    let role: Role = parse_choice("role", &new.role)?;
    check_principal(&new.principal)?;
    check_reason(new.reason.as_deref())?;
    let mut tx = api.app.catalog.write().await?;
    let tenant = lookup::find_tenant(&mut tx, &name).await?;
    if matches!(tenant.state, TenantState::Deleted | TenantState::Purged) {
        return Err(Problem::new(ErrorKind::Conflict, "a deleted tenant cannot get members"));
    }
    let member = members::set_member(&mut tx, tenant.id, &new.principal, role).await?;
    let data = serde_json::json!({ "principal": new.principal, "role": role });
    let event = caller.caller_event("member.set", Some(tenant.id), data, new.reason.as_deref());
    events::append_events(&mut tx, &[event]).await?;
    let action = format!("'{}' would be a member", lookup::display_safe(&new.principal));
    let change = CatalogChange { kind: "member.set", tenant: Some(tenant.name.clone()), action };
    finish_change(tx, &caller, new.dry_run, change, (StatusCode::CREATED, JsonBody(member_view(member, &tenant.name))))
        .await
}

/// Remove a member from a tenant.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/members/{principal}", tag = "members",
    params(("tenant" = String, Path, description = "Name or id of the tenant"), ("principal" = String, Path, description = "Principal of the member"), ChangeOptions),
    responses((status = 204, description = "The member was removed"), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = 404, description = "No tenant has this name or id, or it has no such member", body = ProblemBody)))]
async fn remove_member(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams((name, principal)): PathParams<(String, String)>,
    QueryParams(wish): QueryParams<ChangeOptions>,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let mut tx = api.app.catalog.write().await?;
    let tenant = lookup::find_tenant(&mut tx, &name).await?;
    members::remove_member(&mut tx, tenant.id, &principal).await?;
    let data = serde_json::json!({ "principal": principal });
    let event = caller.caller_event("member.removed", Some(tenant.id), data, wish.reason.as_deref());
    events::append_events(&mut tx, &[event]).await?;
    let action = format!("'{}' would no longer be a member", lookup::display_safe(&principal));
    let change = CatalogChange { kind: "member.removed", tenant: Some(tenant.name), action };
    finish_change(tx, &caller, wish.dry_run, change, StatusCode::NO_CONTENT).await
}

/// Refuses a principal with several lines, because lists and logs show it.
pub(crate) fn check_principal(principal: &str) -> Result<()> {
    let fits = (1..=256).contains(&principal.len()) && !principal.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(Problem::invalid("principal: expected 1 to 256 bytes without control characters")) }
}
