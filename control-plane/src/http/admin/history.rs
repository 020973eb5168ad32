//! `/v1/history`: how long ended operations and events are kept.

use axum::extract::State;
use axum::response::Response;
use catalog::history::{self, HistoryPolicy, OldestHistory};
use catalog::{ReadTx, events};
use fleet_api::bounded_number::KeptSeconds;
use fleet_api::history::{HistoryRetention, HistoryToKeep};
use fleet_api::problem::ProblemBody;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{CatalogChange, check_reason, finish_change};
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::JsonBody;
use crate::time_text;

const SECOND_MS: i64 = 1_000;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(get_history_policy)).routes(routes!(set_history_policy))
}

/// Get the retention times of history.
#[utoipa::path(get, path = "/v1/history", tag = "history", responses((status = 200, description = "The retention times", body = HistoryRetention)))]
async fn get_history_policy(
    State(api): State<ApiState>,
    _caller: AdmittedCaller,
) -> Result<JsonBody<HistoryRetention>> {
    let mut tx = api.app.catalog.read().await?;
    Ok(JsonBody(read_retention(&mut tx).await?))
}

/// Change the retention times of history.
///
/// A serving process removes older entries within an hour.
#[utoipa::path(patch, path = "/v1/history", tag = "history", request_body = HistoryToKeep,
    responses((status = 200, description = "The retention times after the change, or the plan of the dry run", body = HistoryRetention), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn set_history_policy(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(wanted): JsonBody<HistoryToKeep>,
) -> Result<Response> {
    check_reason(wanted.reason.as_deref())?;
    if wanted.operations_seconds.is_none() && wanted.events_seconds.is_none() {
        return Err(Problem::invalid("operations_seconds or events_seconds: expected at least one of them"));
    }
    let mut tx = api.app.catalog.write().await?;
    let before = history::history_policy(&mut tx).await?;
    let policy = HistoryPolicy {
        operations_ms: wanted.operations_seconds.map_or(before.operations_ms, kept_ms),
        events_ms: wanted.events_seconds.map_or(before.events_ms, kept_ms),
    };
    history::set_history_policy(&mut tx, policy).await?;
    let (operations, events_kept) = (policy.operations_ms / SECOND_MS, policy.events_ms / SECOND_MS);
    let data = serde_json::json!({ "operations_seconds": operations, "events_seconds": events_kept });
    let action = format!("operations would be kept for {operations} seconds, events for {events_kept} seconds");
    let change = CatalogChange { kind: "history.changed", tenant: None, action };
    events::append_events(&mut tx, &[caller.caller_event(change.kind, None, data, wanted.reason.as_deref())]).await?;
    let answer = read_retention(&mut tx).await?;
    finish_change(tx, &caller, wanted.dry_run, change, JsonBody(answer)).await
}

async fn read_retention(tx: &mut ReadTx) -> Result<HistoryRetention> {
    let policy = history::history_policy(tx).await?;
    let OldestHistory { operation_at, event_at } = history::oldest_history(tx).await?;
    Ok(HistoryRetention {
        operations_seconds: policy.operations_ms / SECOND_MS,
        events_seconds: policy.events_ms / SECOND_MS,
        oldest_operation_at: time_text::format_optional(operation_at),
        oldest_event_at: time_text::format_optional(event_at),
    })
}

fn kept_ms(seconds: KeptSeconds) -> i64 {
    seconds.to_i64() * SECOND_MS
}
