//! How long the past is kept: operations that have ended, their steps, and events.
//!
//! Older history is removed in short transactions. The last success of each kind of operation on each tenant always
//! stays, and so does what still decides something: steps of a tenant that is not made yet or whose writes an operation
//! blocks, the operation behind a kept database or a pinned tenant, and the archive event of an archived tenant.

use crate::bulk::limit;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::OperationId;
use crate::row;

/// Steps looked at in one transaction: a few milliseconds of the catalog's write lock.
const STEPS_PER_PIECE: u32 = 500;

/// Events removed in one transaction.
const EVENTS_PER_PIECE: u32 = 1_000;

/// How long history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryPolicy {
    /// Of operations and their steps after their end, milliseconds.
    pub operations_ms: i64,
    /// Of events, milliseconds.
    pub events_ms: i64,
}

/// From when on there is history, milliseconds since 1970; `None` where there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldestHistory {
    /// When the operation that ended first ended.
    pub operation_at: Option<i64>,
    /// When the oldest event was written.
    pub event_at: Option<i64>,
}

/// The fleet's policy.
///
/// # Errors
/// `Unavailable`.
pub async fn policy(tx: &mut ReadTx) -> Result<HistoryPolicy> {
    let row = tx.one(sqlx::query("select operations_kept_ms, events_kept_ms from fleet where one = 1")).await?;
    let row = row.ok_or_else(|| Error::new(ErrorKind::Corrupt, "the catalog has no row about the fleet"))?;
    Ok(HistoryPolicy {
        operations_ms: row::int(&row, "operations_kept_ms")?,
        events_ms: row::int(&row, "events_kept_ms")?,
    })
}

/// Changes the policy; what is too old by it is removed by the next round.
///
/// # Errors
/// `Unavailable`.
pub async fn set_policy(tx: &mut WriteTx, policy: HistoryPolicy) -> Result<()> {
    let sql = "update fleet set operations_kept_ms = $1, events_kept_ms = $2 where one = 1";
    tx.run(sqlx::query(sql).bind(policy.operations_ms).bind(policy.events_ms)).await.map(|_| ())
}

/// How far the history goes back.
///
/// # Errors
/// `Unavailable`.
pub async fn oldest(tx: &mut ReadTx) -> Result<OldestHistory> {
    let sql = "select (select min(finished_at) from operations where finished_at is not null) as operation_at, \
               (select min(at) from events) as event_at";
    let row = tx.one(sqlx::query(sql)).await?;
    let at = |column| row.as_ref().map_or(Ok(None), |row| row::int_or_null(row, column));
    Ok(OldestHistory { operation_at: at("operation_at")?, event_at: at("event_at")? })
}

/// Operations that ended before `before` and whose steps were not looked at since `looked_at`, the oldest first.
///
/// # Errors
/// `Unavailable`.
pub async fn prunable(tx: &mut ReadTx, before: i64, looked_at: i64, page_limit: u32) -> Result<Vec<OperationId>> {
    let sql = sqlx::query(PRUNABLE).bind(before).bind(looked_at).bind(limit(page_limit));
    tx.all(sql).await?.iter().map(|row| row::parsed(row, "id")).collect()
}

pub(crate) const PRUNABLE: &str = "select id from operations where finished_at < $1 and seq is not null \
     and (pruned_at is null or pruned_at < $2) order by finished_at, id limit $3";

/// Removes what need not be kept of the operation's next steps after `after`; returns the last step that was looked at,
/// `None` at the end.
///
/// # Errors
/// `Unavailable`.
pub async fn prune_steps(tx: &mut WriteTx, op: OperationId, after: &str) -> Result<Option<String>> {
    let sql = "select max(tenant_id) as last from \
               (select tenant_id from steps where op_id = $1 and tenant_id > $2 order by tenant_id limit $3) as piece";
    let piece = sqlx::query(sql).bind(op.to_string()).bind(after.to_owned()).bind(limit(STEPS_PER_PIECE));
    let row = tx.one(piece).await?;
    let last = row.map_or(Ok(None), |row| row::text_or_null(&row, "last"))?;
    if let Some(last) = &last {
        let sql = sqlx::query(PRUNE_STEPS).bind(op.to_string()).bind(after.to_owned()).bind(last.clone());
        tx.run(sql).await?;
    }
    Ok(last)
}

/// A later success is looked for among operations with greater ids only, which are later by the clock, and compared by
/// sequence: where the two disagree, the step is kept.
pub(crate) const PRUNE_STEPS: &str = "delete from steps where op_id = $1 and tenant_id > $2 and tenant_id <= $3 \
     and state not in ('pending', 'running') \
     and exists (select 1 from operations e where e.id = $1 and e.finished_at is not null) \
     and (state <> 'succeeded' or exists (select 1 from operations o, operations later, steps s where o.id = $1 \
       and s.tenant_id = steps.tenant_id and s.op_id > $1 and s.state = 'succeeded' \
       and later.id = s.op_id and later.kind = o.kind and later.seq > o.seq)) \
     and not exists (select 1 from tenants t where t.id = steps.tenant_id \
       and (t.state = 'provisioning' or t.block_writes = 'operation' or t.op_id = steps.op_id)) \
     and not exists (select 1 from retained r where r.tenant_id = steps.tenant_id and r.op_id = steps.op_id)";

/// Ends the look at an operation: it goes when none of its steps is left and nothing names it. Returns whether it went.
///
/// # Errors
/// `Unavailable`.
pub async fn prune_operation(tx: &mut WriteTx, op: OperationId) -> Result<bool> {
    // The newest one stays: the next operation is numbered after it.
    let sql = "delete from operations where id = $1 and finished_at is not null \
               and seq < (select max(seq) from operations) \
               and not exists (select 1 from steps where op_id = $1) \
               and not exists (select 1 from retained where op_id = $1) \
               and not exists (select 1 from tenants where pinned_below is not null and pinned_op = $1)";
    if tx.run(sqlx::query(sql).bind(op.to_string())).await? > 0 {
        return Ok(true);
    }
    let now = tx.now();
    let sql = sqlx::query("update operations set pruned_at = $2 where id = $1").bind(op.to_string()).bind(now);
    tx.run(sql).await?;
    Ok(false)
}

/// Removes some events from before `before`; returns how many. Zero: none is left.
///
/// # Errors
/// `Unavailable`.
pub async fn prune_events(tx: &mut WriteTx, before: i64) -> Result<i64> {
    // The newest one stays: the next event is numbered after it. What an archived tenant was is told by its event, and
    // that an operation has made its release the current one, by another: a retry does not do it again.
    let sql = "delete from events where seq in (select e.seq from events e where e.at < $1 \
               and e.seq < (select max(seq) from events) and not (e.kind = 'tenant.archived' and exists \
               (select 1 from tenants t where t.id = e.tenant_id and t.state = 'archived')) \
               and not (e.kind = 'release.activated' and exists (select 1 from operations o where o.id = e.op_id)) \
               order by e.at limit $2)";
    tx.run(sqlx::query(sql).bind(before).bind(limit(EVENTS_PER_PIECE))).await
}
