//! `/v1/tenants`: what there is, and the small changes that are no operation.

use std::collections::{BTreeMap, HashMap};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::tenants::Selection;
use catalog::{ReadTx, ServerId, ServerRecord, TenantRecord, events, names, servers, tenants};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{Change, check_reason, settle};
use super::lookup;
use super::pins::{TenantPin, head_version};
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{Json, Path, Query, text_header};
use crate::http::number::Limit;
use crate::http::pages::{PageOf, Window};
use crate::http::{Api, time};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, patch))
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tenant {
    /// For ever: `tnt_…`.
    id: String,
    /// The current slug.
    name: String,
    /// provisioning, active, suspended, archived, deleted or purged.
    #[schema(value_type = String)]
    state: catalog::TenantState,
    /// Why suspended or blocked.
    state_reason: Option<String>,
    /// What its database runs on.
    engine: String,
    /// The name of its server.
    server: String,
    /// The newest migration; a hint, the database knows better.
    schema_version: Option<i64>,
    /// Set while it stays at its version: an operation took it back, and migrations of many tenants leave it out.
    pin: Option<TenantPin>,
    /// Counts the changes of state and place; the ETag.
    generation: i64,
    /// operation or operator: who blocks writes.
    #[schema(value_type = Option<String>)]
    block_writes: Option<catalog::BlockWrites>,
    /// Whether deleting it is refused.
    protected: bool,
    /// Free words about it.
    labels: BTreeMap<String, String>,
    /// Bytes of the database; a hint.
    size_bytes: Option<i64>,
    /// The operation that works on it now.
    operation_id: Option<String>,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    updated_at: String,
    /// RFC 3339.
    deleted_at: Option<String>,
    /// RFC 3339: when a deleted tenant's data may be gone.
    purge_after_at: Option<String>,
    /// Every name it has or had; only in answers about one tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    names: Option<Vec<String>>,
}

impl Tenant {
    /// The wire form of a record; `head_version` is that of the current release.
    pub(crate) fn new(record: TenantRecord, server: Option<&ServerRecord>, head_version: Option<i64>) -> Self {
        Self {
            pin: TenantPin::new(&record, head_version),
            id: record.id.to_string(),
            name: record.name,
            state: record.state,
            state_reason: record.state_reason,
            engine: server.map(|s| s.engine.to_string()).unwrap_or_default(),
            server: server.map_or_else(|| record.server_id.to_string(), |s| s.name.clone()),
            schema_version: record.schema_version,
            generation: record.generation.0,
            block_writes: record.block_writes,
            protected: record.protected,
            labels: record.labels,
            size_bytes: record.size_bytes,
            operation_id: record.op_id.map(|id| id.to_string()),
            created_at: time::text(record.created_at),
            updated_at: time::text(record.updated_at),
            deleted_at: time::maybe(record.deleted_at),
            purge_after_at: time::maybe(record.purge_after),
            names: None,
        }
    }
}

/// Which tenants to list; the fields narrow each other.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filters {
    /// `k=v,k2=v2`: all of them.
    labels: Option<String>,
    /// The name of a server.
    server: Option<String>,
    /// One state or several, separated by commas; all but purged unless given.
    state: Option<String>,
    /// One name (slug, alias or host) or id.
    name: Option<String>,
    /// 1 to 1000; 100 unless given.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<Limit>,
    /// From the page before.
    cursor: Option<String>,
}

/// The tenants, oldest first.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", params(Filters),
    responses((status = 200, description = "A page", body = PageOf<Tenant>), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn list(State(api): State<Api>, caller: Caller, Query(filters): Query<Filters>) -> Result<Json<PageOf<Tenant>>> {
    let window = Window::open(&api, &caller, "tenants", &filters, (filters.limit, filters.cursor.as_deref()))?;
    let mut tx = api.app.catalog.read().await?;
    let selection = filters.selection(&mut tx).await?;
    let rows = tenants::page(&mut tx, &selection, window.after()?, window.rows()).await?;
    let servers = servers_by_id(&mut tx).await?;
    let head = head_version(&mut tx).await?;
    Ok(Json(window.page(
        rows,
        |row| row.id.to_string(),
        |row| {
            let server = servers.get(&row.server_id);
            Tenant::new(row, server, head)
        },
    )))
}

impl Filters {
    async fn selection(&self, tx: &mut ReadTx) -> Result<Selection> {
        let server = match &self.server {
            Some(name) => Some(lookup::server(tx, name).await?.id),
            None => None,
        };
        let ids = match &self.name {
            Some(name) => Some(vec![lookup::tenant(tx, name).await?.id]),
            None => None,
        };
        let labels = self.labels.as_deref().map(lookup::labels).transpose()?.unwrap_or_default();
        Ok(Selection { ids, labels, server, states: lookup::states("state", self.state.as_deref())? })
    }
}

/// Every server by its id: a fleet has few, a page of tenants has many.
pub(crate) async fn servers_by_id(tx: &mut ReadTx) -> Result<HashMap<ServerId, ServerRecord>> {
    Ok(servers::list(tx).await?.into_iter().map(|(server, _)| (server.id, server)).collect())
}

/// One tenant with all its names.
#[utoipa::path(get, path = "/v1/tenants/{tenant}", tag = "tenants", params(("tenant" = String, Path, description = "Name or id")),
    responses((status = 200, description = "The tenant; its ETag is its generation", body = Tenant), (status = 404, description = "No such tenant", body = ProblemBody)))]
