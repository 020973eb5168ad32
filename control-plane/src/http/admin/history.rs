//! `/v1/history`: how long ended operations and events are kept.

use axum::extract::State;
use axum::response::Response;
use catalog::history::{self, HistoryPolicy, OldestHistory};
use catalog::{ReadTx, events};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{Change, check_reason, settle};
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::Json;
use crate::http::number::Within;
use crate::http::{Api, time};

const SECOND_MS: i64 = 1_000;
/// From 7 days, below which a person cannot ask on Monday about the week before, to a hundred years.
type KeptSeconds = Within<604_800, 3_162_240_000>;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(keep))
}

/// How long the past is kept, and how far it goes back.
#[derive(Debug, Serialize, ToSchema)]
struct History {
    /// Operations and their steps are kept for this many seconds after their end.
    operations_seconds: i64,
    /// Events are kept for this many seconds.
    events_seconds: i64,
    /// RFC 3339: when the oldest operation ended; null: none has.
    oldest_operation_at: Option<String>,
    /// RFC 3339: when the oldest event was written.
    oldest_event_at: Option<String>,
}

/// How long to keep the past; what is not given stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HistoryToKeep {
    /// Of operations and their steps after their end; at least 604800 (7 days). The last success of each kind of
    /// operation on each tenant is always kept.
    #[schema(value_type = Option<u64>, minimum = 604_800, maximum = 3_162_240_000_u64)]
    operations_seconds: Option<KeptSeconds>,
    /// Of events; at least 604800 (7 days).
    #[schema(value_type = Option<u64>, minimum = 604_800, maximum = 3_162_240_000_u64)]
    events_seconds: Option<KeptSeconds>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Shows how long history is kept.
#[utoipa::path(get, path = "/v1/history", tag = "history", responses((status = 200, description = "The policy", body = History)))]
async fn show(State(api): State<Api>, _caller: Caller) -> Result<Json<History>> {
    let mut tx = api.app.catalog.read().await?;
    Ok(Json(History::read(&mut tx).await?))
}

/// Changes how long history is kept. What is older is removed within an hour by a serving process.
#[utoipa::path(patch, path = "/v1/history", tag = "history", request_body = HistoryToKeep,
    responses((status = 200, description = "The policy, or a dry run", body = History), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn keep(State(api): State<Api>, caller: Caller, Json(wanted): Json<HistoryToKeep>) -> Result<Response> {
    check_reason(wanted.reason.as_deref())?;
    if wanted.operations_seconds.is_none() && wanted.events_seconds.is_none() {
        return Err(Problem::invalid("operations_seconds or events_seconds: expected at least one of them"));
    }
    let mut tx = api.app.catalog.write().await?;
    let before = history::policy(&mut tx).await?;
    let policy = HistoryPolicy {
        operations_ms: wanted.operations_seconds.map_or(before.operations_ms, kept_ms),
        events_ms: wanted.events_seconds.map_or(before.events_ms, kept_ms),
    };
    history::set_policy(&mut tx, policy).await?;
    let (operations, events_kept) = (policy.operations_ms / SECOND_MS, policy.events_ms / SECOND_MS);
    let data = serde_json::json!({ "operations_seconds": operations, "events_seconds": events_kept });
    let action = format!("operations would be kept for {operations} seconds, events for {events_kept} seconds");
    let change = Change { kind: "history.changed", tenant: None, action };
    events::append(&mut tx, &[caller.event(change.kind, None, data, wanted.reason.as_deref())]).await?;
    let answer = History::read(&mut tx).await?;
    settle(tx, wanted.dry_run, change, Json(answer)).await
}

impl History {
    async fn read(tx: &mut ReadTx) -> Result<Self> {
        let policy = history::policy(tx).await?;
        let OldestHistory { operation_at, event_at } = history::oldest(tx).await?;
        Ok(Self {
            operations_seconds: policy.operations_ms / SECOND_MS,
            events_seconds: policy.events_ms / SECOND_MS,
            oldest_operation_at: time::maybe(operation_at),
            oldest_event_at: time::maybe(event_at),
        })
    }
}

fn kept_ms(seconds: KeptSeconds) -> i64 {
    seconds.signed() * SECOND_MS
}
