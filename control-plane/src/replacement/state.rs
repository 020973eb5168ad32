//! The state of a replacement, as the catalog's table `replacements` holds it, and the tenant updates that end it.

use catalog::replacements::{NewDatabase, ReplacementKind, ReplacementRecord, ReplacementStage};
use catalog::retained::RetainedReason;
use catalog::tenants::TenantUpdate;
use catalog::{BlockWrites, Generation};
use tenant_engine::IdentityState;

use super::build::BuiltDatabase;
use super::fence::state_under_block;
use super::older_facts;
use crate::error::{Error, Result};
use crate::operation::{CatalogEffect, ClaimedStep, PhaseOutcome, StepContext};

/// The generation after a replacement: the fence raises it by one, the swap by one more.
pub(crate) fn after_swap(generation: Generation) -> Generation {
    generation.next().next()
}

/// The replacement of this tenant's database that is under way, by whichever operation. `None` when no operation blocks
/// the tenant, or when nothing tells what the operation did.
///
/// # Errors
/// Those of the catalog.
pub(crate) async fn open_replacement(context: &StepContext, step: &ClaimedStep) -> Result<Option<ReplacementRecord>> {
    if step.tenant.block_writes != Some(BlockWrites::Operation) {
        return Ok(None);
    }
    let mut tx = context.catalog.read().await?;
    let row = catalog::replacements::of_tenant(&mut tx, step.tenant.id).await?;
    match row.filter(|row| row.generation == step.tenant.generation) {
        Some(row) => Ok(Some(row)),
        None => older_facts::find_replacement(&mut tx, step).await,
    }
}

/// The replacement that this step's operation has begun and must finish. `None` when its block has ended: between two
/// attempts it may have been lifted, and writes may have continued.
///
/// # Errors
/// Those of the catalog.
pub(crate) async fn own_replacement(context: &StepContext, step: &ClaimedStep) -> Result<Option<ReplacementRecord>> {
    Ok(open_replacement(context, step).await?.filter(|open| open.op_id == step.op.id))
}

/// The new database of a replacement that is ready.
///
/// # Errors
/// `internal`: the stored phase and the stored stage do not match.
pub(super) fn require_new(open: &ReplacementRecord) -> Result<&NewDatabase> {
    open.new.as_ref().ok_or_else(|| Error::internal("a replacement without a new database"))
}

/// A new database, as the record of a replacement holds it.
pub(crate) fn new_database(built: &BuiltDatabase, step: &ClaimedStep) -> NewDatabase {
    NewDatabase {
        server_id: built.server.unwrap_or(step.tenant.server_id),
        placement: built.placement.clone(),
        generation: built.generation,
        schema_version: built.schema_version,
        release_id: built.release,
        size_bytes: i64::try_from(built.size_bytes).unwrap_or(i64::MAX),
        pin: built.pin,
    }
}

/// The identity state of the database that serves after the block.
pub(super) fn unfenced_state(open: &ReplacementRecord) -> IdentityState {
    state_under_block(open.previous_block)
}

/// Adds to a tenant update that the block ends, and that the tenant gets back what it had before.
pub(crate) fn lift_block(open: &ReplacementRecord, update: TenantUpdate) -> TenantUpdate {
    TenantUpdate { block_writes: Some(open.previous_block), reason: Some(open.previous_reason.clone()), ..update }
}

/// The tenant update that names the new database.
pub(super) fn update_to_new(step: &ClaimedStep, new: &NewDatabase) -> TenantUpdate {
    TenantUpdate {
        placement: Some(Some(new.placement.clone())),
        server_id: Some(new.server_id),
        schema_version: Some(new.schema_version),
        release_id: Some(new.release_id),
        pin: Some(new.pin),
        size_bytes: Some(new.size_bytes),
        ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
    }
}

/// Ends a phase that has fenced the current database: the catalog blocks the tenant's writes, and records the
/// replacement, in one transaction.
pub(crate) fn fenced_outcome(
    step: &ClaimedStep,
    next: &'static str,
    facts: serde_json::Value,
    open: ReplacementRecord,
) -> PhaseOutcome {
    let block = TenantUpdate {
        block_writes: Some(Some(BlockWrites::Operation)),
        reason: Some(Some(format!("{} {} is replacing the database", step.op.kind, step.op.id))),
        ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
    };
    PhaseOutcome::next_phase(next, facts)
        .with_effect(CatalogEffect::UpdateTenant(block))
        .with_effect(CatalogEffect::PutReplacement(Box::new(open)))
}

/// The effect that records that the new database is ready.
pub(crate) fn ready_effect(open: &ReplacementRecord, new: NewDatabase) -> CatalogEffect {
    let open = ReplacementRecord { stage: ReplacementStage::Ready, new: Some(new), ..open.clone() };
    CatalogEffect::PutReplacement(Box::new(open))
}

/// The reason recorded for a sound database that this kind of replacement retains.
pub(super) fn retained_reason(kind: ReplacementKind) -> RetainedReason {
    match kind {
        ReplacementKind::Move => RetainedReason::Move,
        ReplacementKind::Archive => RetainedReason::Archive,
        ReplacementKind::Restore | ReplacementKind::Undo => RetainedReason::Restore,
    }
}
