//! resume: a suspended tenant answers again.

use async_trait::async_trait;
use catalog::TenantState;
use catalog::tenants::Flip;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Effect, Fleet, Operation, Outcome, Plan, Seen, Step, Targets, fence, stamp};
use crate::error::Result;

/// Nothing to say: the selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "resume"
    }

    fn targets(&self) -> Targets {
        Targets::Selected(&[TenantState::Suspended])
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let mut plan = Plan::default();
        for tenant in &seen.tenants {
            plan.step(tenant.id, &tenant.name, || "answers again".to_owned());
        }
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        resume(fleet, step).await.into()
    }
}

async fn resume(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    fence::require_unblocked(step)?;
    step.require_state(&[TenantState::Suspended])?;
    fleet.point("resume: claimed").await;
    let state = fence::at_rest(&step.tenant);
    stamp::restamp(fleet, step, &[state], state).await?;
    fleet.point("resume: stamped").await;
    // One that is read-only besides stays so, and is not without a reason.
    let reason = step.tenant.state_reason.clone().filter(|_| step.tenant.block_writes.is_some());
    let flip = Flip {
        state: Some(TenantState::Active),
        reason: Some(reason),
        ..Flip::of(step.tenant.id, step.tenant.generation)
    };
    let event = step.event("tenant.resumed", json!({}));
    Ok(Outcome::done(json!({})).with(Effect::Flip(flip)).with(Effect::Event(event)))
}
