//! `/v1/tenants`: the tenants, and small changes that are not operations.

mod adopt;
pub(crate) mod create;
mod delete;
mod describe;
mod lifecycle;

use std::collections::HashMap;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use catalog::tenants::TenantCriteria;
use catalog::{ReadTx, ServerId, ServerRecord, TenantRecord, WriteTx, events, names, plans, servers, tenants};
use fleet_api::pages::PageOf;
use fleet_api::problem::ProblemBody;
use fleet_api::tenants::{TenantFilters, TenantPatch, TenantView};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{CatalogChange, check_reason, finish_change};
use super::lookup;
use super::migrations::pins::head_version;
use super::plans::find_plan;
use crate::error::ErrorKind;
use crate::http::ApiState;
use crate::http::admin::migrations::pins::tenant_pin;
use crate::http::admin::words::word_of;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams, text_header};
use crate::http::pages::PageWindow;
use crate::time_text;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_tenants))
        .routes(routes!(get_tenant, patch_tenant))
        .merge(describe::routes())
        .merge(create::routes())
        .merge(delete::routes())
        .merge(adopt::routes())
        .merge(lifecycle::routes())
}

/// The API's view of a record. `head_version` is that of the current release.
pub(crate) fn tenant_view(
    record: TenantRecord,
    server: Option<&ServerRecord>,
    head_version: Option<i64>,
) -> TenantView {
    TenantView {
        pin: tenant_pin(&record, head_version),
        status: tenant_status(&record).to_owned(),
        id: record.id.to_string(),
        name: record.name,
        state: word_of(&record.state),
        state_reason: record.state_reason,
        engine: server.map(|s| s.engine.to_string()).unwrap_or_default(),
        server: server.map_or_else(|| record.server_id.to_string(), |s| s.name.clone()),
        schema_version: record.schema_version,
        generation: record.generation.0,
        block_writes: record.block_writes.as_ref().map(word_of),
        protected: record.protected,
        plan: record.plan.map(|plan| plan.name),
        labels: record.labels,
        size_bytes: record.size_bytes,
        operation_id: record.op_id.map(|id| id.to_string()),
        created_at: time_text::format_time(record.created_at),
        updated_at: time_text::format_time(record.updated_at),
        deleted_at: time_text::format_optional(record.deleted_at),
        purge_after_at: time_text::format_optional(record.purge_after),
        names: None,
    }
}

/// Adds every name that the tenant has or had.
pub(crate) fn with_names(tenant: TenantView, names: Vec<String>) -> TenantView {
    TenantView { names: Some(names), ..tenant }
}

/// The state filter for an active tenant whose writes an operator blocks.
const READ_ONLY: &str = "read-only";

fn tenant_status(record: &TenantRecord) -> &'static str {
    if record.is_read_only() { READ_ONLY } else { record.state.as_str() }
}

/// List the tenants, oldest first.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", params(TenantFilters),
    responses((status = 200, description = "One page of the list", body = PageOf<TenantView>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_tenants(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    QueryParams(filters): QueryParams<TenantFilters>,
) -> Result<JsonBody<PageOf<TenantView>>> {
    let window =
        PageWindow::open_window(&api, &caller, "tenants", &filters, (filters.limit, filters.cursor.as_deref()))?;
    let mut tx = api.app.catalog.read().await?;
    let selection = to_criteria(&filters, &mut tx).await?;
    let rows = tenants::list_tenants(&mut tx, &selection, window.after_key()?, window.rows_to_read()).await?;
    let servers = servers_by_id(&mut tx).await?;
    let head = head_version(&mut tx).await?;
    Ok(JsonBody(window.into_page(
        rows,
        |row| row.id.to_string(),
        |row| {
            let server = servers.get(&row.server_id);
            tenant_view(row, server, head)
        },
    )))
}

async fn to_criteria(filters: &TenantFilters, tx: &mut ReadTx) -> Result<TenantCriteria> {
    let server = match &filters.server {
        Some(name) => Some(lookup::find_server(tx, name).await?.id),
        None => None,
    };
    let ids = match &filters.name {
        Some(name) => Some(vec![lookup::find_tenant(tx, name).await?.id]),
        None => None,
    };
    let labels = filters.labels.as_deref().map(lookup::parse_labels).transpose()?.unwrap_or_default();
    let (states, read_only) = parse_state_filter(filters.state.as_deref())?;
    Ok(TenantCriteria { ids, labels, server, states, read_only })
}

/// The states of a filter, and whether it includes read-only tenants.
fn parse_state_filter(text: Option<&str>) -> Result<(Vec<catalog::TenantState>, bool)> {
    let is_read_only = |word: &&str| [READ_ONLY, "read_only"].contains(&word.trim());
    let words = text.into_iter().flat_map(|text| text.split(','));
    let (read_only, states): (Vec<&str>, Vec<&str>) = words.partition(is_read_only);
    let states = (!states.is_empty()).then(|| states.join(","));
    Ok((lookup::parse_states("state", states.as_deref())?, !read_only.is_empty()))
}

/// Every server by its id. A fleet has few servers, and a page has many tenants.
pub(crate) async fn servers_by_id(tx: &mut ReadTx) -> Result<HashMap<ServerId, ServerRecord>> {
    Ok(servers::list_servers(tx).await?.into_iter().map(|(server, _)| (server.id, server)).collect())
}

/// Get one tenant with all its names.
#[utoipa::path(get, path = "/v1/tenants/{tenant}", tag = "tenants", params(("tenant" = String, Path, description = "Name or id of the tenant")),
    responses((status = 200, description = "The tenant; the ETag is its generation", body = TenantView), (status = 404, description = "No tenant has this name or id", body = ProblemBody)))]
