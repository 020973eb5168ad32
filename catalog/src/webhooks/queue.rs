//! Finds the next event of each webhook, and records what became of an attempt to send it.
//!
//! A process claims a webhook with a lease, so that one process at a time sends its events, in order. The place moves
//! only in the transaction that records the attempt. So a killed process loses no event: its successor sends the event
//! again. An attempt counts only if the lease and the place are still those of its sender.

use super::deliveries::{self, DeliveryRecord};
use super::{COLUMNS, WebhookRecord, WebhookState, webhook_from_row};
use crate::bulk::{capped_limit, dynamic_query, placeholder_list};
use crate::clock_skew::is_over;
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::events::{self, EventRecord};
use crate::ids::WebhookId;
use crate::row;
use crate::text_enum::TextEnum as _;

/// How long a claim lasts, milliseconds: longer than an attempt may take. `clock_skew.rs` names it.
pub const LEASE_MS: i64 = 45_000;
/// The longest wait between two attempts, milliseconds. A later time was written by a wrong clock.
pub const WAIT_MS_MAX: i64 = 24 * 3_600_000;
/// Events that one look passes at most. It limits the time of a transaction when few events are selected.
const LOOKED_AT_MAX: i64 = 10_000;

/// The next event of a webhook.
#[derive(Debug, Clone)]
pub struct NextEvent {
    /// The next selected event; `None` when there is none up to `seen_seq`.
    pub event: Option<EventRecord>,
    /// The last event that was looked at, or that a complete look would have reached.
    pub seen_seq: i64,
}

/// What an attempt means for a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookProgress {
    /// The event is dealt with: delivered, or given up.
    Advance {
        /// True when the receiver accepted the event.
        delivered: bool,
    },
    /// The event is sent again at this time, milliseconds since 1970.
    RetryAt(i64),
    /// The webhook is paused before the event.
    Pause,
}

/// The number of the newest event; zero when there is none.
pub(super) async fn events_head(tx: &mut ReadTx) -> Result<i64> {
    let newest = tx.fetch_row(sqlx::query("select coalesce(max(seq), 0) as seq from events")).await?;
    newest.map_or(Ok(0), |row| row::int_column(&row, "seq"))
}

/// Whether any webhook has events ahead that may be sent now. One statement that reads no events but the newest.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn any_due(tx: &mut ReadTx) -> Result<bool> {
    let now = tx.now();
    let sql = format!("select 1 as found from webhooks where {} limit 1", due_condition());
    Ok(tx.fetch_row(dynamic_query(sql).bind(now)).await?.is_some())
}

/// Claims webhooks that have a selected event ahead and may be tried now, the ones that are furthest behind first. Moves
/// the place of those that have none.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn claim_due(tx: &mut WriteTx, owner: &str, claims_max: u32) -> Result<Vec<WebhookRecord>> {
    let now = tx.now();
    let sql = format!("select {COLUMNS} from webhooks where {} order by sent_seq, id limit $2", due_condition());
    let rows = tx.fetch_rows(dynamic_query(sql).bind(now).bind(capped_limit(claims_max))).await?;
    let mut claimed = Vec::new();
    for row in rows {
        let webhook = webhook_from_row(&row)?;
        let next = next_event(tx, &webhook).await?;
        match next.event {
            Some(_) => {
                renew_lease(tx, owner, webhook.id).await?;
                claimed.push(webhook);
            }
            None => set_place(tx, webhook.id, next.seen_seq).await?,
        }
    }
    Ok(claimed)
}

/// The webhook, if this process still holds its lease and it is not paused.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn held_webhook(tx: &mut ReadTx, owner: &str, id: WebhookId) -> Result<Option<WebhookRecord>> {
    let sql = format!("select {COLUMNS} from webhooks where id = $1 and lease_owner = $2 and state <> 'paused'");
    let row = tx.fetch_row(dynamic_query(sql).bind(id.to_string()).bind(owner.to_owned())).await?;
    row.as_ref().map(webhook_from_row).transpose()
}

/// The next event that the webhook selects.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn next_event(tx: &mut ReadTx, webhook: &WebhookRecord) -> Result<NextEvent> {
    let seen_seq = events_head(tx).await?.min(webhook.sent_seq.saturating_add(LOOKED_AT_MAX)).max(webhook.sent_seq);
    let kinds = match webhook.kinds.len() {
        0 => String::new(),
        count => format!("and kind in ({})", placeholder_list(4, count)),
    };
    // Without a tenant the parameter is null. The cast gives it a type.
    let sql = format!(
        "select {} from events where seq > $1 and seq <= $2 and (cast($3 as text) is null or tenant_id = $3) {kinds} \
         order by seq limit 1",
        events::COLUMNS
    );
    let sql = dynamic_query(sql).bind(webhook.sent_seq).bind(seen_seq).bind(webhook.tenant_id.map(|id| id.to_string()));
    let sql = webhook.kinds.iter().fold(sql, |sql, kind| sql.bind(kind.clone()));
    let event = tx.fetch_row(sql).await?.as_ref().map(events::event_from_row).transpose()?;
    Ok(NextEvent { event, seen_seq })
}

