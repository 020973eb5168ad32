//! undelete: restores a deleted tenant to service, as long as its database has not been purged.

use async_trait::async_trait;
use catalog::TenantState;
use catalog::tenants::TenantUpdate;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::IdentityState;

use crate::error::Result;
use crate::operation::{
    CatalogEffect, ClaimedStep, FleetOperation, OperationTargets, PhaseOutcome, PlanInput, StepContext, StepPlan,
};
use crate::replacement::{fence, stamp};

/// No parameters: the selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct UndeleteParams {}

#[async_trait]
impl FleetOperation for UndeleteParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Selected(&[TenantState::Deleted])
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        for tenant in &seen.tenants {
            let becomes = if tenant.placement.is_some() { "answers again" } else { "is archived again" };
            plan.add_step(tenant.id, &tenant.name, || becomes.to_owned());
        }
        Ok(())
    }

    fn conclude_plan(&self, _seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        plan.notes.push("newer releases are not applied by this: use fleetctl migrate run".to_owned());
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        undelete_tenant(context, step).await.into()
    }
}

async fn undelete_tenant(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    step.require_state(&[TenantState::Deleted])?;
    context.fault_point("undelete: claimed").await;
    let state = match step.tenant.placement {
        Some(_) => {
            stamp::stamp_current(
                context,
                step,
                &[IdentityState::Tombstone],
                fence::unfenced_tenant_state(&step.tenant),
            )
            .await?;
            step.tenant.state_on_wake()
        }
        None => TenantState::Archived,
    };
    context.fault_point("undelete: stamped").await;
    let flip = TenantUpdate {
        state: Some(state),
        purge_after: Some(None),
        ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
    };
    let event = step.tenant_event("tenant.undeleted", json!({"state": state}));
    Ok(PhaseOutcome::step_done(json!({"state": state}))
        .with_effect(CatalogEffect::UpdateTenant(flip))
        .with_effect(CatalogEffect::Event(event)))
}
