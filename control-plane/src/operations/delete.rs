//! delete: a final verified backup, a tombstone, and a date after which the database is dropped.
//!
//! The tenant serves until the tombstone is stamped; the database stays until the date. So writes between backup and
//! tombstone are missing in the final backup. They are in the database, which can still be undeleted.

use async_trait::async_trait;
use catalog::tenants::TenantUpdate;
use catalog::{BackupId, Generation, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::IdentityState;

use crate::error::{Error, ErrorKind, Result};
use crate::operation::{
    CatalogEffect, ClaimedStep, FleetOperation, OperationTargets, PhaseOutcome, PlanInput, StepContext, StepPlan,
};
use crate::replacement::{fence, image, stamp};

/// The parameters of a deletion. The selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DeleteParams {
    /// Takes no final backup. The database can be undeleted until its purge; after that nothing is left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_backup: bool,
}

const STATES: &[TenantState] = &[TenantState::Active, TenantState::Suspended, TenantState::Archived];

const TOMBSTONE: &str = "tombstone";

#[derive(Debug, Serialize, Deserialize)]
struct DeletionFacts {
    /// The final backup. `None`: the tenant was archived with a backup of its own, or no backup was requested.
    backup: Option<BackupId>,
    /// The tenant's generation at the backup. If it has changed since, the backup may not be its last state.
    generation: Generation,
}

#[async_trait]
impl FleetOperation for DeleteParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Selected(STATES)
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        if let Some(tenant) = seen.tenants.iter().find(|tenant| tenant.protected) {
            return Err(Error::new(ErrorKind::Protected, format!("{} is protected from deletion", tenant.name))
                .try_next("lift the protection first, or leave the tenant out"));
        }
        for tenant in &seen.tenants {
            let what = if self.without_backup { "stops answering" } else { "is backed up, then stops answering" };
            plan.add_step(tenant.id, &tenant.name, || what.to_owned());
        }
        Ok(())
    }

    fn conclude_plan(&self, _seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        plan.notes.push("the databases stay on disk until their purge date".to_owned());
        if self.without_backup {
            plan.notes.push("no final backup is taken".to_owned());
        }
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        match step.phase.as_str() {
            "" => back_up(context, step, self.without_backup).await,
            TOMBSTONE => tombstone_database(context, step).await,
            _ => Err(step.unknown_phase()),
        }
        .into()
    }
}

async fn back_up(context: &StepContext, step: &ClaimedStep, without: bool) -> Result<PhaseOutcome> {
    fence::require_unblocked(step)?;
    step.require_state(STATES)?;
    require_unprotected(step)?;
    context.fault_point("delete: claimed").await;
    if without || step.tenant.state == TenantState::Archived {
        // An archived tenant has a backup and no database.
        let facts = DeletionFacts { backup: None, generation: step.tenant.generation };
        return Ok(PhaseOutcome::next_phase(TOMBSTONE, json!(facts)));
    }
    let expected = step.expected_identity(context.fleet_id(), &[fence::unfenced_tenant_state(&step.tenant)]);
    let backup = image::store_backup(context, step, &expected, "pre_delete").await.map_err(advise_when_full)?;
    image::prove_backup(context, step, &backup).await.map_err(advise_when_full)?;
    context.fault_point("delete: proved").await;
    let id = backup.id;
    Ok(PhaseOutcome::next_phase(
        TOMBSTONE,
        json!(DeletionFacts { backup: Some(id), generation: step.tenant.generation }),
    )
    .with_effect(CatalogEffect::Backup(Box::new(backup)))
    .with_effect(CatalogEffect::Verified { backup: id, error: None })
    .with_effect(CatalogEffect::Event(
        step.tenant_event("backup.created", json!({"backup": id, "reason": "pre_delete"})),
    )))
}

/// Adds to a full-disk error how to delete without a final backup. Deleting must stay possible, because it frees space.
fn advise_when_full(mut error: Error) -> Error {
    if error.kind == ErrorKind::DiskFull {
        error
            .detail
            .push_str("; to delete the tenant without a final backup: fleetctl tenant delete TENANT --no-backup");
    }
    error
}

fn require_unprotected(step: &ClaimedStep) -> Result<()> {
    match step.tenant.protected {
        true => Err(Error::new(ErrorKind::Protected, format!("{} was protected meanwhile", step.tenant.name))),
        false => Ok(()),
    }
}

async fn tombstone_database(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    let DeletionFacts { backup, generation } = step.parse_facts()?;
    if generation != step.tenant.generation {
        return Ok(PhaseOutcome::next_phase("", json!({})));
    }
    require_unprotected(step)?;
    context.fault_point("delete: begins").await;
    if step.tenant.placement.is_some() {
        stamp::stamp_current(context, step, &[fence::unfenced_tenant_state(&step.tenant)], IdentityState::Tombstone)
            .await?;
    }
    context.fault_point("delete: stamped").await;
    let purge_after = step.now + context.config.purge_after_ms;
    let flip = TenantUpdate {
        state: Some(TenantState::Deleted),
        block_writes: Some(fence::saved_block(step.tenant.state, step.tenant.block_writes)),
        wake_state: Some(step.tenant.state_on_wake()),
        purge_after: Some(Some(purge_after)),
        ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
    };
    let facts = json!({"backup": backup, "purge_after": purge_after});
    Ok(PhaseOutcome::step_done(facts.clone())
        .with_effect(CatalogEffect::UpdateTenant(flip))
        .with_effect(CatalogEffect::BuryJobs {
            tenant: step.tenant.id,
            below: step.tenant.generation.next(),
            reason: "the tenant was deleted",
        })
        .with_effect(CatalogEffect::Event(step.tenant_event("tenant.deleted", facts))))
}
