//! `/v1/tokens`: credentials. A secret is shown once, in the answer that makes it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use catalog::events;
use catalog::members::Role;
use catalog::tokens::{self, OperatorRole, TokenRecord, TokenScope};
use catalog::{ReadTx, TenantId, TenantState};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{Change, Planned, Wish, check_reason, settle};
use super::{lookup, members::check_principal};
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{Json, Path, Query};
use crate::http::number::Limit;
use crate::http::pages::{PageOf, Window};
use crate::http::{Api, time};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// A human's note on a token.
const LABEL_BYTES_MAX: usize = 256;

/// A token without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Token {
    /// `tok_…`
    id: String,
    /// tenant, member, service or operator.
    kind: &'static str,
    /// Of a tenant's token: the tenant's id.
    tenant: Option<String>,
    /// Who acts with it.
    principal: String,
    /// What it may do; a member's role is looked up in each tenant.
    role: Option<&'static str>,
    /// A human's note.
    label: Option<String>,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    expires_at: Option<String>,
    /// RFC 3339.
    revoked_at: Option<String>,
}

/// A token and, this once, its secret.
#[derive(Serialize, ToSchema)]
struct TokenMade {
    /// What was made.
    token: Token,
    /// Keep it; it cannot be had again.
    secret: String,
}

