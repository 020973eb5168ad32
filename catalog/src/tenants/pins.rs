//! Pinned tenants: an operation took them back to an older schema, and they stay there until they are migrated by name.

use sqlx::any::AnyRow;

use super::{COLUMNS, bind_ids, record};
use crate::bulk::{built, chunks, limit, places};
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::TenantId;
use crate::row;
use crate::tenant::{Pin, TenantRecord};

/// Those that have or may again have a database.
const PINNED: &str = "pinned_below is not null and state not in ('deleted', 'purged')";

/// The pinned tenants, oldest first, without labels.
///
/// # Errors
/// `Unavailable`.
pub async fn pinned(tx: &mut ReadTx, page_limit: u32) -> Result<Vec<TenantRecord>> {
    let sql = format!("select {COLUMNS} from tenants t where {PINNED} order by t.id limit $1");
    tx.all(built(sql).bind(limit(page_limit))).await?.iter().map(record).collect()
}

/// How many pinned tenants are at each schema version; the oldest version first.
///
/// # Errors
/// `Unavailable`.
pub async fn count_pinned_by_version(tx: &mut ReadTx) -> Result<Vec<(Option<i64>, i64)>> {
    let sql = format!(
        "select schema_version, count(*) as tenants from tenants where {PINNED} \
         group by schema_version order by coalesce(schema_version, -1)"
    );
    let rows = tx.all(built(sql)).await?;
    rows.iter().map(|row| Ok((row::int_or_null(row, "schema_version")?, row::int(row, "tenants")?))).collect()
}

/// Lifts the pins of these tenants. The caller records what they were migrated to in the same transaction.
///
/// # Errors
/// `Unavailable`.
pub async fn unpin_many(tx: &mut WriteTx, ids: &[TenantId]) -> Result<()> {
    for chunk in chunks(ids) {
        let sql = format!(
            "update tenants set pinned_below = null, pinned_at = null, pinned_op = null where id in ({})",
            places(1, chunk.len())
        );
        tx.run(bind_ids(built(sql), chunk)).await?;
    }
    Ok(())
}

/// The three columns of a pin; `None` when there is none.
pub(crate) fn of_row(row: &AnyRow) -> Result<Option<Pin>> {
    let (below, at) = (row::int_or_null(row, "pinned_below")?, row::int_or_null(row, "pinned_at")?);
    let op = row::id_or_null(row, "pinned_op")?;
    Ok(below.zip(at).zip(op).map(|((below, at), op)| Pin { below, at, op }))
}
