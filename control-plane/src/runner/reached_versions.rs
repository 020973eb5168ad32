//! Records the versions that tenants of a cancelled migration have really reached, because a process that died could
//! not report them.
//!
//! Called when such an operation is cancelled, or when its last leases have expired. Reads the ledgers of the tenants
//! whose steps had begun, and writes differences to the catalog. A database that cannot be read is left to
//! `migrate status`.

use catalog::events::NewEvent;
use catalog::operations::OperationRecord;
use catalog::steps::StepState;
use catalog::tenants::ReachedSchema;
use catalog::{OperationId, TenantId, TenantRecord};
use serde_json::json;

use crate::error::Result;
use crate::operation::{OperationRegistry, StepContext, ledgers};
use crate::plan::ledgers::applied_prefix;

/// Steps read per page.
const PAGE: u32 = 1_000;

/// Updates the catalog with the versions that the tenants of an operation have reached.
///
/// # Errors
/// Those of the catalog.
pub(crate) async fn record_reached(
    context: &StepContext,
    operations: OperationRegistry,
    op: OperationId,
) -> Result<()> {
    let found = catalog::operations::get(&mut context.catalog.read().await?, op).await?;
    // The parameters of a newer release may be unreadable here. Then only the ledgers can tell.
    let changes = |record: &OperationRecord| {
        (operations.parse_record)(record).map_or(true, |operation| operation.changes_versions())
    };
    let Some(record) = found.filter(changes) else { return Ok(()) };
    for tenant in begun_tenants(context, op).await? {
        if let Some(reached) = reached_version(context, &record, &tenant).await {
            write_reached(context, &record, &tenant, reached).await?;
        }
    }
    Ok(())
}

/// Tenants whose steps were claimed and then given up.
async fn begun_tenants(context: &StepContext, op: OperationId) -> Result<Vec<TenantRecord>> {
    let mut tx = context.catalog.read().await?;
    let (mut tenants, mut after) = (Vec::new(), None);
    loop {
        let page = catalog::steps::list_steps(&mut tx, op, &[StepState::Cancelled], after, PAGE).await?;
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

/// The version that a database has reached, if the catalog does not know it yet.
async fn reached_version(
    context: &StepContext,
    record: &OperationRecord,
    tenant: &TenantRecord,
) -> Option<ReachedSchema> {
    let ledger = ledgers::read_one(context, tenant).await?;
    let version = ledger.last().map(|(version, _)| *version);
    if version == tenant.schema_version {
        return None;
    }
    let (_, at) = context.current_database(tenant).await.ok()?;
    let release = record.release_id?;
    let sets = context.release_sets(release).await.ok()?;
    let is_of_release = ledger == applied_prefix(sets.for_engine(at.engine_kind()).ok()?, version);
    Some(ReachedSchema { tenant: tenant.id, version, release: None, ledger: is_of_release.then_some(release) })
}

/// Writes the reached version, unless the tenant was changed meanwhile.
async fn write_reached(
    context: &StepContext,
    record: &OperationRecord,
    tenant: &TenantRecord,
    reached: ReachedSchema,
) -> Result<()> {
    let mut tx = context.catalog.write().await?;
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
    catalog::events::append_events(&mut tx, &[event]).await?;
    Ok(tx.commit().await?)
}