async fn get_tenant(
    State(api): State<ApiState>,
    _caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
) -> Result<Response> {
    let mut tx = api.app.catalog.read().await?;
    let record = lookup::find_tenant(&mut tx, &name).await?;
    tenant_response(&mut tx, record).await
}

/// Change the name, labels, protection and plan of a tenant in one transaction.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}", tag = "tenants", request_body = TenantPatch,
    params(("tenant" = String, Path, description = "Name or id of the tenant"), ("If-Match" = Option<String>, Header, description = "ETag that the tenant must still have")),
    responses((status = 200, description = "The tenant after the change", body = TenantView), (status = 412, description = "The tenant was changed in the meantime", body = ProblemBody)))]
async fn patch_tenant(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    headers: HeaderMap,
    JsonBody(patch): JsonBody<TenantPatch>,
) -> Result<Response> {
    check_reason(patch.reason.as_deref())?;
    if patch.name.is_none() && patch.labels.is_empty() && patch.protected.is_none() && patch.plan.is_none() {
        return Err(Problem::invalid("no change was requested: expected name, labels, protected or plan"));
    }
    let mut tx = api.app.catalog.write().await?;
    let record = lookup::find_tenant(&mut tx, &name).await?;
    require_unchanged(&headers, &record)?;
    let reason = patch.reason.as_deref();
    if !patch.labels.is_empty() {
        tenants::set_labels(&mut tx, record.id, &patch.labels).await?;
        let data = serde_json::json!({ "labels": patch.labels });
        let event = caller.caller_event("tenant.labelled", Some(record.id), data, reason);
        events::append_events(&mut tx, &[event]).await?;
    }
    if let Some(new) = patch.name.as_deref().filter(|new| *new != record.name) {
        tenants::rename_tenant(&mut tx, record.id, &catalog::TenantName::parse_slug(new)?).await?;
        let data = serde_json::json!({ "from": record.name, "to": new });
        events::append_events(&mut tx, &[caller.caller_event("tenant.renamed", Some(record.id), data, reason)]).await?;
    }
    if let Some(protected) = patch.protected {
        tenants::set_protected(&mut tx, record.id, protected).await?;
        let kind = if protected { "tenant.protected" } else { "tenant.unprotected" };
        events::append_events(&mut tx, &[caller.caller_event(kind, Some(record.id), serde_json::json!({}), reason)])
            .await?;
    }
    if let Some(plan) = &patch.plan {
        set_plan(&mut tx, &caller, &record, plan.as_deref(), reason).await?;
    }
    let record = lookup::find_tenant(&mut tx, &record.id.to_string()).await?;
    let response = tenant_response(&mut tx, record).await?;
    let action = "would get this name, these labels, this protection and this plan".to_owned();
    finish_change(
        tx,
        &caller,
        patch.dry_run,
        CatalogChange { kind: "tenant.changed", tenant: Some(name), action },
        response,
    )
    .await
}

/// Gives the tenant this plan, or none.
async fn set_plan(
    tx: &mut WriteTx,
    caller: &AdmittedCaller,
    record: &TenantRecord,
    plan: Option<&str>,
    reason: Option<&str>,
) -> Result<()> {
    if let Some(name) = plan {
        find_plan(tx, name).await?;
    }
    plans::set_tenant_plan(tx, record.id, plan).await?;
    let data = serde_json::json!({ "plan": plan, "before": record.plan.as_ref().map(|plan| &plan.name) });
    Ok(events::append_events(tx, &[caller.caller_event("tenant.plan_set", Some(record.id), data, reason)]).await?)
}

/// Refuses the change if the tenant's ETag does not match If-Match.
pub(crate) fn require_unchanged(headers: &HeaderMap, record: &TenantRecord) -> Result<()> {
    let Some(wanted) = text_header(headers, header::IF_MATCH.as_str()) else { return Ok(()) };
    let now = tenant_etag(record);
    if wanted.trim() == "*" || wanted.split(',').any(|tag| tag.trim() == now) {
        return Ok(());
    }
    let detail = format!("the tenant has the version {now}, but If-Match names {}", lookup::display_safe(wanted));
    Err(Problem::new(ErrorKind::PreconditionFailed, detail).try_next("read the tenant again"))
}

fn tenant_etag(record: &TenantRecord) -> String {
    format!("\"g{}\"", record.generation)
}

/// The response with one tenant, its names and its ETag.
async fn tenant_response(tx: &mut ReadTx, record: TenantRecord) -> Result<Response> {
    let server = servers::get(tx, record.server_id).await?;
    let names = names::of_tenant(tx, record.id).await?;
    let etag = HeaderValue::from_str(&tenant_etag(&record)).expect("digits in quotes");
    let names = names.into_iter().map(|(name, _)| name.as_str().to_owned()).collect();
    let body = with_names(tenant_view(record, server.as_ref(), head_version(tx).await?), names);
    Ok(([(header::ETAG, etag)], JsonBody(body)).into_response())
}