/// Records an attempt at the event `seq`: the log, the place and the next attempt, and renews the lease. `false`, and
/// nothing is recorded, when another process has taken over or the webhook was removed.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn record_attempt(
    tx: &mut WriteTx,
    owner: &str,
    webhook: &WebhookRecord,
    delivery: &DeliveryRecord,
    progress: WebhookProgress,
) -> Result<bool> {
    let now = tx.now();
    let sql = "select 1 as found from webhooks where id = $1 and lease_owner = $2 and sent_seq = $3";
    let held = sqlx::query(sql).bind(webhook.id.to_string()).bind(owner.to_owned()).bind(webhook.sent_seq);
    if tx.fetch_row(held).await?.is_none() {
        return Ok(false);
    }
    deliveries::append_delivery(tx, webhook.id, delivery).await?;
    let place = delivery.event_seq.unwrap_or(webhook.sent_seq);
    let (state, sent_seq, failures, next_attempt_at) = match progress {
        WebhookProgress::Advance { delivered: true } => (WebhookState::Enabled, place, 0, 0),
        WebhookProgress::Advance { delivered: false } => (WebhookState::Failing, place, 0, 0),
        WebhookProgress::RetryAt(at) => (WebhookState::Failing, webhook.sent_seq, webhook.failures + 1, at),
        WebhookProgress::Pause => (WebhookState::Paused, webhook.sent_seq, webhook.failures + 1, 0),
    };
    // An operator may have paused the webhook during the attempt.
    let sql = "update webhooks set state = case when state = 'paused' then 'paused' else $2 end, sent_seq = $3, \
               failures = $4, next_attempt_at = $5, lease_until = $6, delivered_at = coalesce($7, delivered_at) \
               where id = $1";
    let delivered_at = Some(now).filter(|_| progress == WebhookProgress::Advance { delivered: true });
    let sql = sqlx::query(sql).bind(webhook.id.to_string()).bind(state.stored_text()).bind(sent_seq).bind(failures);
    tx.execute_sql(sql.bind(next_attempt_at).bind(now + LEASE_MS).bind(delivered_at)).await?;
    Ok(true)
}

/// Ends a claim, and moves the place over events that the webhook does not select. Does nothing if another process holds
/// the lease.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn release_webhook(tx: &mut WriteTx, owner: &str, id: WebhookId, seen_seq: Option<i64>) -> Result<()> {
    let sql = "update webhooks set lease_owner = null, lease_until = null, \
               sent_seq = case when sent_seq < $3 then $3 else sent_seq end where id = $1 and lease_owner = $2";
    let sql = sqlx::query(sql).bind(id.to_string()).bind(owner.to_owned()).bind(seen_seq.unwrap_or(0));
    tx.execute_sql(sql).await.map(|_| ())
}

/// Ends all claims of a process that is gone.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn release_all(tx: &mut WriteTx, owner: &str) -> Result<()> {
    let sql = sqlx::query("update webhooks set lease_owner = null, lease_until = null where lease_owner = $1");
    tx.execute_sql(sql.bind(owner.to_owned())).await.map(|_| ())
}

/// The condition that a webhook may be tried now and has events ahead. `$1` is the time.
fn due_condition() -> String {
    format!(
        "state <> 'paused' and sent_seq < (select coalesce(max(seq), 0) from events) \
         and (next_attempt_at <= $1 or next_attempt_at > $1 + {WAIT_MS_MAX}) \
         and (lease_owner is null or {})",
        is_over("lease_until", "$1")
    )
}

async fn renew_lease(tx: &mut WriteTx, owner: &str, id: WebhookId) -> Result<()> {
    let until = tx.now() + LEASE_MS;
    let sql = "update webhooks set lease_owner = $2, lease_until = $3 where id = $1";
    tx.execute_sql(sqlx::query(sql).bind(id.to_string()).bind(owner.to_owned()).bind(until)).await.map(|_| ())
}

async fn set_place(tx: &mut WriteTx, id: WebhookId, seen_seq: i64) -> Result<()> {
    let sql = sqlx::query("update webhooks set sent_seq = $2 where id = $1");
    tx.execute_sql(sql.bind(id.to_string()).bind(seen_seq)).await.map(|_| ())
}
