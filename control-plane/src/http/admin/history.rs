//! `/v1/history`: how long ended operations and events are kept.

use axum::extract::State;
use axum::response::Response;
use catalog::history::{self, HistoryPolicy, KEPT_MS_MIN, OldestHistory};
use catalog::{ReadTx, events};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{Change, check_reason, settle};
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::Json;
use crate::http::{Api, time};

const SECOND_MS: i64 = 1_000;
/// A hundred years: for a fleet that removes nothing.
const KEPT_SECONDS_MAX: i64 = 100 * 366 * 86_400;

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
    operations_seconds: Option<i64>,
    /// Of events; at least 604800 (7 days).
    events_seconds: Option<i64>,
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
        operations_ms: kept_ms("operations_seconds", wanted.operations_seconds)?.unwrap_or(before.operations_ms),
        events_ms: kept_ms("events_seconds", wanted.events_seconds)?.unwrap_or(before.events_ms),
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

fn kept_ms(field: &str, seconds: Option<i64>) -> Result<Option<i64>> {
    let least = KEPT_MS_MIN / SECOND_MS;
    match seconds {
        Some(seconds) if !(least..=KEPT_SECONDS_MAX).contains(&seconds) => {
            Err(Problem::invalid(format!("{field}: expected {least} (7 days) to {KEPT_SECONDS_MAX} (100 years)")))
        }
        seconds => Ok(seconds.map(|seconds| seconds * SECOND_MS)),
    }
}
