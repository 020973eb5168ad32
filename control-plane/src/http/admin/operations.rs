//! `/v1/operations`: fleet work, how far it is, and an operator's hand on it.

use std::time::Duration;

use axum::extract::State;
use catalog::operations::{self, OperationRecord, OperationState};
use catalog::steps::{self, StepRecord, StepState};
use catalog::{OperationId, ReadTx};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::lookup;
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{Json, Path, Query};
use crate::http::number::{Limit, Within};
use crate::http::pages::{PageOf, Window};
use crate::http::{Api, time};

/// How long a request may wait; proxies do not keep a silent one open for longer.
type Seconds = Within<0, 60>;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get)).routes(routes!(list_steps))
}

/// A piece of fleet work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Operation {
    /// `op_…`
    pub(crate) id: String,
    /// create, migrate, backup, restore, restore_undo, verify, delete …
    kind: String,
    /// pending, running, paused, succeeded, partial, failed or cancelled.
    #[schema(value_type = String)]
    state: OperationState,
    /// How far it is.
    progress: Progress,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    started_at: Option<String>,
    /// RFC 3339.
    finished_at: Option<String>,
    /// Who asked.
    requested_by: String,
    /// Why.
    reason: Option<String>,
    /// Of the operation itself, not of a step.
    error: Option<Fault>,
    /// What it was asked to do, as its kind says; what came of each tenant is in its step.
    params: serde_json::Value,
}

/// Tenants by how far they are; all of them sum up to `total`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Progress {
    /// All of them.
    total: i64,
    /// Done.
    done: i64,
    /// Given up.
    failed: i64,
    /// Needed nothing, were cancelled, or had left the selection.
    skipped: i64,
    /// Of the skipped: those that had left the selection, or were left out; their steps say why.
    left: i64,
    /// At work.
    running: i64,
    /// Waiting.
    pending: i64,
}

/// Why something failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Fault {
    /// The stable code.
    pub(crate) code: String,
    /// In words.
    pub(crate) detail: String,
}

impl Fault {
    /// `None` when nothing failed.
    pub(crate) fn new(code: Option<String>, detail: Option<String>) -> Option<Self> {
        code.map(|code| Self { code, detail: detail.unwrap_or_default() })
    }
}

impl Operation {
    /// The wire form of a record; counts its steps.
    pub(crate) async fn read(tx: &mut ReadTx, record: OperationRecord) -> Result<Self> {
        let counted = operations::progress(tx, record.id).await?;
        let progress = Progress {
            total: record.steps_total + record.steps_skipped,
            done: counted.succeeded,
            failed: counted.failed,
            skipped: record.steps_skipped + counted.cancelled + counted.skipped,
            left: counted.skipped,
            running: counted.running,
            pending: counted.pending,
        };
        Ok(Self {
            id: record.id.to_string(),
            kind: record.kind,
            state: record.state,
            progress,
            created_at: time::text(record.created_at),
            started_at: time::maybe(record.started_at),
            finished_at: time::maybe(record.finished_at),
            requested_by: record.requested_by,
            reason: record.reason,
            error: Fault::new(record.error_code, record.error),
            params: serde_json::from_str(&record.params).unwrap_or_default(),
        })
    }
}

/// Which operations.
#[derive(Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filters {
    /// One state or several, separated by commas.
    state: Option<String>,
    /// One kind.
    kind: Option<String>,
    /// Only those that have a step on this tenant (name or id).
    tenant: Option<String>,
    /// 1 to 1000; 100 unless given.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<Limit>,
    /// From the page before.
    cursor: Option<String>,
}

/// The operations, newest first.
#[utoipa::path(get, path = "/v1/operations", tag = "operations", params(Filters),
    responses((status = 200, description = "A page", body = PageOf<Operation>), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(filters): Query<Filters>,
) -> Result<Json<PageOf<Operation>>> {
    let window = Window::open(&api, &caller, "operations", &filters, (filters.limit, filters.cursor.as_deref()))?;
    let states = lookup::states("state", filters.state.as_deref())?;
    let mut tx = api.app.catalog.read().await?;
    let tenant = match &filters.tenant {
        Some(name) => Some(lookup::tenant(&mut tx, name).await?.id),
        None => None,
    };
    let kind = lookup::known("kind", filters.kind.as_deref(), crate::operations::KINDS)?;
    let rows = operations::page(&mut tx, &states, kind, tenant, window.after()?, window.rows()).await?;
    let page = window.page(rows, |row| row.id.to_string(), |row| row);
    let mut items = Vec::with_capacity(page.items.len());
    for record in page.items {
        items.push(Operation::read(&mut tx, record).await?);
    }
    Ok(Json(PageOf { items, next_cursor: page.next_cursor }))
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wait {
    /// Answer when the operation has ended, or after so many seconds: 0 to 60, 0 unless given.
    #[param(value_type = Option<u64>, minimum = 0, maximum = 60)]
    wait_seconds: Option<Seconds>,
}

/// One operation; with `wait_seconds`, as soon as it has ended. A process that serves no one runs it meanwhile.
#[utoipa::path(get, path = "/v1/operations/{operation}", tag = "operations", params(("operation" = String, Path, description = "op_…"), Wait),
    responses((status = 200, description = "The operation", body = Operation), (status = 404, description = "No such operation", body = ProblemBody)))]
