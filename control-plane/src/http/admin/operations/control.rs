//! Controls an operation for an operator: pause, resume, retry, cancel, abandon.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use catalog::operations as catalog_operations;
use catalog::{OperationId, ReadTx};
use fleet_api::changes::ChangeOptions;
use fleet_api::operations::OperationView;
use fleet_api::problem::ProblemBody;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::find_operation;
use crate::http::ApiState;
use crate::http::admin::change::check_reason;
use crate::http::admin::change::planned_change;
use crate::http::admin::change::tenant_plan;
use crate::http::admin::lookup;
use crate::http::admin::operations::operation_view;
use crate::http::admission::AdmittedCaller;
use crate::http::error::Result;
use crate::http::extract::{JsonBody, PathParams};
use crate::runner::control::OperationControl;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(pause_operation))
        .routes(routes!(resume_operation))
        .routes(routes!(retry_operation))
        .routes(routes!(cancel_operation))
        .routes(routes!(abandon_operation))
}

/// Pause an operation: start no more steps. Running steps finish.
#[utoipa::path(post, path = "/v1/operations/{operation}/pause", tag = "operations", request_body = ChangeOptions, params(("operation" = String, Path, description = "Id of the operation: op_…")),
    responses((status = 200, description = "The operation after the request", body = OperationView), (status = 409, description = "The state of the operation does not allow this", body = ProblemBody)))]
async fn pause_operation(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    apply_control(&api, &caller, &id, OperationControl::Pause, wish).await
}

/// Resume a paused operation.
#[utoipa::path(post, path = "/v1/operations/{operation}/resume", tag = "operations", request_body = ChangeOptions, params(("operation" = String, Path, description = "Id of the operation: op_…")),
    responses((status = 200, description = "The operation after the request", body = OperationView), (status = 409, description = "The state of the operation does not allow this", body = ProblemBody)))]
async fn resume_operation(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    apply_control(&api, &caller, &id, OperationControl::Resume, wish).await
}

/// Retry the failed steps of an operation.
#[utoipa::path(post, path = "/v1/operations/{operation}/retry", tag = "operations", request_body = ChangeOptions, params(("operation" = String, Path, description = "Id of the operation: op_…")),
    responses((status = 200, description = "The operation after the request", body = OperationView), (status = 409, description = "The state of the operation does not allow this", body = ProblemBody)))]
async fn retry_operation(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    apply_control(&api, &caller, &id, OperationControl::Retry, wish).await
}

/// Cancel an operation: run no more steps, permanently.
#[utoipa::path(post, path = "/v1/operations/{operation}/cancel", tag = "operations", request_body = ChangeOptions, params(("operation" = String, Path, description = "Id of the operation: op_…")),
    responses((status = 200, description = "The operation after the request", body = OperationView), (status = 409, description = "The state of the operation does not allow this", body = ProblemBody)))]
async fn cancel_operation(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    apply_control(&api, &caller, &id, OperationControl::Cancel, wish).await
}

/// Abandon an operation: cancel it, and remove its half-finished work.
#[utoipa::path(post, path = "/v1/operations/{operation}/abandon", tag = "operations", request_body = ChangeOptions, params(("operation" = String, Path, description = "Id of the operation: op_…")),
    responses((status = 200, description = "The operation after the request", body = OperationView), (status = 409, description = "The state of the operation does not allow this", body = ProblemBody)))]
async fn abandon_operation(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    apply_control(&api, &caller, &id, OperationControl::Abandon, wish).await
}

async fn apply_control(
    api: &ApiState,
    caller: &AdmittedCaller,
    id: &str,
    what: OperationControl,
    wish: ChangeOptions,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let id: OperationId = lookup::parse_id(id)?;
    if wish.dry_run {
        return plan_control(&mut api.app.catalog.read().await?, id, what).await;
    }
    let record = api.app.runner.control_operation(&caller.who, id, what, wish.reason.as_deref()).await?;
    Ok(JsonBody(operation_view(&mut api.app.catalog.read().await?, record).await?).into_response())
}

/// The plan of a control: how many steps it concerns, and the operation's state.
async fn plan_control(tx: &mut ReadTx, id: OperationId, what: OperationControl) -> Result<Response> {
    let record = find_operation(tx, id).await?;
    let progress = catalog_operations::operation_progress(tx, id).await?;
    let (kind, steps) = match what {
        OperationControl::Pause => ("operation.pause", progress.pending),
        OperationControl::Resume => ("operation.resume", progress.pending),
        OperationControl::Retry => ("operation.retry", progress.failed),
        OperationControl::Cancel => ("operation.cancel", progress.pending),
        OperationControl::Abandon => ("operation.abandon", progress.pending + progress.failed),
    };
    let note = format!("the {} operation is {:?}", record.kind, record.state).to_lowercase();
    Ok(JsonBody(planned_change(tenant_plan(kind, steps.unsigned_abs(), note))).into_response())
}
