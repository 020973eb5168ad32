//! Tenants that something has to be done about without anybody asking for it just then.

use sqlx::any::AnyRow;

use crate::bulk::limit;
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::TenantId;
use crate::row;

/// Notes that somebody wants an archived tenant; true when nobody did before. The only thing a router writes.
///
/// # Errors
/// `Unavailable`.
pub async fn request_wake(tx: &mut WriteTx, id: TenantId) -> Result<bool> {
    let sql = "update tenants set wake_requested_at = $2 \
               where id = $1 and state = 'archived' and wake_requested_at is null";
    let now = tx.now();
    Ok(tx.run(sqlx::query(sql).bind(id.to_string()).bind(now)).await? > 0)
}

/// What failed is not tried again sooner.
const AGAIN_AFTER_MS: i64 = 600_000;

/// Archived tenants that somebody wants and nothing is at work on, the longest waiting first. One whose suspension
/// outlived its archive is not woken by requests, and one that could not be woken not again for ten minutes.
///
/// # Errors
/// `Unavailable`.
pub async fn wanted(tx: &mut ReadTx, page_limit: u32) -> Result<Vec<TenantId>> {
    let sql = "select id from tenants t where state = 'archived' and wake_requested_at is not null \
               and (state_reason is null or block_writes is not null) and op_id is null \
               and not exists (select 1 from steps s where s.tenant_id = t.id and s.state in ('pending', 'running')) \
               and not exists (select 1 from steps s join operations o on o.id = s.op_id where s.tenant_id = t.id \
                 and o.kind = 'unarchive' and s.state in ('failed', 'cancelled') and s.finished_at > $2) \
               order by wake_requested_at, id limit $1";
    let since = tx.now() - AGAIN_AFTER_MS;
    ids(&tx.all(sqlx::query(sql).bind(limit(page_limit)).bind(since)).await?)
}

/// Deleted tenants whose time for an undelete is over by the time `by`, and that nothing is at work on.
///
/// # Errors
/// `Unavailable`.
pub async fn purgeable(tx: &mut ReadTx, by: i64, page_limit: u32) -> Result<Vec<TenantId>> {
    let sql = "select id from tenants t where state = 'deleted' and purge_after <= $1 and op_id is null \
               and not exists (select 1 from steps s where s.tenant_id = t.id and s.state in ('pending', 'running')) \
               and not exists (select 1 from steps s join operations o on o.id = s.op_id where s.tenant_id = t.id \
                 and o.kind = 'purge' and s.state in ('failed', 'cancelled') and s.finished_at > $3) \
               order by purge_after, id limit $2";
    let since = tx.now() - AGAIN_AFTER_MS;
    ids(&tx.all(sqlx::query(sql).bind(by).bind(limit(page_limit)).bind(since)).await?)
}

/// Tenants that an operation may have left fenced since `since`: it blocks their writes although nothing is at work on
/// them, or a step of theirs was claimed and came to nothing. Not those that were settled after that.
///
/// # Errors
/// `Unavailable`.
pub async fn unsettled(tx: &mut ReadTx, since: i64, page_limit: u32) -> Result<Vec<TenantId>> {
    let sql = "select t.id from tenants t where t.state in ('active', 'suspended') and t.op_id is null \
               and not exists (select 1 from steps s where s.tenant_id = t.id \
                 and (s.state = 'running' or (s.state = 'pending' and s.phase <> ''))) \
               and not exists (select 1 from steps s join operations o on o.id = s.op_id \
                 where s.tenant_id = t.id and o.kind = 'settle' and o.created_at >= $1) \
               and (t.block_writes = 'operation' or exists (select 1 from steps s \
                 where s.tenant_id = t.id and s.state in ('failed', 'cancelled') and s.lease_epoch > 0 \
                 and s.finished_at >= $1)) order by t.id limit $2";
    ids(&tx.all(sqlx::query(sql).bind(since).bind(limit(page_limit))).await?)
}

fn ids(rows: &[AnyRow]) -> Result<Vec<TenantId>> {
    rows.iter().map(|row| row::parsed(row, "id")).collect()
}
