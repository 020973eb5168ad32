//! backup: writes a snapshot of each tenant to the backup store, with its manifest last. At the end it also backs up
//! the catalog.

use async_trait::async_trait;
use catalog::TenantState;
use catalog::backups::BackupRecord;
use catalog::operations::OperationRecord;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::catalog_copy;
use crate::error::Result;
use crate::operation::{
    CatalogEffect, ClaimedStep, FleetOperation, OperationTargets, PhaseOutcome, PlanInput, StepContext, StepPlan,
    StepVerdict,
};
use crate::replacement::{fence, image};

/// No parameters: the selection says which tenants, and the submission says why.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BackupParams {}

#[async_trait]
impl FleetOperation for BackupParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Selected(&[TenantState::Active, TenantState::Suspended])
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        for tenant in &seen.tenants {
            plan.add_step(tenant.id, &tenant.name, || "is backed up".to_owned());
        }
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        take_backup(context, step).await.into()
    }

    async fn run_closing(&self, context: &StepContext, record: &OperationRecord) -> Result<()> {
        catalog_copy::store_if_due(context, record).await
    }
}

async fn take_backup(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    fence::require_unblocked(step)?;
    let expected = step.expected_identity(context.fleet_id(), &[fence::unfenced_tenant_state(&step.tenant)]);
    let record = image::store_backup(context, step, &expected, "manual").await?;
    let proof = prove_first(context, step, &record).await?;
    let left_out = proof.as_ref().and_then(|proof| proof.as_ref().ok()).filter(|left_out| !left_out.is_empty());
    let mut facts = json!({"backup": record.id, "size_bytes": record.size_bytes, "stored_bytes": record.stored_bytes});
    if let Some(left_out) = left_out {
        facts["left_out"] = json!(left_out);
    }
    let backup = record.id;
    let mut outcome = PhaseOutcome::step_done(facts.clone())
        .with_effect(CatalogEffect::Backup(Box::new(record)))
        .with_effect(CatalogEffect::Event(step.tenant_event("backup.created", facts)));
    // The size of the database itself: a snapshot of PostgreSQL has another size.
    outcome.effects.extend(context.size_effect(&step.tenant, None).await);
    Ok(match proof {
        None => outcome,
        Some(Ok(_)) => outcome.with_effect(CatalogEffect::Verified { backup, error: None }),
        Some(Err(error)) => {
            let outcome = outcome.with_effect(CatalogEffect::Verified { backup, error: Some(error.to_string()) });
            PhaseOutcome { verdict: StepVerdict::Failed(error), ..outcome }
        }
    })
}

/// Proves the first backup of a tenant at a version at once. A backup that no server can restore is then reported while
/// the database still exists. The backup stays in the store, because there is no better one.
async fn prove_first(
    context: &StepContext,
    step: &ClaimedStep,
    record: &BackupRecord,
) -> Result<Option<Result<Vec<String>>>> {
    if !image::is_unproved(context, record).await? {
        return Ok(None);
    }
    match image::prove_backup(context, step, record).await {
        // A transient error says nothing about the backup. The next backup is proved instead.
        Err(error) if error.transient => Ok(None),
        proof => Ok(Some(proof)),
    }
}
