//! `/v1/servers/{server}/drain`: closes a server to new tenants, and moves its tenants to other servers.

use axum::extract::State;
use axum::response::Response;
use catalog::{ServerRecord, ServerState, events, servers};
use fleet_api::bounded_number::StepConcurrency;
use fleet_api::changes::PlannedChange;
use fleet_api::operations::OperationView;
use fleet_api::problem::ProblemBody;
use fleet_api::servers::ServerDrain;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::ApiState;
use crate::http::admin::change::{self, check_reason};
use crate::http::admin::lookup;
use crate::http::admission::AdmittedCaller;
use crate::http::error::Result;
use crate::http::extract::{JsonBody, PathParams};
use crate::operations::{OperationParams, r#move};
use crate::plan::TenantSelection;
use crate::runner::submit::{Submission, SubmitMode};

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(drain_server))
}

/// Moves at once: enough to keep a server busy, few enough that it still serves.
const PARALLEL: u32 = 4;

/// Drain a server: place no new tenants on it, and move its tenants to other servers.
#[utoipa::path(post, path = "/v1/servers/{server}/drain", tag = "servers", request_body = ServerDrain, params(("server" = String, Path, description = "Name or id of the server")),
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn drain_server(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    JsonBody(run): JsonBody<ServerDrain>,
) -> Result<Response> {
    check_reason(run.reason.as_deref())?;
    let server = lookup::find_server(&mut api.app.catalog.read().await?, &name).await?;
    let submission = Submission {
        operation: OperationParams::Move(r#move::MoveParams { to: run.to, ..Default::default() }).into(),
        targets: TenantSelection { server: Some(server.name.clone()), allow_empty: true, ..TenantSelection::default() },
        reason: run.reason.clone(),
        concurrency: Some(run.max_parallel.map_or(PARALLEL, StepConcurrency::to_u32)),
        expect_count: None,
    };
    if !run.dry_run {
        // If the moves cannot be planned, nothing changes, including the server's state.
        api.app.runner.submit_operation(&caller.who, submission.clone(), SubmitMode::Plan).await?;
        // The server is closed first, so that no tenant is created on it that the moves do not include.
        close(&api, &caller, &server, run.reason.as_deref()).await?;
    }
    change::submit_or_plan(&api, &caller, submission, run.dry_run).await
}

/// Closes the server. Does so once, even if the request is repeated because its process ended before the moves were
/// submitted.
async fn close(api: &ApiState, caller: &AdmittedCaller, server: &ServerRecord, reason: Option<&str>) -> Result<()> {
    let mut tx = api.app.catalog.write().await?;
    let now = servers::get(&mut tx, server.id).await?;
    if now.is_some_and(|now| now.state == ServerState::Draining) {
        return Ok(());
    }
    servers::set_state(&mut tx, server.id, ServerState::Draining).await?;
    let data = serde_json::json!({ "server": server.name, "state": ServerState::Draining });
    events::append_events(&mut tx, &[caller.caller_event("server.state_changed", None, data, reason)]).await?;
    Ok(tx.commit().await?)
}
