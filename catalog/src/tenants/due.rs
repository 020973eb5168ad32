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
    let since = tx.now() - AGAIN_AFTER_MS;
    ids(&tx.all(sqlx::query(WANTED).bind(limit(page_limit)).bind(since)).await?)
}

/// `coalesce` keeps SQLite from reading all archived tenants by the index of states.
const WANTED: &str = "select id from tenants t where wake_requested_at > 0 and coalesce(state, '') = 'archived' \
     and (state_reason is null or block_writes is not null) and op_id is null \
     and not exists (select 1 from steps s where s.tenant_id = t.id and s.state in ('pending', 'running')) \
     and not exists (select 1 from steps s join operations o on o.id = s.op_id where s.tenant_id = t.id \
       and o.kind = 'unarchive' and s.state in ('failed', 'cancelled') and s.finished_at > $2) \
     order by wake_requested_at, id limit $1";

/// Deleted tenants whose time for an undelete is over by the time `by`, and that nothing is at work on.
///
/// # Errors
/// `Unavailable`.
pub async fn purgeable(tx: &mut ReadTx, by: i64, page_limit: u32) -> Result<Vec<TenantId>> {
    let since = tx.now() - AGAIN_AFTER_MS;
    ids(&tx.all(sqlx::query(PURGEABLE).bind(by).bind(limit(page_limit)).bind(since)).await?)
}

const PURGEABLE: &str = "select id from tenants t where purge_after <= $1 and coalesce(state, '') = 'deleted' and op_id is null \
     and not exists (select 1 from steps s where s.tenant_id = t.id and s.state in ('pending', 'running')) \
     and not exists (select 1 from steps s join operations o on o.id = s.op_id where s.tenant_id = t.id \
       and o.kind = 'purge' and s.state in ('failed', 'cancelled') and s.finished_at > $3) \
     order by purge_after, id limit $2";

/// Tenants that an operation may have left fenced since `since`: it blocks their writes although nothing is at work on
/// them, or a step of theirs was claimed and came to nothing. Not those that were settled after that.
///
/// Every table is entered by an index of what is open or went wrong, so the cost does not grow with the history.
///
/// # Errors
/// `Unavailable`.
pub async fn unsettled(tx: &mut ReadTx, since: i64, page_limit: u32) -> Result<Vec<TenantId>> {
    ids(&tx.all(sqlx::query(UNSETTLED).bind(since).bind(limit(page_limit))).await?)
}

/// `cross join` keeps SQLite to this order: the few recent operations first, then their steps.
const UNSETTLED: &str = "select t.id from tenants t where t.id in \
     (select b.id from tenants b where b.block_writes = 'operation' union select f.tenant_id from steps f \
      where f.state in ('failed', 'cancelled') and f.lease_epoch > 0 and f.finished_at >= $1) \
     and t.state in ('active', 'suspended') and t.op_id is null \
     and not exists (select 1 from steps s where s.tenant_id = t.id and s.state in ('pending', 'running') \
       and (s.state = 'running' or s.phase <> '')) \
     and not exists (select 1 from operations o cross join steps s where o.kind = 'settle' and o.created_at >= $1 \
       and s.op_id = o.id and s.tenant_id = t.id) order by t.id limit $2";

fn ids(rows: &[AnyRow]) -> Result<Vec<TenantId>> {
    rows.iter().map(|row| row::parsed(row, "id")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bulk::built;
    use crate::db::{Catalog, Location};
    use crate::history::{PRUNABLE, PRUNE_STEPS};
    use crate::seal::FleetKey;

    /// What is asked every few seconds reads neither all tenants nor the history of any of them.
    #[tokio::test]
    async fn periodic_questions_read_no_history() {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::File(dir.path().join("catalog.db"));
        let catalog = Catalog::create(&location, FleetKey::generate(), Arc::new(|| 1)).await.unwrap();
        let mut tx = catalog.read().await.unwrap();
        for (sql, binds) in [(UNSETTLED, 2), (WANTED, 2), (PURGEABLE, 3), (PRUNABLE, 3), (PRUNE_STEPS, 3)] {
            let explained = (0..binds).fold(built(format!("explain query plan {sql}")), |sql, _| sql.bind("1"));
            let rows = tx.all(explained).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row::text(row, "detail").unwrap()).collect();
            let reads_much = |line: &String| {
                let names_an_index = line.contains("INDEX");
                (line.starts_with("SCAN") && !names_an_index)
                    || line.contains("steps_tenant (tenant_id=?)")
                    || line.contains("tenants_state (state=?)")
            };
            assert!(!plan.iter().any(reads_much), "{plan:#?}");
        }
    }
}
