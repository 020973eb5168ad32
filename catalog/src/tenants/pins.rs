//! Pinned tenants: an operation took them back to an older schema. They stay there until a migration names them.

use sqlx::any::AnyRow;

use super::{COLUMNS, bind_ids, tenant_from_row};
use crate::bulk::{capped_limit, dynamic_query, placeholder_list, sized_chunks};
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::TenantId;
use crate::row;
use crate::tenant::{SchemaPin, TenantRecord};

/// Pinned tenants that have a database or may get one again.
const PINNED: &str = "pinned_below is not null and state not in ('deleted', 'purged')";

/// The pinned tenants, oldest first, without labels.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn pinned_tenants(tx: &mut ReadTx, page_limit: u32) -> Result<Vec<TenantRecord>> {
    let sql = format!("select {COLUMNS} from tenants t where {PINNED} order by t.id limit $1");
    tx.fetch_rows(dynamic_query(sql).bind(capped_limit(page_limit))).await?.iter().map(tenant_from_row).collect()
}

/// How many pinned tenants are at each schema version; the oldest version first.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn count_pinned_by_version(tx: &mut ReadTx) -> Result<Vec<(Option<i64>, i64)>> {
    let sql = format!(
        "select schema_version, count(*) as tenants from tenants where {PINNED} \
         group by schema_version order by coalesce(schema_version, -1)"
    );
    let rows = tx.fetch_rows(dynamic_query(sql)).await?;
    rows.iter().map(|row| Ok((row::nullable_int(row, "schema_version")?, row::int_column(row, "tenants")?))).collect()
}

/// Removes the pins of these tenants. The caller records their new versions in the same transaction.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn unpin_many(tx: &mut WriteTx, ids: &[TenantId]) -> Result<()> {
    for chunk in sized_chunks(ids) {
        let sql = format!(
            "update tenants set pinned_below = null, pinned_at = null, pinned_op = null where id in ({})",
            placeholder_list(1, chunk.len())
        );
        tx.execute_sql(bind_ids(dynamic_query(sql), chunk)).await?;
    }
    Ok(())
}

/// The pin in three columns; `None` when there is none.
pub(crate) fn pin_from_row(row: &AnyRow) -> Result<Option<SchemaPin>> {
    let (below, at) = (row::nullable_int(row, "pinned_below")?, row::nullable_int(row, "pinned_at")?);
    let op = row::nullable_id(row, "pinned_op")?;
    Ok(below.zip(at).zip(op).map(|((below, at), op)| SchemaPin { below, at, op }))
}
