//! unarchive: restores an archived tenant's database from its last backup and migrates it to the current release. A
//! pinned tenant comes back at the version that it was archived with, and stays pinned.

use async_trait::async_trait;
use catalog::tenants::TenantUpdate;
use catalog::{BackupId, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::Result;
use crate::operation::{
    CatalogEffect, ClaimedStep, FleetOperation, OperationTargets, PhaseOutcome, PlacementUse, PlanInput, StepContext,
    StepPlan,
};
use crate::replacement::build::{self, SchemaGoal};
use crate::replacement::{fence, latest};

/// No parameters: the selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct UnarchiveParams {}

#[async_trait]
impl FleetOperation for UnarchiveParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Selected(&[TenantState::Archived])
    }

    fn placement_use(&self) -> PlacementUse {
        PlacementUse::Fresh
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        plan.release = seen.current_release;
        for tenant in &seen.tenants {
            plan.add_step(tenant.id, &tenant.name, || "its database is restored from its last backup".to_owned());
        }
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        unarchive_tenant(context, step).await.into()
    }
}

async fn unarchive_tenant(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    step.require_state(&[TenantState::Archived])?;
    latest::require_none_since(context, step).await?;
    let backup = archived_with(context, step).await?;
    let source = build::BackupSource { backup, tenant: step.tenant.id };
    let goal = match step.tenant.pin {
        Some(_) => SchemaGoal::Stay(step.tenant.release_id),
        None => SchemaGoal::Head(step.op.release_id.or(step.tenant.release_id)),
    };
    let fill = build::from_backup(context, step, source, step.tenant.generation.next(), goal);
    let mut built =
        build::build_new_tenant(context, step, fence::unfenced_tenant_state(&step.tenant), goal, fill).await?;
    built.pin = step.tenant.pin;
    let state = step.tenant.state_on_wake();
    let facts = built.add_left_out(json!({"backup": backup, "state": state, "schema_version": built.schema_version}));
    let update = TenantUpdate { state: Some(state), ..built.tenant_update(step) };
    let event = step.tenant_event("tenant.unarchived", facts.clone());
    Ok(PhaseOutcome::step_done(facts)
        .with_effect(CatalogEffect::UpdateTenant(update))
        .with_effect(CatalogEffect::Event(event)))
}

/// The backup that the tenant was archived with. A process of an older version recorded it only in the audit log. If the
/// log was trimmed, the newest backup is the right one, because an archived tenant is never backed up.
async fn archived_with(context: &StepContext, step: &ClaimedStep) -> Result<BackupId> {
    if let Some(recorded) = step.tenant.archive_backup_id {
        return Ok(recorded);
    }
    let mut tx = context.catalog.read().await?;
    let data = catalog::events::latest_event_data(&mut tx, step.tenant.id, "tenant.archived").await?;
    let named = data.and_then(|data| serde_json::from_str::<ArchivedEvent>(&data).ok()).map(|archived| archived.backup);
    if let Some(named) = named {
        return Ok(named);
    }
    let newest = catalog::backups::newest_backup(&mut tx, step.tenant.id, None).await?;
    newest.map(|newest| newest.id).ok_or_else(|| build::backup_not_found(&step.tenant.name))
}

/// The part of the archive event in the audit log that is needed here.
#[derive(Deserialize)]
struct ArchivedEvent {
    backup: BackupId,
}
