//! `/v1/tenants/{tenant}/domains`: the custom domains of a tenant. `/v1/domains/ask`: whether a proxy may request a
//! certificate for a host. A proxy sends no credential, so this answer says only yes or no about one host.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use catalog::domains::{self, DomainRecord};
use catalog::{TenantName, TenantRecord, TenantState, events};
use fleet_api::changes::{ChangeOptions, PlannedChange};
use fleet_api::domains::{DomainListQuery, DomainQuestion, DomainView, NewDomain};
use fleet_api::pages::PageOf;
use fleet_api::problem::ProblemBody;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{CatalogChange, check_reason, finish_change};
use super::lookup;
use crate::domains::check::{DomainCheck, look_up_domain, record_check};
use crate::domains::decide::parse_domain;
use crate::domains::record_name;
use crate::error::ErrorKind;
use crate::http::ApiState;
use crate::http::admin::words::word_of;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams};
use crate::http::pages::PageWindow;
use crate::time_text::format_time;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_domains, add_domain))
        .routes(routes!(verify_domain))
        .routes(routes!(remove_domain))
}

/// The route that needs no credential.
pub(crate) fn public_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(answer_question))
}

fn domain_view(domain: DomainRecord, tenant: &str) -> DomainView {
    DomainView {
        tenant: tenant.to_owned(),
        tenant_id: domain.tenant_id.to_string(),
        txt_name: record_name(&domain.host),
        host: domain.host.to_string(),
        state: word_of(&domain.state),
        txt_value: domain.challenge,
        created_at: format_time(domain.created_at),
        verified_at: domain.verified_at.map(format_time),
        checked_at: domain.checked_at.map(format_time),
        check_error: domain.check_error,
    }
}

