//! Keeps the change feed, the remembered answers and the leases of processes that died from growing without end.

use crate::error::Result;
use crate::operations::Fleet;

/// Entries of the change feed that a slow reader may still want; who is further behind drops its whole cache.
const CHANGES_KEPT: i64 = 100_000;
/// How long the answer to an Idempotency-Key is remembered, milliseconds.
const ANSWERS_KEPT_MS: i64 = 24 * 3_600_000;

pub(super) async fn run(fleet: &Fleet) -> Result<()> {
    let mut tx = fleet.catalog.write().await?;
    catalog::changes::trim(&mut tx, CHANGES_KEPT).await?;
    let before = tx.now() - ANSWERS_KEPT_MS;
    catalog::idempotency::trim(&mut tx, before).await?;
    catalog::leases::expire(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}
