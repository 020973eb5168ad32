//! `/v1/tenants/{tenant}/accounts`: a tenant's accounts with other services, which send webhooks.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use catalog::external_accounts::{self, AccountRecord};
use catalog::{TenantState, events};
use fleet_api::accounts::{AccountListQuery, AccountView, NewAccount};
use fleet_api::changes::{ChangeOptions, PlannedChange};
use fleet_api::pages::PageOf;
use fleet_api::problem::ProblemBody;
use fleet_api::secret_text::SecretText;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{CatalogChange, check_reason, finish_change};
use super::lookup;
use crate::error::ErrorKind;
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams};
use crate::http::pages::PageWindow;
use crate::time_text::format_time;

/// Between the two parts of a cursor. Neither may contain it.
const CURSOR_SEPARATOR: char = '\u{1f}';

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_accounts, link_account)).routes(routes!(unlink_account))
}

fn account_view(found: AccountRecord, tenant: &str) -> AccountView {
    AccountView {
        tenant: tenant.to_owned(),
        tenant_id: found.tenant_id.to_string(),
        provider: found.provider,
        account: found.account,
        has_secret: found.has_secret,
        created_at: format_time(found.created_at),
    }
}

/// List a tenant's accounts with other services, ordered by service and account.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/accounts", tag = "accounts", params(("tenant" = String, Path, description = "Name or id of the tenant"), AccountListQuery),
    responses((status = 200, description = "One page of the list", body = PageOf<AccountView>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_accounts(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    QueryParams(part): QueryParams<AccountListQuery>,
) -> Result<JsonBody<PageOf<AccountView>>> {
    let mut tx = api.app.catalog.read().await?;
    let tenant = lookup::find_tenant(&mut tx, &name).await?;
    let window = PageWindow::open_window(&api, &caller, "accounts", &tenant.id, (part.limit, part.cursor.as_deref()))?;
    let after: Option<String> = window.after_key()?;
    let after = after.as_deref().and_then(|key| key.split_once(CURSOR_SEPARATOR));
    let rows = external_accounts::list_accounts(&mut tx, tenant.id, after, window.rows_to_read()).await?;
    let key = |row: &AccountRecord| format!("{}{CURSOR_SEPARATOR}{}", row.provider, row.account);
    Ok(JsonBody(window.into_page(rows, key, |row| account_view(row, &tenant.name))))
}

/// Link an account with another service to a tenant. Its webhooks then change this tenant. Linking it again replaces its
/// secret.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/accounts", tag = "accounts", request_body = NewAccount, params(("tenant" = String, Path, description = "Name or id of the tenant")),
    responses((status = 201, description = "The account", body = AccountView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn link_account(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    JsonBody(new): JsonBody<NewAccount>,
) -> Result<Response> {
    check_reason(new.reason.as_deref())?;
    let mut tx = api.app.catalog.write().await?;
    let tenant = lookup::find_tenant(&mut tx, &name).await?;
    if matches!(tenant.state, TenantState::Deleted | TenantState::Purged) {
        return Err(Problem::new(ErrorKind::Conflict, "a deleted tenant cannot get accounts"));
    }
    let secret = new.secret.as_ref().map(SecretText::as_secret);
    let linked = external_accounts::link_account(&mut tx, tenant.id, (&new.provider, &new.account), secret).await?;
    let data = json!({ "provider": new.provider, "account": new.account, "has_secret": linked.has_secret });
    let event = caller.caller_event("account.linked", Some(tenant.id), data, new.reason.as_deref());
    events::append_events(&mut tx, &[event]).await?;
    let action = format!("webhooks of '{}' for the account '{}' would change it", new.provider, new.account);
    let change = CatalogChange { kind: "account.linked", tenant: Some(tenant.name.clone()), action };
    finish_change(tx, &caller, new.dry_run, change, (StatusCode::CREATED, JsonBody(account_view(linked, &tenant.name))))
        .await
}

/// Unlink an account from a tenant. Its webhooks are refused from now on.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/accounts/{provider}/{account}", tag = "accounts",
    params(("tenant" = String, Path, description = "Name or id of the tenant"), ("provider" = String, Path, description = "Name of the service"), ("account" = String, Path, description = "Id of the account"), ChangeOptions),
    responses((status = 204, description = "The account was unlinked"), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn unlink_account(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams((name, provider, account)): PathParams<(String, String, String)>,
    QueryParams(wish): QueryParams<ChangeOptions>,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let mut tx = api.app.catalog.write().await?;
    let tenant = lookup::find_tenant(&mut tx, &name).await?;
    let gone = external_accounts::unlink_account(&mut tx, tenant.id, &provider, &account).await?;
    let data = json!({ "provider": gone.provider, "account": gone.account });
    let event = caller.caller_event("account.unlinked", Some(tenant.id), data, wish.reason.as_deref());
    events::append_events(&mut tx, &[event]).await?;
    let action = format!("webhooks of '{}' for the account '{}' would be refused", gone.provider, gone.account);
    let change = CatalogChange { kind: "account.unlinked", tenant: Some(tenant.name), action };
    finish_change(tx, &caller, wish.dry_run, change, StatusCode::NO_CONTENT).await
}
