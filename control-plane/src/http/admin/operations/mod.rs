//! `/v1/operations`: fleet operations, their progress, and their control.

mod control;
mod follow;

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
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::bounded_number::{BoundedNumber, PageLimit};
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams};
use crate::http::pages::{PageOf, PageWindow};
use crate::time_text;

/// Maximum time that a request may wait, seconds. Proxies close silent requests after about as long.
type WaitSeconds = BoundedNumber<0, 60>;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_operations))
        .routes(routes!(get_operation))
        .routes(routes!(list_steps))
        .merge(control::routes())
        .merge(follow::routes())
}

/// An operation: a piece of work on the fleet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Operation)]
pub(crate) struct OperationView {
    /// Id of the operation: `op_…`.
    pub(crate) id: String,
    /// Kind of the operation: create, migrate, backup, restore, restore_undo, verify, delete …
    kind: String,
    /// State of the operation: pending, running, paused, succeeded, partial, failed or cancelled.
    #[schema(value_type = String)]
    state: OperationState,
    /// Work of the whole operation before its first tenant, for instance building the template of new tenants. Null at
    /// other times.
    phase: Option<&'static str>,
    /// Number of tenants by state of their work.
    progress: TenantProgress,
    /// Time of creation, RFC 3339.
    created_at: String,
    /// Time at which the operation started, RFC 3339; null before that.
    started_at: Option<String>,
    /// Time at which the operation ended, RFC 3339; null before that.
    finished_at: Option<String>,
    /// Actor that requested the operation.
    requested_by: String,
    /// Reason that was given with the request; null if none was given.
    reason: Option<String>,
    /// Error of the operation itself, not of a step; null if there is none.
    error: Option<FailureDetail>,
    /// Parameters of the operation; the fields depend on its kind. The result for each tenant is in its step.
    params: serde_json::Value,
}

/// Numbers of tenants by state of their work. `total` is their sum, without `left`, which is part of `skipped`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Progress)]
pub(crate) struct TenantProgress {
    /// Number of all tenants of the operation.
    total: i64,
    /// Number of tenants whose work succeeded.
    done: i64,
    /// Number of tenants whose work failed.
    failed: i64,
    /// Number of tenants that needed no work, were cancelled, or had left the selection.
    skipped: i64,
    /// Number of the skipped tenants that had left the selection or were left out. Their steps contain the reasons.
    left: i64,
    /// Number of tenants that are being worked on.
    running: i64,
    /// Number of tenants that wait for their turn.
    pending: i64,
}

/// The cause of a failure.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fault)]
pub(crate) struct FailureDetail {
    /// Stable error code, for programs.
    pub(crate) code: String,
    /// Description of the error, for people.
    pub(crate) detail: String,
}

impl FailureDetail {
    /// `None` when nothing failed.
    pub(crate) fn new(code: Option<String>, detail: Option<String>) -> Option<Self> {
        code.map(|code| Self { code, detail: detail.unwrap_or_default() })
    }
}

impl OperationView {
    /// The API's view of a record, with counts of its steps.
    pub(crate) async fn with_progress(tx: &mut ReadTx, record: OperationRecord) -> Result<Self> {
        let counted = operations::operation_progress(tx, record.id).await?;
        let progress = TenantProgress {
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
            phase: opening_phase(&record),
            kind: record.kind,
            state: record.state,
            progress,
            created_at: time_text::format_time(record.created_at),
            started_at: time_text::format_optional(record.started_at),
            finished_at: time_text::format_optional(record.finished_at),
            requested_by: record.requested_by,
            reason: record.reason,
            error: FailureDetail::new(record.error_code, record.error),
            params: serde_json::from_str(&record.params).unwrap_or_default(),
        })
    }
}

/// The description of what an unfinished operation does before its first step.
fn opening_phase(record: &OperationRecord) -> Option<&'static str> {
    let params = (crate::operations::registry().parse_record)(record).ok().filter(|_| record.finished_at.is_none())?;
    params.describe_opening()
}

/// Filters of a list of operations.
#[derive(Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OperationFilters {
    /// Only operations in these states, separated by commas.
    state: Option<String>,
    /// Only operations of this kind.
    kind: Option<String>,
    /// Only operations with a step on the tenant with this name or id.
    tenant: Option<String>,
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    cursor: Option<String>,
}

