//! `/v1/tokens`: credentials. A secret is shown once, in the answer that creates it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use catalog::events;
use catalog::members::Role;
use catalog::tokens::{self, OperatorRole, TokenCondition, TokenRecord, TokenScope};
use catalog::{ReadTx, TenantId, TenantState};
use fleet_api::changes::{ChangeOptions, PlannedChange};
use fleet_api::pages::PageOf;
use fleet_api::problem::ProblemBody;
use fleet_api::tokens::{TokenFilters, TokenMade, TokenView, TokenWanted};
use secrecy::ExposeSecret;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{CatalogChange, check_reason, finish_change};
use super::{lookup, members::check_principal};
use crate::error::ErrorKind;
use crate::http::admin::words::parse_choice;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams};
use crate::http::pages::PageWindow;
use crate::http::{ApiState, time};
use crate::time_text;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_tokens, create_token)).routes(routes!(revoke_token))
}

/// Maximum length of a token's label, a person's note.
const LABEL_BYTES_MAX: usize = 256;

fn token_view(record: TokenRecord) -> TokenView {
    let own_name = || format!("token:{}", record.id);
    let (kind, tenant, principal, role) = match &record.scope {
        TokenScope::Tenant { tenant, role } => ("tenant", Some(*tenant), own_name(), Some(role_word(*role))),
        TokenScope::Member { principal } => ("member", None, principal.clone(), None),
        TokenScope::TenantMember { tenant, principal } => ("member", Some(*tenant), principal.clone(), None),
        TokenScope::ImpersonationTicket(of) => ("impersonation_ticket", Some(of.tenant), of.principal.clone(), None),
        TokenScope::Impersonation(of) => ("impersonation", Some(of.tenant), of.principal.clone(), None),
        TokenScope::Service { role } => ("service", None, own_name(), Some(role_word(*role))),
        TokenScope::Operator { role } => ("operator", None, own_name(), Some(operator_word(*role))),
    };
    let staff = match &record.scope {
        TokenScope::ImpersonationTicket(of) | TokenScope::Impersonation(of) => Some(of.staff.clone()),
        _ => None,
    };
    TokenView {
        id: record.id.to_string(),
        staff,
        kind: kind.to_owned(),
        tenant: tenant.map(|id| id.to_string()),
        principal,
        role: role.map(str::to_owned),
        label: record.label,
        created_at: time_text::format_time(record.created_at),
        expires_at: time_text::format_optional(record.expires_at),
        revoked_at: time_text::format_optional(record.revoked_at),
    }
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Reader => "reader",
        Role::Writer => "writer",
        Role::Manager => "manager",
    }
}

fn operator_word(role: OperatorRole) -> &'static str {
    match role {
        OperatorRole::Viewer => "viewer",
        OperatorRole::Operator => "operator",
        OperatorRole::Admin => "admin",
    }
}

