//! `/v1/tenants/{tenant}/members`: who may do what in a tenant.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use catalog::members::{self, Role};
use catalog::{TenantState, events};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{Change, Planned, Wish, check_reason, settle};
use super::lookup;
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{Json, Path, Query};
use crate::http::number::Limit;
use crate::http::pages::{PageOf, Window};
use crate::http::{Api, time};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(remove))
}

/// A member of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Member {
    /// The tenant's name.
    tenant: String,
    /// The tenant's id.
    tenant_id: String,
    /// The application's own name for a person or program.
    principal: String,
    /// reader, writer or manager.
    #[schema(value_type = String)]
    role: Role,
    /// RFC 3339.
    created_at: String,
}

impl Member {
    fn new(member: members::Member, tenant: &str) -> Self {
        Self {
            tenant: tenant.to_owned(),
            tenant_id: member.tenant_id.to_string(),
            principal: member.principal,
            role: member.role,
            created_at: time::text(member.created_at),
        }
    }
}

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Part {
    /// 1 to 1000; 100 unless given.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<Limit>,
    /// From the page before.
    cursor: Option<String>,
}

/// The members of a tenant, by principal.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/members", tag = "members", params(("tenant" = String, Path, description = "Name or id"), Part),
    responses((status = 200, description = "A page", body = PageOf<Member>), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn list(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Query(part): Query<Part>,
) -> Result<Json<PageOf<Member>>> {
    let mut tx = api.app.catalog.read().await?;
    let tenant = lookup::tenant(&mut tx, &name).await?;
    let window = Window::open(&api, &caller, "members", &tenant.id, (part.limit, part.cursor.as_deref()))?;
    let after: Option<String> = window.after()?;
    let rows = members::page(&mut tx, tenant.id, after.as_deref(), window.rows()).await?;
    Ok(Json(window.page(rows, |row| row.principal.clone(), |row| Member::new(row, &tenant.name))))
}

/// Who shall be a member.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewMember {
    /// The application's own name for a person or program; 1 to 256 bytes without control characters.
    principal: String,
    /// reader, writer or manager.
    #[schema(value_type = String)]
    role: Role,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Adds a member, or changes the role of one.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/members", tag = "members", request_body = NewMember, params(("tenant" = String, Path, description = "Name or id")),
    responses((status = 201, description = "The member", body = Member), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn add(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Json(new): Json<NewMember>,
) -> Result<Response> {
    check_principal(&new.principal)?;
    check_reason(new.reason.as_deref())?;
    let mut tx = api.app.catalog.write().await?;
    let tenant = lookup::tenant(&mut tx, &name).await?;
    if matches!(tenant.state, TenantState::Deleted | TenantState::Purged) {
        return Err(Problem::new(StatusCode::CONFLICT, "conflict", "a deleted tenant takes no members"));
    }
    let member = members::set(&mut tx, tenant.id, &new.principal, new.role).await?;
    let data = serde_json::json!({ "principal": new.principal, "role": new.role });
    let event = caller.event("member.set", Some(tenant.id), data, new.reason.as_deref());
    events::append(&mut tx, &[event]).await?;
    let action = format!("'{}' would be a member", lookup::shown(&new.principal));
    let change = Change { kind: "member.set", tenant: Some(tenant.name.clone()), action };
    settle(tx, new.dry_run, change, (StatusCode::CREATED, Json(Member::new(member, &tenant.name)))).await
}

/// Removes a member.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/members/{principal}", tag = "members",
    params(("tenant" = String, Path, description = "Name or id"), ("principal" = String, Path, description = "Who"), Wish),
    responses((status = 204, description = "Gone"), (status = 200, description = "A dry run", body = Planned), (status = 404, description = "No such tenant or member", body = ProblemBody)))]
async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path((name, principal)): Path<(String, String)>,
    Query(wish): Query<Wish>,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let mut tx = api.app.catalog.write().await?;
    let tenant = lookup::tenant(&mut tx, &name).await?;
    members::remove(&mut tx, tenant.id, &principal).await?;
    let data = serde_json::json!({ "principal": principal });
    let event = caller.event("member.removed", Some(tenant.id), data, wish.reason.as_deref());
    events::append(&mut tx, &[event]).await?;
    let action = format!("'{}' would be a member no more", lookup::shown(&principal));
    let change = Change { kind: "member.removed", tenant: Some(tenant.name), action };
    settle(tx, wish.dry_run, change, StatusCode::NO_CONTENT).await
}

/// A principal is shown in lists and logs, so it is one line.
pub(crate) fn check_principal(principal: &str) -> Result<()> {
    let fits = (1..=256).contains(&principal.len()) && !principal.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(Problem::invalid("principal: expected 1 to 256 bytes without control characters")) }
}
