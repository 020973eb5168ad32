//! `/v1/operations`: fleet operations, their progress, and their control.

mod control;
mod follow;

use std::time::Duration;

use axum::extract::State;
use catalog::operations::{self, OperationRecord, OperationState};
use catalog::steps::{self, StepRecord, StepState};
use catalog::{OperationId, ReadTx};
use fleet_api::bounded_number::WaitSeconds;
use fleet_api::operations::{
    FailureDetail, OperationFilters, OperationView, StepFilters, StepView, TenantProgress, WaitQuery,
};
use fleet_api::pages::PageOf;
use fleet_api::problem::ProblemBody;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::lookup;
use crate::http::ApiState;
use crate::http::admin::words::word_of;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams};
use crate::http::pages::PageWindow;
use crate::time_text;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_operations))
        .routes(routes!(get_operation))
        .routes(routes!(list_steps))
        .merge(control::routes())
        .merge(follow::routes())
}

/// `None` when nothing failed.
pub(crate) fn failure_detail(code: Option<String>, detail: Option<String>) -> Option<FailureDetail> {
    code.map(|code| FailureDetail { code, detail: detail.unwrap_or_default() })
}

/// The API's view of a record, with counts of its steps.
pub(crate) async fn operation_view(tx: &mut ReadTx, record: OperationRecord) -> Result<OperationView> {
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
    Ok(OperationView {
        id: record.id.to_string(),
        phase: opening_phase(&record).map(str::to_owned),
        kind: record.kind,
        state: word_of(&record.state),
        progress,
        created_at: time_text::format_time(record.created_at),
        started_at: time_text::format_optional(record.started_at),
        finished_at: time_text::format_optional(record.finished_at),
        requested_by: record.requested_by,
        reason: record.reason,
        error: failure_detail(record.error_code, record.error),
        params: serde_json::from_str(&record.params).unwrap_or_default(),
    })
}

/// The description of what an unfinished operation does before its first step.
fn opening_phase(record: &OperationRecord) -> Option<&'static str> {
    let params = (crate::operations::registry().parse_record)(record).ok().filter(|_| record.finished_at.is_none())?;
    params.describe_opening()
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
        items.push(operation_view(&mut tx, record).await?);
    }
    Ok(JsonBody(PageOf { items, next_cursor: page.next_cursor }))
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
            record = api.app.runner.wait_for_operation(id, Duration::from_secs(seconds)) => record?,
            () = api.draining.cancelled() => record,
        };
    }
    Ok(JsonBody(operation_view(&mut api.app.catalog.read().await?, record).await?))
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

fn step_view((record, tenant): (StepRecord, String)) -> StepView {
    let fault = failure_detail(record.error_code, record.error);
    let (error, skipped) = match record.state {
        StepState::Skipped => (None, fault),
        _ => (fault, None),
    };
    StepView {
        tenant,
        tenant_id: record.tenant_id.to_string(),
        state: word_of(&record.state),
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
    Ok(JsonBody(window.into_page(rows, |(step, _)| step.tenant_id.to_string(), step_view)))
}