/// List the operations, newest first.
#[utoipa::path(get, path = "/v1/operations", tag = "operations", params(OperationFilters),
    responses((status = 200, description = "One page of the list", body = PageOf<OperationView>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_operations(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    QueryParams(filters): QueryParams<OperationFilters>,
) -> Result<JsonBody<PageOf<OperationView>>> {
    let window =
        PageWindow::open_window(&api, &caller, "operations", &filters, (filters.limit, filters.cursor.as_deref()))?;
    let states = lookup::parse_states("state", filters.state.as_deref())?;
    let mut tx = api.app.catalog.read().await?;
    let tenant = match &filters.tenant {
        Some(name) => Some(lookup::find_tenant(&mut tx, name).await?.id),
        None => None,
    };
    let kind = lookup::parse_word("kind", filters.kind.as_deref(), crate::operations::KINDS)?;
    let rows =
        operations::list_operations(&mut tx, &states, kind, tenant, window.after_key()?, window.rows_to_read()).await?;
    let page = window.into_page(rows, |row| row.id.to_string(), |row| row);
    let mut items = Vec::with_capacity(page.items.len());
    for record in page.items {
        items.push(OperationView::with_progress(&mut tx, record).await?);
    }
    Ok(JsonBody(PageOf { items, next_cursor: page.next_cursor }))
}

/// Waiting time of the request.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WaitQuery {
    /// Maximum time to wait for the end of the operation, in seconds: 0 to 60. Default: 0.
    #[param(value_type = Option<u64>, minimum = 0, maximum = 60)]
    wait_seconds: Option<WaitSeconds>,
}

/// Get one operation.
///
/// With `wait_seconds`, the answer comes when the operation has ended or is paused, or when the time is over. A process
/// without listeners runs the operation meanwhile.
#[utoipa::path(get, path = "/v1/operations/{operation}", tag = "operations", params(("operation" = String, Path, description = "Id of the operation: op_…"), WaitQuery),
    responses((status = 200, description = "The operation", body = OperationView), (status = 404, description = "No operation has this id", body = ProblemBody)))]
async fn get_operation(
    State(api): State<ApiState>,
    _caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    QueryParams(wait): QueryParams<WaitQuery>,
) -> Result<JsonBody<OperationView>> {
    let id: OperationId = lookup::parse_id(&id)?;
    let mut record = find_operation(&mut api.app.catalog.read().await?, id).await?;
    let seconds = wait.wait_seconds.map_or(0, WaitSeconds::get);
    if seconds > 0 && !is_over(record.state) {
        record = tokio::select! {
            record = api.app.wait_for_operation(id, Duration::from_secs(seconds)) => record?,
            () = api.draining.cancelled() => record,
        };
    }
    Ok(JsonBody(OperationView::with_progress(&mut api.app.catalog.read().await?, record).await?))
}

/// Whether the operation has ended. Only `retry` leaves such a state.
pub(crate) fn is_over(state: OperationState) -> bool {
    !matches!(state, OperationState::Pending | OperationState::Running | OperationState::Paused)
}

/// The operation with this id.
pub(crate) async fn find_operation(tx: &mut ReadTx, id: OperationId) -> Result<OperationRecord> {
    let found = operations::get(tx, id).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no operation {id}")).try_next("fleetctl op list"))
}

/// A step: the work of an operation on one tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Step)]
struct StepView {
    /// Current name of the tenant.
    tenant: String,
    /// Id of the tenant: `tnt_…`.
    tenant_id: String,
    /// State of the step: pending, running, succeeded, failed, cancelled or skipped.
    #[schema(value_type = String)]
    state: StepState,
    /// The next phase of the step.
    phase: String,
    /// Number of attempts so far.
    attempt: i64,
    /// Earliest time of the next attempt, RFC 3339; null if there is no wait.
    not_before_at: Option<String>,
    /// Error of the last attempt; null if there is none.
    error: Option<FailureDetail>,
    /// Reason why the tenant was skipped; null if it was not.
    skipped: Option<FailureDetail>,
    /// Facts that the operation has recorded about this tenant; the fields depend on its kind.
    facts: serde_json::Value,
    /// Time at which the step started, RFC 3339; null before that.
    started_at: Option<String>,
    /// Time at which the step ended, RFC 3339; null before that.
    finished_at: Option<String>,
}

impl StepView {
    fn new((record, tenant): (StepRecord, String)) -> Self {
        let fault = FailureDetail::new(record.error_code, record.error);
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
            not_before_at: (record.not_before > 0).then(|| time_text::format_time(record.not_before)),
            error,
            skipped,
            facts: serde_json::from_str(&record.facts).unwrap_or_default(),
            started_at: time_text::format_optional(record.started_at),
            finished_at: time_text::format_optional(record.finished_at),
        }
    }
}

/// Filters of a list of steps.
#[derive(Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StepFilters {
    /// Only steps in these states, separated by commas.
    state: Option<String>,
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    cursor: Option<String>,
}

/// List the steps of an operation, ordered by tenant.
#[utoipa::path(get, path = "/v1/operations/{operation}/steps", tag = "operations", params(("operation" = String, Path, description = "Id of the operation: op_…"), StepFilters),
    responses((status = 200, description = "One page of the list", body = PageOf<StepView>), (status = 404, description = "No operation has this id", body = ProblemBody)))]
async fn list_steps(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    QueryParams(filters): QueryParams<StepFilters>,
) -> Result<JsonBody<PageOf<StepView>>> {
    let id: OperationId = lookup::parse_id(&id)?;
    let part = (filters.limit, filters.cursor.as_deref());
    let window = PageWindow::open_window(&api, &caller, "steps", &(id, &filters.state), part)?;
    let states = lookup::parse_states("state", filters.state.as_deref())?;
    let mut tx = api.app.catalog.read().await?;
    find_operation(&mut tx, id).await?;
    let rows = steps::list_steps(&mut tx, id, &states, window.after_key()?, window.rows_to_read()).await?;
    Ok(JsonBody(window.into_page(rows, |(step, _)| step.tenant_id.to_string(), StepView::new)))
}
