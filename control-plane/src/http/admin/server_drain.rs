//! `/v1/servers/{server}/drain`: no new tenants, and those that are there go to other servers.

use axum::extract::State;
use axum::response::Response;
use catalog::{ServerState, events, servers};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{self, Planned, check_reason};
use super::lookup;
use super::operations::Operation;
use crate::http::Api;
use crate::http::admission::Caller;
use crate::http::error::{ProblemBody, Result};
use crate::http::extract::{Json, Path};
use crate::http::number::Concurrency;
use crate::operations::{Params, r#move};
use crate::plan::Selection;
use crate::runner::submit::{Mode, Submission};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(drain))
}

/// How to empty a server.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ServerDrain {
    /// The name of a server; spread over all that take tenants unless given.
    to: Option<String>,
    /// Tenants at once: 1 to 128; 4 unless given.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 128)]
    max_parallel: Option<Concurrency>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Enough to keep a server busy, few enough that it still serves.
const PARALLEL: u32 = 4;

/// Takes no new tenants any more, and moves those that are there.
#[utoipa::path(post, path = "/v1/servers/{server}/drain", tag = "servers", request_body = ServerDrain, params(("server" = String, Path, description = "Name or id")),
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn drain(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Json(run): Json<ServerDrain>,
) -> Result<Response> {
    check_reason(run.reason.as_deref())?;
    let server = lookup::server(&mut api.app.catalog.read().await?, &name).await?;
    let submission = Submission {
        params: Params::Move(r#move::Params { to: run.to, ..Default::default() }),
        targets: Selection { server: Some(server.name.clone()), allow_empty: true, ..Selection::default() },
        reason: run.reason.clone(),
        concurrency: Some(run.max_parallel.map_or(PARALLEL, Concurrency::narrow)),
        expect_count: None,
    };
    if !run.dry_run {
        // What cannot be planned changes nothing, the server's state neither.
        api.app.submit(&caller.who, submission.clone(), Mode::Plan).await?;
        // First, so that no tenant is made there that the moves do not know of.
        let mut tx = api.app.catalog.write().await?;
        servers::set_state(&mut tx, server.id, ServerState::Draining).await?;
        let data = serde_json::json!({ "server": server.name, "state": ServerState::Draining });
        events::append(&mut tx, &[caller.event("server.state_changed", None, data, run.reason.as_deref())]).await?;
        tx.commit().await?;
    }
    change::submit(&api, &caller, submission, run.dry_run).await
}
