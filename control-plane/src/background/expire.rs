//! Drops replaced databases whose time for an undo is over.

use catalog::retained::RetainedRecord;

use crate::error::Result;
use crate::operations::Fleet;

/// Dropped in one run; the rest waits for the next.
const BATCH: u32 = 100;

pub(super) async fn run(fleet: &Fleet) -> Result<()> {
    let expired = {
        let mut tx = fleet.catalog.read().await?;
        let now = tx.now();
        catalog::retained::expired(&mut tx, now, BATCH).await?
    };
    for record in expired {
        drop_one(fleet, &record).await?;
    }
    Ok(())
}

/// Validates before it deletes: the catalog must name another database for the tenant, and no operation may be at work
/// on it, which could be an undo that brings this one back.
async fn drop_one(fleet: &Fleet, record: &RetainedRecord) -> Result<()> {
    // The row goes first, in a transaction that sees no operation at work: an undo that comes later finds nothing.
    let mut tx = fleet.catalog.write().await?;
    let tenant = catalog::tenants::get(&mut tx, record.tenant_id).await?;
    let in_use = |tenant: &catalog::TenantRecord| {
        tenant.op_id.is_some() || tenant.placement.as_deref() == Some(record.placement.as_str())
    };
    if tenant.as_ref().is_none_or(in_use) {
        return Ok(());
    }
    let (engine, at) = fleet.at(record.server_id, &record.placement).await?;
    catalog::retained::remove(&mut tx, record.server_id, &record.placement).await?;
    tx.commit().await?;
    engine.drop_database(&at, None).await?;
    tracing::info!(tenant = %record.tenant_id, "a replaced database was dropped");
    Ok(())
}
