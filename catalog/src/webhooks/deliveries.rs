//! The log of a webhook: its latest attempts. It has a fixed length, because a webhook may fail for months.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::bulk::capped_limit;
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::WebhookId;
use crate::row;
use crate::text_enum::TextEnum;

/// Attempts kept for each webhook: the last day of a failing one, and the last minutes of a busy one.
const KEPT: i64 = 500;

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryResult {
    /// The receiver answered with a status from 200 to 299.
    Delivered,
    /// It failed. The event is sent again, unless it was a test.
    Failed,
    /// It failed, and it was the last attempt at this event.
    GivenUp,
    /// The receiver answered with 410. The webhook is paused.
    Gone,
}

impl TextEnum for DeliveryResult {
    const NOUN: &'static str = "result of a delivery";
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Delivered, "delivered"), (Self::Failed, "failed"), (Self::GivenUp, "given_up"), (Self::Gone, "gone")];
}

/// One row of `webhook_deliveries`. Times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// Counts the webhook's attempts. [`append_delivery`] sets it.
    pub number: i64,
    /// The event; `None`: a test.
    pub event_seq: Option<i64>,
    /// The header `webhook-id`, the same in every attempt at one event.
    pub message_id: String,
    /// The kind of the event.
    pub kind: String,
    /// Counts the attempts at this event, from 1.
    pub attempt: i64,
    /// The start of the attempt.
    pub at: i64,
    /// What became of it.
    pub result: DeliveryResult,
    /// The HTTP status of the answer; `None`: there was no answer.
    pub status: Option<i64>,
    /// Why it failed; `None`: delivered.
    pub error: Option<String>,
    /// How long it took, milliseconds.
    pub duration_ms: i64,
}

/// Adds an attempt to a webhook's log, and removes the attempts that are too old. Returns its number.
///
/// # Errors
/// `NotFound` when the webhook does not exist.
pub async fn append_delivery(tx: &mut WriteTx, webhook: WebhookId, new: &DeliveryRecord) -> Result<i64> {
    let id = webhook.to_string();
    let sql = "select coalesce(max(number), 0) as number from webhook_deliveries where webhook_id = $1";
    let last = tx.fetch_row(sqlx::query(sql).bind(id.clone())).await?;
    let number = last.map_or(Ok(0), |row| row::int_column(&row, "number"))? + 1;
    let sql = "insert into webhook_deliveries (webhook_id, number, event_seq, message_id, kind, attempt, at, result, \
               status, error, duration_ms) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    let sql = sqlx::query(sql).bind(id.clone()).bind(number).bind(new.event_seq).bind(new.message_id.clone());
    let sql = sql.bind(new.kind.clone()).bind(new.attempt).bind(new.at).bind(new.result.stored_text());
    tx.execute_sql(sql.bind(new.status).bind(new.error.clone()).bind(new.duration_ms)).await?;
    let sql = sqlx::query("delete from webhook_deliveries where webhook_id = $1 and number <= $2");
    tx.execute_sql(sql.bind(id).bind(number - KEPT)).await?;
    Ok(number)
}

/// A page of a webhook's attempts, the newest first, before the attempt `before`.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_deliveries(
    tx: &mut ReadTx,
    webhook: WebhookId,
    before: Option<i64>,
    page_limit: u32,
) -> Result<Vec<DeliveryRecord>> {
    let sql = "select number, event_seq, message_id, kind, attempt, at, result, status, error, duration_ms \
               from webhook_deliveries where webhook_id = $1 and number < $2 order by number desc limit $3";
    let sql = sqlx::query(sql).bind(webhook.to_string()).bind(before.unwrap_or(i64::MAX));
    tx.fetch_rows(sql.bind(capped_limit(page_limit))).await?.iter().map(delivery_from_row).collect()
}

/// When the first attempt at a message began; `None` before it, and when the log has left it out.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn first_attempt_at(tx: &mut ReadTx, webhook: WebhookId, message_id: &str) -> Result<Option<i64>> {
    let sql = "select min(at) as at from webhook_deliveries where webhook_id = $1 and message_id = $2";
    let found = tx.fetch_row(sqlx::query(sql).bind(webhook.to_string()).bind(message_id.to_owned())).await?;
    found.map_or(Ok(None), |row| row::nullable_int(&row, "at"))
}

fn delivery_from_row(row: &AnyRow) -> Result<DeliveryRecord> {
    Ok(DeliveryRecord {
        number: row::int_column(row, "number")?,
        event_seq: row::nullable_int(row, "event_seq")?,
        message_id: row::text_column(row, "message_id")?,
        kind: row::text_column(row, "kind")?,
        attempt: row::int_column(row, "attempt")?,
        at: row::int_column(row, "at")?,
        result: row::enum_column(row, "result")?,
        status: row::nullable_int(row, "status")?,
        error: row::nullable_text(row, "error")?,
        duration_ms: row::int_column(row, "duration_ms")?,
    })
}
