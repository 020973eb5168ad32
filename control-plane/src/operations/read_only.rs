//! read_only: an operator blocks a tenant's writes, with a reason, or lifts the block. Reads continue.

use async_trait::async_trait;
use catalog::tenants::TenantUpdate;
use catalog::{BlockWrites, TenantRecord, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::IdentityState;

use crate::error::{ErrorKind, Result};
use crate::operation::{
    CatalogEffect, ClaimedStep, ExclusionReason, FleetOperation, OperationTargets, PhaseOutcome, PlanInput,
    StepContext, StepPlan,
};
use crate::replacement::{fence, stamp};

/// States in which a tenant serves requests, so that blocking its writes has an effect.
const STATES: &[TenantState] = &[TenantState::Active];

/// The parameters of a write block.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadOnlyParams {
    /// True blocks writes; false allows them again.
    pub on: bool,
}

#[async_trait]
impl FleetOperation for ReadOnlyParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Selected(STATES)
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        for tenant in &seen.tenants {
            match (self.on, tenant.block_writes == Some(BlockWrites::Operator)) {
                (true, true) => plan.add_skipped(&tenant.name, || "is read-only already".to_owned()),
                (false, false) => plan.add_skipped(&tenant.name, || "is writable already".to_owned()),
                (true, false) => plan.add_step(tenant.id, &tenant.name, || "becomes read-only".to_owned()),
                (false, true) => plan.add_step(tenant.id, &tenant.name, || "becomes writable again".to_owned()),
            }
        }
        Ok(())
    }

    fn exclusion_reason(&self, tenant: &TenantRecord) -> Option<ExclusionReason> {
        let is_so = (tenant.block_writes == Some(BlockWrites::Operator)) == self.on
            && tenant.block_writes != Some(BlockWrites::Operation);
        let what = if self.on { "read-only already" } else { "writable already" };
        let left = ExclusionReason::by_state(tenant, STATES);
        left.or_else(|| is_so.then(|| ExclusionReason::because_tenant_is(ErrorKind::TenantLeft, tenant, what)))
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        self.change_block(context, step).await.into()
    }
}

impl ReadOnlyParams {
    async fn change_block(&self, context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
        fence::require_unblocked(step)?;
        step.require_state(STATES)?;
        context.fault_point("read_only: claimed").await;
        let (to, block, reason, event) = match self.on {
            true => {
                (IdentityState::Frozen, Some(BlockWrites::Operator), Some(step.change_reason()), "tenant.read_only")
            }
            false => (IdentityState::Active, None, None, "tenant.writable"),
        };
        stamp::stamp_current(context, step, &[fence::unfenced_tenant_state(&step.tenant)], to).await?;
        context.fault_point("read_only: stamped").await;
        let event = step.tenant_event(event, json!({"reason": reason}));
        let flip = TenantUpdate {
            block_writes: Some(block),
            reason: Some(reason),
            ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
        };
        Ok(PhaseOutcome::step_done(json!({"read_only": self.on}))
            .with_effect(CatalogEffect::UpdateTenant(flip))
            .with_effect(CatalogEffect::Event(event)))
    }
}