async fn get(
    State(api): State<Api>,
    _caller: Caller,
    Path(id): Path<String>,
    Query(wait): Query<Wait>,
) -> Result<Json<Operation>> {
    let id: OperationId = lookup::id(&id)?;
    let mut record = find(&mut api.app.catalog.read().await?, id).await?;
    let seconds = wait.wait_seconds.map_or(0, Seconds::get);
    if seconds > 0 && !is_over(record.state) {
        record = tokio::select! {
            record = api.app.wait(id, Duration::from_secs(seconds)) => record?,
            () = api.draining.cancelled() => record,
        };
    }
    Ok(Json(Operation::read(&mut api.app.catalog.read().await?, record).await?))
}

/// True for the states that only an operator's `retry` leaves.
pub(crate) fn is_over(state: OperationState) -> bool {
    !matches!(state, OperationState::Pending | OperationState::Running | OperationState::Paused)
}

/// The operation of this id.
pub(crate) async fn find(tx: &mut ReadTx, id: OperationId) -> Result<OperationRecord> {
    let found = operations::get(tx, id).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no operation {id}")).try_next("fleetctl op list"))
}

/// An operation on one tenant.
#[derive(Debug, Serialize, ToSchema)]
struct Step {
    /// The tenant's name.
    tenant: String,
    /// The tenant's id.
    tenant_id: String,
    /// pending, running, succeeded, failed, cancelled or skipped.
    #[schema(value_type = String)]
    state: StepState,
    /// What it does next.
    phase: String,
    /// How often it was tried.
    attempt: i64,
    /// RFC 3339: not tried before.
    not_before_at: Option<String>,
    /// Of the last try.
    error: Option<Fault>,
    /// Why the tenant was skipped.
    skipped: Option<Fault>,
    /// What the operation knows of this tenant.
    facts: serde_json::Value,
    /// RFC 3339.
    started_at: Option<String>,
    /// RFC 3339.
    finished_at: Option<String>,
}

impl Step {
    fn new((record, tenant): (StepRecord, String)) -> Self {
        let fault = Fault::new(record.error_code, record.error);
        let (error, skipped) = match record.state {
            StepState::Skipped => (None, fault),
            _ => (fault, None),
        };
        Self {
            tenant,
            tenant_id: record.tenant_id.to_string(),
            state: record.state,
            phase: record.phase,
            attempt: record.attempt,
            not_before_at: (record.not_before > 0).then(|| time::text(record.not_before)),
            error,
            skipped,
            facts: serde_json::from_str(&record.facts).unwrap_or_default(),
            started_at: time::maybe(record.started_at),
            finished_at: time::maybe(record.finished_at),
        }
    }
}

/// Which steps.
#[derive(Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StepFilters {
    /// One state or several, separated by commas.
    state: Option<String>,
    /// 1 to 1000; 100 unless given.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<Limit>,
    /// From the page before.
    cursor: Option<String>,
}

/// The steps of an operation, by tenant.
#[utoipa::path(get, path = "/v1/operations/{operation}/steps", tag = "operations", params(("operation" = String, Path, description = "op_…"), StepFilters),
    responses((status = 200, description = "A page", body = PageOf<Step>), (status = 404, description = "No such operation", body = ProblemBody)))]
async fn list_steps(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Query(filters): Query<StepFilters>,
) -> Result<Json<PageOf<Step>>> {
    let id: OperationId = lookup::id(&id)?;
    let part = (filters.limit, filters.cursor.as_deref());
    let window = Window::open(&api, &caller, "steps", &(id, &filters.state), part)?;
    let states = lookup::states("state", filters.state.as_deref())?;
    let mut tx = api.app.catalog.read().await?;
    find(&mut tx, id).await?;
    let rows = steps::page(&mut tx, id, &states, window.after()?, window.rows()).await?;
    Ok(Json(window.page(rows, |(step, _)| step.tenant_id.to_string(), Step::new)))
}