async fn get(State(api): State<Api>, _caller: Caller, Path(name): Path<String>) -> Result<Response> {
    let mut tx = api.app.catalog.read().await?;
    let record = lookup::tenant(&mut tx, &name).await?;
    answer(&mut tx, record).await
}

/// What to change; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantPatch {
    /// A new slug; the old one goes on leading here, and never to another tenant.
    name: Option<String>,
    /// Sets labels; null removes one.
    #[serde(default)]
    labels: BTreeMap<String, Option<String>>,
    /// Refuse to delete it, or allow it again.
    protected: Option<bool>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Changes name, labels and protection, at once.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}", tag = "tenants", request_body = TenantPatch,
    params(("tenant" = String, Path, description = "Name or id"), ("If-Match" = Option<String>, Header, description = "Only if the ETag is still this")),
    responses((status = 200, description = "As it is now", body = Tenant), (status = 412, description = "It was changed meanwhile", body = ProblemBody)))]
async fn patch(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(patch): Json<TenantPatch>,
) -> Result<Response> {
    check_reason(patch.reason.as_deref())?;
    if patch.name.is_none() && patch.labels.is_empty() && patch.protected.is_none() {
        return Err(Problem::invalid("nothing is to be changed: expected name, labels or protected"));
    }
    let mut tx = api.app.catalog.write().await?;
    let record = lookup::tenant(&mut tx, &name).await?;
    unchanged(&headers, &record)?;
    let reason = patch.reason.as_deref();
    if !patch.labels.is_empty() {
        tenants::set_labels(&mut tx, record.id, &patch.labels).await?;
        let data = serde_json::json!({ "labels": patch.labels });
        let event = caller.event("tenant.labelled", Some(record.id), data, reason);
        events::append(&mut tx, &[event]).await?;
    }
    if let Some(new) = patch.name.as_deref().filter(|new| *new != record.name) {
        tenants::rename(&mut tx, record.id, &catalog::Name::slug(new)?).await?;
        let data = serde_json::json!({ "from": record.name, "to": new });
        events::append(&mut tx, &[caller.event("tenant.renamed", Some(record.id), data, reason)]).await?;
    }
    if let Some(protected) = patch.protected {
        tenants::set_protected(&mut tx, record.id, protected).await?;
        let kind = if protected { "tenant.protected" } else { "tenant.unprotected" };
        events::append(&mut tx, &[caller.event(kind, Some(record.id), serde_json::json!({}), reason)]).await?;
    }
    let record = lookup::tenant(&mut tx, &record.id.to_string()).await?;
    let response = answer(&mut tx, record).await?;
    let action = "would get this name, these labels and this protection".to_owned();
    settle(tx, patch.dry_run, Change { kind: "tenant.changed", tenant: Some(name), action }, response).await
}

/// Honours If-Match.
pub(crate) fn unchanged(headers: &HeaderMap, record: &TenantRecord) -> Result<()> {
    let Some(wanted) = text_header(headers, header::IF_MATCH.as_str()) else { return Ok(()) };
    let now = etag(record);
    if wanted.trim() == "*" || wanted.split(',').any(|tag| tag.trim() == now) {
        return Ok(());
    }
    let detail = format!("the tenant is at {now}, the request expects {}", lookup::shown(wanted));
    Err(Problem::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail).try_next("read it again"))
}

fn etag(record: &TenantRecord) -> String {
    format!("\"g{}\"", record.generation)
}

/// One tenant with its names, and its ETag.
async fn answer(tx: &mut ReadTx, record: TenantRecord) -> Result<Response> {
    let server = servers::get(tx, record.server_id).await?;
    let names = names::of_tenant(tx, record.id).await?;
    let etag = HeaderValue::from_str(&etag(&record)).expect("digits in quotes");
    let mut body = Tenant::new(record, server.as_ref(), head_version(tx).await?);
    body.names = Some(names.into_iter().map(|(name, _)| name.as_str().to_owned()).collect());
    Ok(([(header::ETAG, etag)], Json(body)).into_response())
}
