//! archive: only a verified backup of a tenant remains, and its next request wakes it.
//!
//! *freeze* stops writers, so that the backup holds everything. *back up* takes the backup and proves it; if that
//! fails, the tenant serves again. *tombstone* stamps a tombstone and removes the database from the tenant's row; the
//! catalog retains it for a moment. *drop* removes the database.

use async_trait::async_trait;
use catalog::replacements::{ReplacementKind, ReplacementRecord};
use catalog::retained::{RetainedReason, RetainedRecord};
use catalog::tenants::TenantUpdate;
use catalog::{BackupId, Generation, ServerId, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{ErrorKind, IdentityState, InspectionDepth};

use crate::error::{Error, Result};
use crate::operation::{
    CatalogEffect, ClaimedStep, FleetOperation, OperationTargets, PhaseOutcome, PlanInput, StepContext, StepPlan,
};
use crate::replacement::{act, fence, image, roll_back, stamp, state};

/// No parameters: the selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ArchiveParams {}

const BACK_UP: &str = "back_up";
const TOMBSTONE: &str = "tombstone";
/// The name of the phase in operations of older versions.
const TOMBSTONE_BEFORE: &str = "bury";
const DROP: &str = "drop";

#[derive(Debug, Serialize, Deserialize)]
struct ArchiveFacts {
    backup: BackupId,
}

#[derive(Debug, Serialize, Deserialize)]
struct ArchivedDatabase {
    backup: BackupId,
    /// The generation of the tombstone.
    generation: Generation,
    server: ServerId,
    placement: String,
}

#[async_trait]
impl FleetOperation for ArchiveParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Selected(&[TenantState::Active, TenantState::Suspended])
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        for tenant in &seen.tenants {
            plan.add_step(tenant.id, &tenant.name, || "is backed up, then its database is dropped".to_owned());
        }
        Ok(())
    }

    fn conclude_plan(&self, _seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        plan.notes
            .push("the next request of a member brings it back, within seconds to minutes by its size".to_owned());
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        match step.phase.as_str() {
            "" => freeze_tenant(context, step).await,
            BACK_UP => back_up_or_give_up(context, step).await,
            TOMBSTONE | TOMBSTONE_BEFORE => tombstone_or_give_up(context, step).await,
            DROP => drop_archived(context, step).await,
            roll_back::ROLL_BACK => roll_back::roll_back(context, step).await,
            _ => Err(step.unknown_phase()),
        }
        .into()
    }

    async fn give_up(&self, context: &StepContext, step: &ClaimedStep, error: Error) -> PhaseOutcome {
        roll_back::roll_back_phase(context, step, error).await
    }
}

async fn freeze_tenant(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    fence::require_unblocked(step)?;
    step.require_state(&[TenantState::Active, TenantState::Suspended])?;
    context.fault_point("archive: claimed").await;
    let open = act::fence_sound(context, step, ReplacementKind::Archive).await?;
    context.fault_point("archive: frozen").await;
    Ok(state::fenced_outcome(step, BACK_UP, json!({}), open))
}

async fn back_up_or_give_up(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    let Some(open) = state::own_replacement(context, step).await? else {
        return Ok(PhaseOutcome::next_phase("", json!({})));
    };
    match back_up(context, step, &open).await {
        Err(error) => roll_back::start_rollback(step, &open, error),
        done => done,
    }
}

async fn back_up(context: &StepContext, step: &ClaimedStep, open: &ReplacementRecord) -> Result<PhaseOutcome> {
    let expected = step.expected_identity(context.fleet_id(), &[IdentityState::Frozen]);
    let backup = image::store_backup(context, step, &expected, "pre_archive").await?;
    image::prove_backup(context, step, &backup).await?;
    context.fault_point("archive: proved").await;
    let id = backup.id;
    Ok(PhaseOutcome::next_phase(TOMBSTONE, json!(ArchiveFacts { backup: id }))
        // The previous release kept the fence in the facts, which end with this phase.
        .with_effect(CatalogEffect::PutReplacement(Box::new(open.clone())))
        .with_effect(CatalogEffect::Backup(Box::new(backup)))
        .with_effect(CatalogEffect::Verified { backup: id, error: None })
        .with_effect(CatalogEffect::Event(
            step.tenant_event("backup.created", json!({"backup": id, "reason": "pre_archive"})),
        )))
}

async fn tombstone_or_give_up(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    let ArchiveFacts { backup } = step.parse_facts()?;
    let Some(open) = state::own_replacement(context, step).await? else {
        // The fence was lifted and the database may have changed since the backup, so the step starts again.
        return Ok(PhaseOutcome::next_phase("", json!({})));
    };
    match tombstone_database(context, step, &open, backup).await {
        Err(error) => roll_back::start_rollback(step, &open, error),
        done => done,
    }
}

async fn tombstone_database(
    context: &StepContext,
    step: &ClaimedStep,
    open: &ReplacementRecord,
    backup: BackupId,
) -> Result<PhaseOutcome> {
    stamp::stamp_current(context, step, &[IdentityState::Frozen], IdentityState::Tombstone).await?;
    context.fault_point("archive: stamped").await;
    let now = context.catalog.now();
    let placement = step.tenant.placement.clone().unwrap_or_default();
    let flip = TenantUpdate {
        state: Some(TenantState::Archived),
        block_writes: Some(fence::saved_block(step.tenant.state, open.previous_block)),
        wake_state: Some(step.tenant.state_on_wake()),
        archive_backup_id: Some(backup),
        placement: Some(None),
        reason: Some(open.previous_reason.clone()),
        ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
    };
    let kept = RetainedRecord {
        tenant_id: step.tenant.id,
        server_id: step.tenant.server_id,
        placement: placement.clone(),
        generation: step.tenant.generation.next(),
        reason: RetainedReason::Archive,
        op_id: step.op.id,
        schema_version: step.tenant.schema_version,
        pin: step.tenant.pin,
        created_at: now,
        keep_until: now + 1,
    };
    let generation = step.tenant.generation.next();
    let facts = json!(ArchivedDatabase { backup, generation, server: step.tenant.server_id, placement });
    Ok(PhaseOutcome::next_phase(DROP, facts)
        .with_effect(CatalogEffect::UpdateTenant(flip))
        .with_effect(CatalogEffect::EndReplacement(step.tenant.id))
        .with_effect(CatalogEffect::Retain(kept))
        .with_effect(CatalogEffect::Event(step.tenant_event("tenant.archived", json!({"backup": backup})))))
}

async fn drop_archived(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    let ArchivedDatabase { backup, generation, server, placement } = step.parse_facts()?;
    let (engine, at) = context.resolve_placement(server, &placement).await?;
    let expected = step.expected_at(context.fleet_id(), generation, &[IdentityState::Tombstone]);
    if let Err(error) = engine.drop_database(&at, Some(&expected)).await {
        // A missing database counts as dropped, even if the drop returned an error.
        let found = engine.inspect_database(&at, None, InspectionDepth::Ledger).await;
        if found.err().is_none_or(|found| found.kind() != ErrorKind::Missing) {
            return Err(error.into());
        }
    }
    context.fault_point("archive: dropped").await;
    Ok(PhaseOutcome::step_done(json!({"backup": backup})).with_effect(CatalogEffect::Unretain { server, placement }))
}
