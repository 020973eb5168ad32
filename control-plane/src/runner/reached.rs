//! What tenants of a cancelled migration have really reached: a process that died in the middle could not say it.
//!
//! Called when such an operation is cancelled, or its last leases have expired. Reads the ledgers of the tenants whose
//! steps had begun, and tells the catalog what differs. A database that cannot be read is left to `migrate status`.

use catalog::events::NewEvent;
use catalog::operations::OperationRecord;
use catalog::steps::StepState;
use catalog::tenants::Reached;
use catalog::{OperationId, TenantId, TenantRecord};
use serde_json::json;

use crate::error::Result;
use crate::operations::{Fleet, ledgers};
use crate::plan::ledgers::prefix;

/// Steps looked at in one page.
const PAGE: u32 = 1_000;

/// Brings the catalog up to date.
///
/// # Errors
/// Those of the catalog.
pub(crate) async fn record(fleet: &Fleet, op: OperationId) -> Result<()> {
    let found = catalog::operations::get(&mut fleet.catalog.read().await?, op).await?;
    let Some(record) = found.filter(|record| record.kind == "migrate") else { return Ok(()) };
    for tenant in begun(fleet, op).await? {
        if let Some(reached) = reached(fleet, &record, &tenant).await {
            write(fleet, &record, &tenant, reached).await?;
        }
    }
    Ok(())
}

/// Tenants whose steps were claimed and given up.
async fn begun(fleet: &Fleet, op: OperationId) -> Result<Vec<TenantRecord>> {
    let mut tx = fleet.catalog.read().await?;
    let (mut tenants, mut after) = (Vec::new(), None);
    loop {
        let page = catalog::steps::page(&mut tx, op, &[StepState::Cancelled], after, PAGE).await?;
        let claimed = page.iter().filter(|(step, _)| step.lease_epoch > 0);
        let ids: Vec<TenantId> = claimed.map(|(step, _)| step.tenant_id).collect();
        tenants.extend(catalog::tenants::get_many(&mut tx, &ids).await?);
        after = page.last().map(|(step, _)| step.tenant_id);
        if page.len() < PAGE as usize {
            tenants.retain(|tenant| tenant.op_id.is_none());
            return Ok(tenants);
        }
    }
}

/// What the catalog does not know yet.
async fn reached(fleet: &Fleet, record: &OperationRecord, tenant: &TenantRecord) -> Option<Reached> {
    let ledger = ledgers::read_one(fleet, tenant).await?;
    let version = ledger.last().map(|(version, _)| *version);
    if version == tenant.schema_version {
        return None;
    }
    let (_, at) = fleet.current(tenant).await.ok()?;
    let release = record.release_id?;
    let sets = fleet.release(release).await.ok()?;
    let is_of_release = ledger == prefix(sets.of(at.engine()).ok()?, version);
    Some(Reached { tenant: tenant.id, version, release: None, ledger: is_of_release.then_some(release) })
}

/// Unless something else has come to the tenant meanwhile.
async fn write(fleet: &Fleet, record: &OperationRecord, tenant: &TenantRecord, reached: Reached) -> Result<()> {
    let mut tx = fleet.catalog.write().await?;
    let now = catalog::tenants::get(&mut tx, tenant.id).await?;
    let unchanged = |now: &TenantRecord| {
        (now.op_id, now.generation, now.schema_version) == (None, tenant.generation, tenant.schema_version)
    };
    if !now.as_ref().is_some_and(unchanged) {
        return Ok(());
    }
    let data = json!({"from_version": tenant.schema_version, "to_version": reached.version, "complete": false});
    let event = NewEvent {
        kind: "tenant.migrated".to_owned(),
        actor: "fleet".to_owned(),
        tenant_id: Some(tenant.id),
        op_id: Some(record.id),
        request_id: None,
        data,
    };
    catalog::tenants::set_schema_many(&mut tx, &[reached]).await?;
    catalog::events::append(&mut tx, &[event]).await?;
    Ok(tx.commit().await?)
}