/// List the custom domains of a tenant, ordered by host.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/domains", tag = "domains", params(("tenant" = String, Path, description = "Name or id of the tenant"), DomainListQuery),
    responses((status = 200, description = "One page of the list", body = PageOf<DomainView>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_domains(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    QueryParams(part): QueryParams<DomainListQuery>,
) -> Result<JsonBody<PageOf<DomainView>>> {
    let mut tx = api.app.catalog.read().await?;
    let tenant = lookup::find_tenant(&mut tx, &name).await?;
    let window = PageWindow::open_window(&api, &caller, "domains", &tenant.id, (part.limit, part.cursor.as_deref()))?;
    let after: Option<String> = window.after_key()?;
    let rows = domains::list_domains(&mut tx, tenant.id, after.as_deref(), window.rows_to_read()).await?;
    Ok(JsonBody(window.into_page(rows, |row| row.host.to_string(), |row| domain_view(row, &tenant.name))))
}

/// Add a custom domain to a tenant. It leads to the tenant once its TXT record is verified.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/domains", tag = "domains", request_body = NewDomain, params(("tenant" = String, Path, description = "Name or id of the tenant")),
    responses((status = 201, description = "The pending domain, with the TXT record to set", body = DomainView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn add_domain(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    JsonBody(new): JsonBody<NewDomain>,
) -> Result<Response> {
    check_reason(new.reason.as_deref())?;
    let host = parse_domain(&new.host, &api.app.config)?;
    let mut tx = api.app.catalog.write().await?;
    let tenant = lookup::find_tenant(&mut tx, &name).await?;
    refuse_deleted(&tenant)?;
    let domain = domains::add_domain(&mut tx, tenant.id, &host).await?;
    let data = serde_json::json!({ "host": host });
    let event = caller.caller_event("tenant.domain_added", Some(tenant.id), data, new.reason.as_deref());
    events::append_events(&mut tx, &[event]).await?;
    let action = format!("'{host}' would be a pending domain");
    let change = CatalogChange { kind: "tenant.domain_added", tenant: Some(tenant.name.clone()), action };
    finish_change(tx, &caller, new.dry_run, change, (StatusCode::CREATED, JsonBody(domain_view(domain, &tenant.name))))
        .await
}

/// Look up a domain's TXT record, and make the domain active if the record proves control of it. Waits for the DNS, up to
/// 8 seconds.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/domains/{host}/verify", tag = "domains", request_body = ChangeOptions,
    params(("tenant" = String, Path, description = "Name or id of the tenant"), ("host" = String, Path, description = "Host of the domain")),
    responses((status = 200, description = "The active domain, or the plan of the dry run", body = DomainView), (status = 409, description = "The TXT record does not prove control, or another tenant has the domain", body = ProblemBody), (status = 503, description = "The DNS gave no answer", body = ProblemBody), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn verify_domain(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams((name, host)): PathParams<(String, String)>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let host = parse_domain(&host, &api.app.config)?;
    let (tenant, domain) = find_domain(&api, &name, &host).await?;
    let check = look_up_domain(api.app.dns.as_ref(), domain.clone()).await;
    conclude_check(&api, &caller, (tenant, domain), check, wish).await
}

/// Records the check. A failed one is recorded, too, and answered as an error.
async fn conclude_check(
    api: &ApiState,
    caller: &AdmittedCaller,
    (tenant, before): (TenantRecord, DomainRecord),
    check: DomainCheck,
    wish: ChangeOptions,
) -> Result<Response> {
    let mut tx = api.app.catalog.write().await?;
    let event = |kind: &str, data| caller.caller_event(kind, Some(tenant.id), data, wish.reason.as_deref());
    let result = record_check(&mut tx, check, event).await?;
    if let Some(problem) = result.into_problem(&before) {
        if !wish.dry_run {
            tx.commit().await?;
        }
        return Err(problem.into());
    }
    let domain = domains::get(&mut tx, tenant.id, &before.host).await?;
    let domain = domain.ok_or_else(|| Problem::new(ErrorKind::Conflict, "the domain was removed meanwhile"))?;
    let action = format!("'{}' would be active", before.host);
    let change = CatalogChange { kind: "tenant.domain_verified", tenant: Some(tenant.name.clone()), action };
    finish_change(tx, caller, wish.dry_run, change, JsonBody(domain_view(domain, &tenant.name))).await
}

/// Remove a custom domain from a tenant. The host leads nowhere from now on.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/domains/{host}", tag = "domains",
    params(("tenant" = String, Path, description = "Name or id of the tenant"), ("host" = String, Path, description = "Host of the domain"), ChangeOptions),
    responses((status = 204, description = "The domain was removed"), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn remove_domain(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams((name, host)): PathParams<(String, String)>,
    QueryParams(wish): QueryParams<ChangeOptions>,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let host = TenantName::parse_host(&host)?;
    let mut tx = api.app.catalog.write().await?;
    let tenant = lookup::find_tenant(&mut tx, &name).await?;
    domains::remove_domain(&mut tx, tenant.id, &host).await.map_err(|error| no_domain(error.into(), &tenant.name))?;
    let data = serde_json::json!({ "host": host });
    let event = caller.caller_event("tenant.domain_removed", Some(tenant.id), data, wish.reason.as_deref());
    events::append_events(&mut tx, &[event]).await?;
    let action = format!("'{host}' would no longer be a domain");
    let change = CatalogChange { kind: "tenant.domain_removed", tenant: Some(tenant.name), action };
    finish_change(tx, &caller, wish.dry_run, change, StatusCode::NO_CONTENT).await
}

/// Answer whether a host is an active custom domain: for a proxy that requests certificates on demand.
#[utoipa::path(get, path = "/v1/domains/ask", tag = "domains", security(()), params(DomainQuestion),
    responses((status = 200, description = "The host is an active custom domain", body = String), (status = "4XX", description = "It is not, or the request was refused", body = ProblemBody), (status = "5XX", description = "The catalog gave no answer", body = ProblemBody)))]
pub(crate) async fn answer_question(
    State(api): State<ApiState>,
    QueryParams(question): QueryParams<DomainQuestion>,
) -> Result<Response> {
    // Whatever is not an active domain gets one answer, also what is not a host at all.
    if let Ok(host) = TenantName::parse_host(&question.domain)
        && domains::is_active(&mut api.app.catalog.read().await?, &host).await?
    {
        return Ok("active".into_response());
    }
    Err(Problem::not_found("no active custom domain has this host")
        .try_next("fleetctl tenant domain verify TENANT HOST"))
}

/// The tenant and its domain with this host.
async fn find_domain(api: &ApiState, name: &str, host: &TenantName) -> Result<(TenantRecord, DomainRecord)> {
    let mut tx = api.app.catalog.read().await?;
    let tenant = lookup::find_tenant(&mut tx, name).await?;
    refuse_deleted(&tenant)?;
    match domains::get(&mut tx, tenant.id, host).await? {
        Some(domain) => Ok((tenant, domain)),
        None => Err(no_domain(Problem::not_found(format!("the tenant has no domain '{host}'")), &tenant.name)),
    }
}

/// Adds advice to the error about a domain that the tenant does not have.
fn no_domain(problem: Problem, tenant: &str) -> Problem {
    problem.try_next(format!("fleetctl tenant domain list {tenant}"))
}

fn refuse_deleted(tenant: &TenantRecord) -> Result<()> {
    match tenant.state {
        TenantState::Deleted | TenantState::Purged => {
            Err(Problem::new(ErrorKind::Conflict, "a deleted tenant cannot get domains"))
        }
        _ => Ok(()),
    }
}