impl Token {
    fn new(record: TokenRecord) -> Self {
        let own_name = || format!("token:{}", record.id);
        let (kind, tenant, principal, role) = match &record.scope {
            TokenScope::Tenant { tenant, role } => ("tenant", Some(*tenant), own_name(), Some(role_word(*role))),
            TokenScope::Member { principal } => ("member", None, principal.clone(), None),
            TokenScope::Service { role } => ("service", None, own_name(), Some(role_word(*role))),
            TokenScope::Operator { role } => ("operator", None, own_name(), Some(operator_word(*role))),
        };
        Self {
            id: record.id.to_string(),
            kind,
            tenant: tenant.map(|id| id.to_string()),
            principal,
            role,
            label: record.label,
            created_at: time::text(record.created_at),
            expires_at: time::maybe(record.expires_at),
            revoked_at: time::maybe(record.revoked_at),
        }
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

/// Which tokens.
#[derive(Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filters {
    /// Only this tenant's (name or id).
    tenant: Option<String>,
    /// 1 to 1000; 100 unless given.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<Limit>,
    /// From the page before.
    cursor: Option<String>,
}

/// The tokens, oldest first, revoked ones too.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", params(Filters),
    responses((status = 200, description = "A page", body = PageOf<Token>), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn list(State(api): State<Api>, caller: Caller, Query(filters): Query<Filters>) -> Result<Json<PageOf<Token>>> {
    let window = Window::open(&api, &caller, "tokens", &filters, (filters.limit, filters.cursor.as_deref()))?;
    let mut tx = api.app.catalog.read().await?;
    let tenant = match &filters.tenant {
        Some(name) => Some(lookup::tenant(&mut tx, name).await?.id),
        None => None,
    };
    let rows = tokens::page(&mut tx, tenant, window.after()?, window.rows()).await?;
    Ok(Json(window.page(rows, |row| row.id.to_string(), Token::new)))
}

/// What the token shall open: exactly one of `tenant`, `member`, `service` and `operator`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TokenWanted {
    /// One tenant (name or id), with `role`.
    tenant: Option<String>,
    /// reader, writer or manager.
    #[schema(value_type = Option<String>)]
    role: Option<Role>,
    /// Every tenant this principal is a member of.
    member: Option<String>,
    /// Every tenant, with `role`.
    #[serde(default)]
    service: bool,
    /// The admin API: viewer, operator or admin.
    #[schema(value_type = Option<String>)]
    operator: Option<OperatorRole>,
    /// A human's note.
    label: Option<String>,
    /// RFC 3339; never unless given.
    expires_at: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Makes a token and shows its secret once.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenWanted,
    responses((status = 201, description = "The token and its secret", body = TokenMade), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn create(State(api): State<Api>, caller: Caller, Json(wanted): Json<TokenWanted>) -> Result<Response> {
    check_reason(wanted.reason.as_deref())?;
    let label = wanted.label.as_deref();
    if label.is_some_and(|l| l.len() > LABEL_BYTES_MAX || l.chars().any(char::is_control)) {
        return Err(Problem::invalid(format!("label: expected at most {LABEL_BYTES_MAX} bytes on one line")));
    }
    let expires_at = wanted.expires_at.as_deref().map(|text| time::parse("expires_at", text)).transpose()?;
    let mut tx = api.app.catalog.write().await?;
    if expires_at.is_some_and(|at| at <= tx.now()) {
        return Err(Problem::invalid("expires_at: expected a time in the future"));
    }
    let scope = wanted.scope(&mut tx).await?;
    let (record, secret) = tokens::create(&mut tx, scope, label, expires_at).await?;
    let token = Token::new(record.clone());
    let data = serde_json::json!({ "token": &token });
    let event = caller.event("token.created", tenant_of(&record), data, wanted.reason.as_deref());
    events::append(&mut tx, &[event]).await?;
    let change =
        Change { kind: "token.created", tenant: None, action: format!("a {} token would be made", token.kind) };
    let made = TokenMade { token, secret: secret.expose_secret().to_owned() };
    settle(tx, wanted.dry_run, change, (StatusCode::CREATED, Json(made))).await
}

impl TokenWanted {
    async fn scope(&self, tx: &mut ReadTx) -> Result<TokenScope> {
        let needs_role = || self.role.ok_or_else(|| Problem::invalid("role: expected reader, writer or manager"));
        let scope = match (&self.tenant, &self.member, self.service, self.operator) {
            (Some(tenant), None, false, None) => {
                TokenScope::Tenant { role: needs_role()?, tenant: living_tenant(tx, tenant).await? }
            }
            (None, Some(principal), false, None) => {
                check_principal(principal)?;
                TokenScope::Member { principal: principal.clone() }
            }
            (None, None, true, None) => TokenScope::Service { role: needs_role()? },
            (None, None, false, Some(role)) => TokenScope::Operator { role },
            _ => return Err(Problem::invalid("expected exactly one of tenant, member, service and operator")),
        };
        match (&scope, self.role) {
            (TokenScope::Member { .. }, Some(_)) => {
                Err(Problem::invalid("role: a member's role is the tenant's to give; leave it out"))
            }
            (TokenScope::Operator { .. }, Some(_)) => {
                Err(Problem::invalid("role: `operator` says it already; leave it out"))
            }
            _ => Ok(scope),
        }
    }
}

async fn living_tenant(tx: &mut ReadTx, name: &str) -> Result<TenantId> {
    let record = lookup::tenant(tx, name).await?;
    match record.state {
        TenantState::Deleted | TenantState::Purged => {
            Err(Problem::new(StatusCode::CONFLICT, "conflict", "a deleted tenant takes no tokens"))
        }
        _ => Ok(record.id),
    }
}

fn tenant_of(record: &TokenRecord) -> Option<TenantId> {
    match record.scope {
        TokenScope::Tenant { tenant, .. } => Some(tenant),
        _ => None,
    }
}

/// Ends a token; within a second nobody can use it any more.
#[utoipa::path(delete, path = "/v1/tokens/{token}", tag = "tokens", params(("token" = String, Path, description = "tok_…"), Wish),
    responses((status = 200, description = "As it is now (a dry run: what would be done)", body = Token), (status = 404, description = "No such token", body = ProblemBody)))]
async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Query(wish): Query<Wish>,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let mut tx = api.app.catalog.write().await?;
    let record = tokens::revoke(&mut tx, lookup::id(&id)?).await?;
    let data = serde_json::json!({ "id": record.id });
    let event = caller.event("token.revoked", tenant_of(&record), data, wish.reason.as_deref());
    events::append(&mut tx, &[event]).await?;
    let change = Change { kind: "token.revoked", tenant: None, action: format!("{} would be revoked", record.id) };
    settle(tx, wish.dry_run, change, Json(Token::new(record))).await
}
