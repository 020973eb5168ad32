//! `/v1/history`: how long ended operations and events are kept.

use axum::extract::State;
use axum::response::Response;
use catalog::history::{self, HistoryPolicy, OldestHistory};
use catalog::{ReadTx, events};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{CatalogChange, check_reason, finish_change};
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::bounded_number::BoundedNumber;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::JsonBody;
use crate::time_text;

const SECOND_MS: i64 = 1_000;
/// The retention time, seconds. At least 7 days, so that on Monday a person can still ask about the week before. At
/// most a hundred years.
type KeptSeconds = BoundedNumber<604_800, 3_162_240_000>;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(get_history_policy)).routes(routes!(set_history_policy))
}

/// Retention times of history, and the ages of the oldest entries.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = History)]
struct HistoryRetention {
    /// Retention time of operations and their steps after their end, in seconds.
    operations_seconds: i64,
    /// Retention time of events, in seconds.
    events_seconds: i64,
    /// End time of the operation that ended first, RFC 3339; null if none has ended.
    oldest_operation_at: Option<String>,
    /// Time of the oldest event, RFC 3339; null if there is none.
    oldest_event_at: Option<String>,
}

/// A change of the retention times. Absent fields keep their values.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HistoryToKeep {
    /// Retention time of operations and their steps after their end, in seconds: at least 604800 (7 days). The last
    /// success of each kind of operation on each tenant is always kept.
    #[schema(value_type = Option<u64>, minimum = 604_800, maximum = 3_162_240_000_u64)]
    operations_seconds: Option<KeptSeconds>,
    /// Retention time of events, in seconds: at least 604800 (7 days).
    #[schema(value_type = Option<u64>, minimum = 604_800, maximum = 3_162_240_000_u64)]
    events_seconds: Option<KeptSeconds>,
    /// True: only describe the change and do nothing.
    #[serde(default)]
    dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    reason: Option<String>,
}

/// Get the retention times of history.
#[utoipa::path(get, path = "/v1/history", tag = "history", responses((status = 200, description = "The retention times", body = HistoryRetention)))]
async fn get_history_policy(
    State(api): State<ApiState>,
    _caller: AdmittedCaller,
) -> Result<JsonBody<HistoryRetention>> {
    let mut tx = api.app.catalog.read().await?;
    Ok(JsonBody(HistoryRetention::read_policy(&mut tx).await?))
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
    let answer = HistoryRetention::read_policy(&mut tx).await?;
    finish_change(tx, &caller, wanted.dry_run, change, JsonBody(answer)).await
}

impl HistoryRetention {
    async fn read_policy(tx: &mut ReadTx) -> Result<Self> {
        let policy = history::history_policy(tx).await?;
        let OldestHistory { operation_at, event_at } = history::oldest_history(tx).await?;
        Ok(Self {
            operations_seconds: policy.operations_ms / SECOND_MS,
            events_seconds: policy.events_ms / SECOND_MS,
            oldest_operation_at: time_text::format_optional(operation_at),
            oldest_event_at: time_text::format_optional(event_at),
        })
    }
}

fn kept_ms(seconds: KeptSeconds) -> i64 {
    seconds.to_i64() * SECOND_MS
}
