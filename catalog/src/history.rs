//! Retention of history: ended operations, their steps, and events.
//!
//! Older history is removed in short transactions. The last success of each kind of operation on each tenant always
//! stays. History that is still needed for decisions stays, too. These are steps of a tenant that is being created or
//! whose writes an operation blocks. Also the operation behind a retained database or a pinned tenant, and the archive
//! event of an archived tenant.

use crate::bulk::capped_limit;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::OperationId;
use crate::row;

/// Steps checked in one transaction: a few milliseconds of the catalog's write lock.
const STEPS_PER_PIECE: u32 = 500;

/// Events removed in one transaction.
const EVENTS_PER_PIECE: u32 = 1_000;

/// How long history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryPolicy {
    /// Retention of operations and their steps after their end, milliseconds.
    pub operations_ms: i64,
    /// Retention of events, milliseconds.
    pub events_ms: i64,
}

/// The ages of the oldest history, milliseconds since 1970; `None` when there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldestHistory {
    /// The earliest end of an operation.
    pub operation_at: Option<i64>,
    /// Time of the oldest event.
    pub event_at: Option<i64>,
}

/// The fleet's retention policy.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn history_policy(tx: &mut ReadTx) -> Result<HistoryPolicy> {
    let row = tx.fetch_row(sqlx::query("select operations_kept_ms, events_kept_ms from fleet where one = 1")).await?;
    let row = row.ok_or_else(|| Error::new(ErrorKind::Corrupt, "the catalog has no row about the fleet"))?;
    Ok(HistoryPolicy {
        operations_ms: row::int_column(&row, "operations_kept_ms")?,
        events_ms: row::int_column(&row, "events_kept_ms")?,
    })
}

/// Changes the policy. The next clean-up removes history that is too old by it.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn set_history_policy(tx: &mut WriteTx, policy: HistoryPolicy) -> Result<()> {
    let sql = "update fleet set operations_kept_ms = $1, events_kept_ms = $2 where one = 1";
    tx.execute_sql(sqlx::query(sql).bind(policy.operations_ms).bind(policy.events_ms)).await.map(|_| ())
}

/// The oldest history in the catalog.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn oldest_history(tx: &mut ReadTx) -> Result<OldestHistory> {
    let sql = "select (select min(finished_at) from operations where finished_at is not null) as operation_at, \
               (select min(at) from events) as event_at";
    let row = tx.fetch_row(sqlx::query(sql)).await?;
    let at = |column| row.as_ref().map_or(Ok(None), |row| row::nullable_int(row, column));
    Ok(OldestHistory { operation_at: at("operation_at")?, event_at: at("event_at")? })
}

/// Operations that ended before `before` and whose steps were not checked since `looked_at`, oldest first.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn prunable_operations(
    tx: &mut ReadTx,
    before: i64,
    looked_at: i64,
    page_limit: u32,
) -> Result<Vec<OperationId>> {
    let sql = sqlx::query(PRUNABLE).bind(before).bind(looked_at).bind(capped_limit(page_limit));
    tx.fetch_rows(sql).await?.iter().map(|row| row::parsed_column(row, "id")).collect()
}

pub(crate) const PRUNABLE: &str = "select id from operations where finished_at < $1 and seq is not null \
     and (pruned_at is null or pruned_at < $2 or pruned_at - 86460000 > $2) order by finished_at, id limit $3";

/// Removes unneeded steps among the operation's next steps after `after`. Returns the last step that was checked,
/// `None` at the end.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn prune_steps(tx: &mut WriteTx, op: OperationId, after: &str) -> Result<Option<String>> {
    let sql = "select max(tenant_id) as last from \
               (select tenant_id from steps where op_id = $1 and tenant_id > $2 order by tenant_id limit $3) as piece";
    let piece = sqlx::query(sql).bind(op.to_string()).bind(after.to_owned()).bind(capped_limit(STEPS_PER_PIECE));
    let row = tx.fetch_row(piece).await?;
    let last = row.map_or(Ok(None), |row| row::nullable_text(&row, "last"))?;
    if let Some(last) = &last {
        let sql = sqlx::query(PRUNE_STEPS).bind(op.to_string()).bind(after.to_owned()).bind(last.clone());
        tx.execute_sql(sql).await?;
    }
    Ok(last)
}

/// Searches for a later success only among operations with greater ids, which are later by the clock, and compares
/// sequence numbers. If the two orders differ, the step is kept.
pub(crate) const PRUNE_STEPS: &str = "delete from steps where op_id = $1 and tenant_id > $2 and tenant_id <= $3 \
     and state not in ('pending', 'running') \
     and exists (select 1 from operations e where e.id = $1 and e.finished_at is not null) \
     and (state <> 'succeeded' or exists (select 1 from operations o, operations later, steps s where o.id = $1 \
       and s.tenant_id = steps.tenant_id and s.op_id > $1 and s.state = 'succeeded' \
       and later.id = s.op_id and later.kind = o.kind and later.seq > o.seq)) \
     and not exists (select 1 from tenants t where t.id = steps.tenant_id \
       and (t.state = 'provisioning' or t.block_writes = 'operation' or t.op_id = steps.op_id)) \
     and not exists (select 1 from retained r where r.tenant_id = steps.tenant_id and r.op_id = steps.op_id)";

/// Ends the check of an operation: removes it if it has no steps left and nothing refers to it. True when removed.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn prune_operation(tx: &mut WriteTx, op: OperationId) -> Result<bool> {
    // The newest operation stays, because the next number follows from it.
    let sql = "delete from operations where id = $1 and finished_at is not null \
               and seq < (select max(seq) from operations) \
               and not exists (select 1 from steps where op_id = $1) \
               and not exists (select 1 from retained where op_id = $1) \
               and not exists (select 1 from tenants where pinned_below is not null and pinned_op = $1)";
    if tx.execute_sql(sqlx::query(sql).bind(op.to_string())).await? > 0 {
        return Ok(true);
    }
    let now = tx.now();
    let sql = sqlx::query("update operations set pruned_at = $2 where id = $1").bind(op.to_string()).bind(now);
    tx.execute_sql(sql).await?;
    Ok(false)
}

/// Removes some events from before `before` and returns their number. Zero means that none is left.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn prune_events(tx: &mut WriteTx, before: i64) -> Result<i64> {
    // The newest event stays, because the next number follows from it. Only the event names the backup of a tenant that a
    // process of an older version archived. A release's activation event stays, so that a retry of its operation does not
    // activate it again.
    let sql = "delete from events where seq in (select e.seq from events e where e.at < $1 \
               and e.seq < (select max(seq) from events) and not (e.kind = 'tenant.archived' and exists \
               (select 1 from tenants t where t.id = e.tenant_id and t.state = 'archived')) \
               and not (e.kind = 'release.activated' and exists (select 1 from operations o where o.id = e.op_id)) \
               order by e.at limit $2)";
    tx.execute_sql(sqlx::query(sql).bind(before).bind(capped_limit(EVENTS_PER_PIECE))).await
}
