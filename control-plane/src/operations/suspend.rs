//! suspend: the tenant stops answering requests, with a reason. Its database stays where it is, and is still migrated
//! and backed up.
//!
//! The stamp gives the database a generation that no router knows. So a router that has not heard of the suspension
//! refuses too.

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

/// No parameters: the selection says which tenants, and the operation's reason says why.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SuspendParams {}

#[async_trait]
impl FleetOperation for SuspendParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Selected(&[TenantState::Active])
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        for tenant in &seen.tenants {
            plan.add_step(tenant.id, &tenant.name, || "stops answering until it is resumed".to_owned());
        }
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        suspend_tenant(context, step).await.into()
    }
}

async fn suspend_tenant(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    fence::require_unblocked(step)?;
    step.require_state(&[TenantState::Active])?;
    context.fault_point("suspend: claimed").await;
    let state = fence::unfenced_tenant_state(&step.tenant);
    stamp::stamp_current(context, step, &[state], state).await?;
    context.fault_point("suspend: stamped").await;
    let reason = step.change_reason();
    let flip = TenantUpdate {
        state: Some(TenantState::Suspended),
        reason: Some(Some(reason.clone())),
        ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
    };
    let event = step.tenant_event("tenant.suspended", json!({"reason": reason}));
    Ok(PhaseOutcome::step_done(json!({}))
        .with_effect(CatalogEffect::UpdateTenant(flip))
        .with_effect(CatalogEffect::Event(event)))
}
