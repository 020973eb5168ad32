//! `/v1/lifecycle`: changes of the state or the server of existing tenants.

use axum::extract::State;
use axum::response::Response;
use fleet_api::bounded_number::{StepConcurrency, TenantCount};
use fleet_api::changes::PlannedChange;
use fleet_api::operations::OperationView;
use fleet_api::problem::ProblemBody;
use fleet_api::tenants::{LifecycleChange, LifecycleClone, LifecycleMove, LifecycleReadOnly, LifecycleSettle};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::ApiState;
use crate::http::admin::change;
use crate::http::admin::lookup;
use crate::http::admission::AdmittedCaller;
use crate::http::error::Result;
use crate::http::extract::JsonBody;
use crate::operations::{
    OperationParams, archive, clone, r#move, purge, read_only, resume, settle, suspend, unarchive, undelete,
};
use crate::plan;
use crate::runner::submit::Submission;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(suspend_tenants))
        .routes(routes!(resume_tenants))
        .routes(routes!(archive_tenants))
        .routes(routes!(unarchive_tenants))
        .routes(routes!(undelete_tenants))
        .routes(routes!(purge_tenants))
        .routes(routes!(settle_tenants))
        .routes(routes!(set_read_only))
        .routes(routes!(move_tenants))
        .routes(routes!(clone_tenant))
}

async fn submit_change(
    run: LifecycleChange,
    api: &ApiState,
    caller: &AdmittedCaller,
    params: OperationParams,
) -> Result<Response> {
    let submission = Submission {
        operation: params.into(),
        targets: run.selection.into(),
        reason: run.reason,
        concurrency: run.concurrency.map(StepConcurrency::to_u32),
        expect_count: run.expect_count.map(TenantCount::get),
    };
    change::submit_or_plan(api, caller, submission, run.dry_run).await
}

/// Suspend tenants: take them out of service.
///
/// Operators see the reason.
#[utoipa::path(post, path = "/v1/lifecycle/suspend", tag = "lifecycle", request_body = LifecycleChange,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn suspend_tenants(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(run): JsonBody<LifecycleChange>,
) -> Result<Response> {
    submit_change(run, &api, &caller, OperationParams::Suspend(suspend::SuspendParams::default())).await
}

/// Resume suspended tenants.
#[utoipa::path(post, path = "/v1/lifecycle/resume", tag = "lifecycle", request_body = LifecycleChange,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn resume_tenants(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(run): JsonBody<LifecycleChange>,
) -> Result<Response> {
    submit_change(run, &api, &caller, OperationParams::Resume(resume::ResumeParams::default())).await
}

/// Archive tenants: back up, verify the backups, and drop the databases.
#[utoipa::path(post, path = "/v1/lifecycle/archive", tag = "lifecycle", request_body = LifecycleChange,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn archive_tenants(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(run): JsonBody<LifecycleChange>,
) -> Result<Response> {
    submit_change(run, &api, &caller, OperationParams::Archive(archive::ArchiveParams::default())).await
}

/// Restore the databases of archived tenants.
#[utoipa::path(post, path = "/v1/lifecycle/unarchive", tag = "lifecycle", request_body = LifecycleChange,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn unarchive_tenants(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(run): JsonBody<LifecycleChange>,
) -> Result<Response> {
    submit_change(run, &api, &caller, OperationParams::Unarchive(unarchive::UnarchiveParams::default())).await
}

/// Undelete tenants.
#[utoipa::path(post, path = "/v1/lifecycle/undelete", tag = "lifecycle", request_body = LifecycleChange,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn undelete_tenants(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(run): JsonBody<LifecycleChange>,
) -> Result<Response> {
    submit_change(run, &api, &caller, OperationParams::Undelete(undelete::UndeleteParams::default())).await
}

/// Purge deleted tenants: drop their databases permanently.
#[utoipa::path(post, path = "/v1/lifecycle/purge", tag = "lifecycle", request_body = LifecycleChange,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn purge_tenants(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(run): JsonBody<LifecycleChange>,
) -> Result<Response> {
    submit_change(run, &api, &caller, OperationParams::Purge(purge::PurgeParams::default())).await
}

/// Repair tenants that a failed operation left fenced, so that they serve again.
#[utoipa::path(post, path = "/v1/lifecycle/settle", tag = "lifecycle", request_body = LifecycleSettle,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn settle_tenants(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(run): JsonBody<LifecycleSettle>,
) -> Result<Response> {
    let submission = Submission {
        operation: OperationParams::Settle(settle::SettleParams { back: run.back, newest: run.newest }).into(),
        targets: run.selection.into(),
        reason: run.reason,
        concurrency: run.concurrency.map(StepConcurrency::to_u32),
        expect_count: run.expect_count.map(TenantCount::get),
    };
    change::submit_or_plan(&api, &caller, submission, run.dry_run).await
}

/// Block the writes of tenants, or allow them again.
#[utoipa::path(post, path = "/v1/lifecycle/read-only", tag = "lifecycle", request_body = LifecycleReadOnly,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn set_read_only(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(run): JsonBody<LifecycleReadOnly>,
) -> Result<Response> {
    let mut submission =
        Submission::new(OperationParams::ReadOnly(read_only::ReadOnlyParams { on: run.on }), run.selection.into());
    submission.reason = run.reason;
    submission.concurrency = run.concurrency.map(StepConcurrency::to_u32);
    submission.expect_count = run.expect_count.map(TenantCount::get);
    change::submit_or_plan(&api, &caller, submission, run.dry_run).await
}

/// Move tenants to another server.
///
/// Reads continue during the move. Writes wait for a moment.
#[utoipa::path(post, path = "/v1/lifecycle/move", tag = "lifecycle", request_body = LifecycleMove,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn move_tenants(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(run): JsonBody<LifecycleMove>,
) -> Result<Response> {
    let submission = Submission {
        operation: OperationParams::Move(r#move::MoveParams { to: run.to, ..Default::default() }).into(),
        targets: run.selection.into(),
        reason: run.reason,
        concurrency: run.concurrency.map(StepConcurrency::to_u32),
        expect_count: run.expect_count.map(TenantCount::get),
    };
    change::submit_or_plan(&api, &caller, submission, run.dry_run).await
}

/// Clone a tenant: create a new tenant with a copy of its current data.
#[utoipa::path(post, path = "/v1/lifecycle/clone", tag = "lifecycle", request_body = LifecycleClone,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange),
        (status = 409, description = "The name belongs to another tenant", body = ProblemBody), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn clone_tenant(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(run): JsonBody<LifecycleClone>,
) -> Result<Response> {
    let tenant = lookup::find_tenant(&mut api.app.catalog.read().await?, &run.tenant).await?;
    let params = OperationParams::Clone(clone::CloneParams { name: run.as_name, source: None });
    let mut submission = Submission::new(params, plan::TenantSelection::one_tenant(tenant.id.to_string()));
    submission.reason = run.reason;
    change::submit_or_plan(&api, &caller, submission, run.dry_run).await
}
