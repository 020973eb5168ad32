//! resume: a suspended tenant serves requests again.

use async_trait::async_trait;
use catalog::TenantState;
use catalog::tenants::TenantUpdate;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::Result;
use crate::operation::{
    CatalogEffect, ClaimedStep, FleetOperation, OperationTargets, PhaseOutcome, PlanInput, StepContext, StepPlan,
};
use crate::replacement::{fence, stamp};

/// No parameters: the selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ResumeParams {}

#[async_trait]
impl FleetOperation for ResumeParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Selected(&[TenantState::Suspended])
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        for tenant in &seen.tenants {
            plan.add_step(tenant.id, &tenant.name, || "answers again".to_owned());
        }
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        resume_tenant(context, step).await.into()
    }
}

async fn resume_tenant(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    fence::require_unblocked(step)?;
    step.require_state(&[TenantState::Suspended])?;
    context.fault_point("resume: claimed").await;
    let state = fence::unfenced_tenant_state(&step.tenant);
    stamp::stamp_current(context, step, &[state], state).await?;
    context.fault_point("resume: stamped").await;
    // A tenant that is also read-only stays so, and keeps the reason for it.
    let reason = step.tenant.state_reason.clone().filter(|_| step.tenant.block_writes.is_some());
    let flip = TenantUpdate {
        state: Some(TenantState::Active),
        reason: Some(reason),
        ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
    };
    let event = step.tenant_event("tenant.resumed", json!({}));
    Ok(PhaseOutcome::step_done(json!({}))
        .with_effect(CatalogEffect::UpdateTenant(flip))
        .with_effect(CatalogEffect::Event(event)))
}
