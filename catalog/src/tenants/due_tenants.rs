//! Tenants with work that the control plane starts by itself.

use sqlx::any::AnyRow;

use crate::bulk::capped_limit;
use crate::clock_skew::AHEAD_MS_MAX;
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::TenantId;
use crate::row;

/// Records that a request needs an archived tenant. True when this was not recorded yet. Routers write nothing else.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn request_wake(tx: &mut WriteTx, id: TenantId) -> Result<bool> {
    let sql = "update tenants set wake_requested_at = $2 \
               where id = $1 and state = 'archived' and wake_requested_at is null";
    let now = tx.now();
    Ok(tx.execute_sql(sqlx::query(sql).bind(id.to_string()).bind(now)).await? > 0)
}

/// A failed attempt is repeated after this time. In the statements below, 660,000 is this time plus the minute by which
/// correct clocks may be ahead. A failure at a later time was written by a wrong clock, and blocks nothing.
const AGAIN_AFTER_MS: i64 = 600_000;

/// Archived tenants that requests need and no operation works on, longest waiting first. Requests do not wake a tenant
/// that was suspended when archived. After a failed wake, a tenant is skipped for ten minutes.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn wake_requested(tx: &mut ReadTx, page_limit: u32) -> Result<Vec<TenantId>> {
    let since = tx.now() - AGAIN_AFTER_MS;
    ids_from_rows(&tx.fetch_rows(sqlx::query(WANTED).bind(capped_limit(page_limit)).bind(since)).await?)
}

/// The `case` follows [`crate::TenantRecord::state_on_wake`]. `coalesce` prevents SQLite from reading all archived tenants
/// by the index of states.
const WANTED: &str = "select id from tenants t where wake_requested_at > 0 and coalesce(state, '') = 'archived' \
     and case when wake_generation = generation and wake_state is not null then wake_state = 'active' \
       else state_reason is null or block_writes is not null end and op_id is null \
     and not exists (select 1 from steps s where s.tenant_id = t.id and s.state in ('pending', 'running')) \
     and not exists (select 1 from steps s join operations o on o.id = s.op_id where s.tenant_id = t.id \
       and o.kind = 'unarchive' and s.state in ('failed', 'cancelled') and s.finished_at > $2 and s.finished_at - 660000 <= $2) \
     order by wake_requested_at, id limit $1";

/// Deleted tenants whose time for an undelete ends before `by`, and that no operation works on.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn purgeable_tenants(tx: &mut ReadTx, by: i64, page_limit: u32) -> Result<Vec<TenantId>> {
    let since = tx.now() - AGAIN_AFTER_MS;
    ids_from_rows(&tx.fetch_rows(sqlx::query(PURGEABLE).bind(by).bind(capped_limit(page_limit)).bind(since)).await?)
}

const PURGEABLE: &str = "select id from tenants t where purge_after <= $1 and coalesce(state, '') = 'deleted' and op_id is null \
     and not exists (select 1 from steps s where s.tenant_id = t.id and s.state in ('pending', 'running')) \
     and not exists (select 1 from steps s join operations o on o.id = s.op_id where s.tenant_id = t.id \
       and o.kind = 'purge' and s.state in ('failed', 'cancelled') and s.finished_at > $3 and s.finished_at - 660000 <= $3) \
     order by purge_after, id limit $2";

/// Tenants that an operation may have left fenced since `since`: their writes are blocked although no operation works
/// on them, or a claimed step failed or was cancelled. Excludes tenants that were repaired after that.
///
/// Every table is read by an index of open or failed rows, so the cost does not grow with the history.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn unsettled_tenants(tx: &mut ReadTx, since: i64, page_limit: u32) -> Result<Vec<TenantId>> {
    let latest = tx.now() + AHEAD_MS_MAX;
    ids_from_rows(&tx.fetch_rows(sqlx::query(UNSETTLED).bind(since).bind(capped_limit(page_limit)).bind(latest)).await?)
}

/// `cross join` makes SQLite keep this order: the few recent operations first, then their steps.
const UNSETTLED: &str = "select t.id from tenants t where t.id in \
     (select b.id from tenants b where b.block_writes = 'operation' union select f.tenant_id from steps f \
      where f.state in ('failed', 'cancelled') and f.lease_epoch > 0 and f.finished_at >= $1) \
     and t.state in ('active', 'suspended') and t.op_id is null \
     and not exists (select 1 from steps s where s.tenant_id = t.id and s.state in ('pending', 'running') \
       and (s.state = 'running' or s.phase <> '')) \
     and not exists (select 1 from operations o cross join steps s where o.kind = 'settle' and o.created_at >= $1 and o.created_at <= $3 \
       and s.op_id = o.id and s.tenant_id = t.id) order by t.id limit $2";

fn ids_from_rows(rows: &[AnyRow]) -> Result<Vec<TenantId>> {
    rows.iter().map(|row| row::parsed_column(row, "id")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bulk::dynamic_query;
    use crate::db::{Catalog, CatalogLocation};
    use crate::history::{PRUNABLE, PRUNE_STEPS};
    use crate::seal::FleetKey;

    /// Queries that run every few seconds must not read all tenants, or the history of any tenant.
    #[tokio::test]
    async fn periodic_questions_read_no_history() {
        let dir = tempfile::tempdir().unwrap();
        let location = CatalogLocation::File(dir.path().join("catalog.db"));
        let catalog = Catalog::create(&location, FleetKey::generate(), Arc::new(|| 1)).await.unwrap();
        let mut tx = catalog.read().await.unwrap();
        for (sql, binds) in [(UNSETTLED, 3), (WANTED, 2), (PURGEABLE, 3), (PRUNABLE, 3), (PRUNE_STEPS, 3)] {
            let explained = (0..binds).fold(dynamic_query(format!("explain query plan {sql}")), |sql, _| sql.bind("1"));
            let rows = tx.fetch_rows(explained).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row::text_column(row, "detail").unwrap()).collect();
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