/// List the tokens, including revoked ones, oldest first.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", params(TokenFilters),
    responses((status = 200, description = "One page of the list", body = PageOf<TokenView>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_tokens(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    QueryParams(filters): QueryParams<TokenFilters>,
) -> Result<JsonBody<PageOf<TokenView>>> {
    let window =
        PageWindow::open_window(&api, &caller, "tokens", &filters, (filters.limit, filters.cursor.as_deref()))?;
    let mut tx = api.app.catalog.read().await?;
    let tenant = match &filters.tenant {
        Some(name) => Some(lookup::find_tenant(&mut tx, name).await?.id),
        None => None,
    };
    filters.principal.as_deref().map_or(Ok(()), check_principal)?;
    let condition = TokenCondition { tenant, principal: filters.principal.clone() };
    let rows = tokens::list_tokens(&mut tx, &condition, window.after_key()?, window.rows_to_read()).await?;
    Ok(JsonBody(window.into_page(rows, |row| row.id.to_string(), token_view)))
}

/// Create a token, and show its secret once.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenWanted,
    responses((status = 201, description = "The new token and its secret", body = TokenMade), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn create_token(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(wanted): JsonBody<TokenWanted>,
) -> Result<Response> {
    check_reason(wanted.reason.as_deref())?;
    let label = wanted.label.as_deref();
    if label.is_some_and(|l| l.len() > LABEL_BYTES_MAX || l.chars().any(char::is_control)) {
        return Err(Problem::invalid(format!("label: expected at most {LABEL_BYTES_MAX} bytes on one line")));
    }
    let expires_at = wanted.expires_at.as_deref().map(|text| time::parse_time("expires_at", text)).transpose()?;
    let mut tx = api.app.catalog.write().await?;
    if expires_at.is_some_and(|at| at <= tx.now()) {
        return Err(Problem::invalid("expires_at: expected a time in the future"));
    }
    let scope = token_scope(&wanted, &mut tx).await?;
    let (record, secret) = tokens::create_token(&mut tx, scope, label, expires_at).await?;
    let token = token_view(record.clone());
    let data = serde_json::json!({ "token": &token });
    let event = caller.caller_event("token.created", tenant_of(&record), data, wanted.reason.as_deref());
    events::append_events(&mut tx, &[event]).await?;
    let change = CatalogChange {
        kind: "token.created",
        tenant: None,
        action: format!("a {} token would be created", token.kind),
    };
    let made = TokenMade { token, secret: secret.expose_secret().to_owned() };
    finish_change(tx, &caller, wanted.dry_run, change, (StatusCode::CREATED, JsonBody(made))).await
}

async fn token_scope(wanted: &TokenWanted, tx: &mut ReadTx) -> Result<TokenScope> {
    let role: Option<Role> = wanted.role.as_deref().map(|role| parse_choice("role", role)).transpose()?;
    let operator: Option<OperatorRole> =
        wanted.operator.as_deref().map(|role| parse_choice("operator", role)).transpose()?;
    let needs_role = || role.ok_or_else(|| Problem::invalid("role: expected reader, writer or manager"));
    let scope = match (&wanted.tenant, &wanted.member, wanted.service, operator) {
        (Some(tenant), None, false, None) => {
            TokenScope::Tenant { role: needs_role()?, tenant: living_tenant(tx, tenant).await? }
        }
        (tenant, Some(principal), false, None) => {
            check_principal(principal)?;
            let principal = principal.clone();
            match tenant {
                Some(tenant) => TokenScope::TenantMember { tenant: living_tenant(tx, tenant).await?, principal },
                None => TokenScope::Member { principal },
            }
        }
        (None, None, true, None) => TokenScope::Service { role: needs_role()? },
        (None, None, false, Some(role)) => TokenScope::Operator { role },
        _ => {
            return Err(Problem::invalid(
                "expected exactly one of tenant, member, service and operator, or member with tenant",
            ));
        }
    };
    match (&scope, role) {
        (TokenScope::Member { .. } | TokenScope::TenantMember { .. }, Some(_)) => {
            Err(Problem::invalid("role: the tenant assigns a member's role; omit it"))
        }
        (TokenScope::Operator { .. }, Some(_)) => {
            Err(Problem::invalid("role: `operator` already contains it; omit it"))
        }
        _ => Ok(scope),
    }
}

async fn living_tenant(tx: &mut ReadTx, name: &str) -> Result<TenantId> {
    let record = lookup::find_tenant(tx, name).await?;
    match record.state {
        TenantState::Deleted | TenantState::Purged => {
            Err(Problem::new(ErrorKind::Conflict, "a deleted tenant cannot get tokens"))
        }
        _ => Ok(record.id),
    }
}

fn tenant_of(record: &TokenRecord) -> Option<TenantId> {
    match record.scope {
        TokenScope::Tenant { tenant, .. } | TokenScope::TenantMember { tenant, .. } => Some(tenant),
        TokenScope::ImpersonationTicket(ref of) | TokenScope::Impersonation(ref of) => Some(of.tenant),
        TokenScope::Member { .. } | TokenScope::Service { .. } | TokenScope::Operator { .. } => None,
    }
}

/// Revoke a token.
///
/// Within a second the token is refused everywhere.
#[utoipa::path(delete, path = "/v1/tokens/{token}", tag = "tokens", params(("token" = String, Path, description = "Id of the token: tok_…"), ChangeOptions),
    responses((status = 200, description = "The token after the change, or the plan of the dry run", body = TokenView), (status = 404, description = "No token has this id", body = ProblemBody)))]
async fn revoke_token(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    QueryParams(wish): QueryParams<ChangeOptions>,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let mut tx = api.app.catalog.write().await?;
    let record = tokens::revoke_token(&mut tx, lookup::parse_id(&id)?).await?;
    let data = serde_json::json!({ "id": record.id });
    let event = caller.caller_event("token.revoked", tenant_of(&record), data, wish.reason.as_deref());
    events::append_events(&mut tx, &[event]).await?;
    let change =
        CatalogChange { kind: "token.revoked", tenant: None, action: format!("{} would be revoked", record.id) };
    finish_change(tx, &caller, wish.dry_run, change, JsonBody(token_view(record))).await
}
