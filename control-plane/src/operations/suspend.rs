//! suspend: the tenant answers no more, with a reason; its database stays where it is and is still migrated and backed up.
//!
//! The stamp makes its generation one that no router knows, so that one that has not heard of the suspension refuses too.

use async_trait::async_trait;
use catalog::TenantState;
use catalog::tenants::Flip;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Effect, Fleet, Operation, Outcome, Plan, Seen, Step, Targets, fence, stamp};
use crate::error::Result;

/// Nothing to say: the selection says which tenants, the operation's reason why.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "suspend"
    }

    fn targets(&self) -> Targets {
        Targets::Selected(&[TenantState::Active])
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let mut plan = Plan::default();
        for tenant in &seen.tenants {
            plan.step(tenant.id, &tenant.name, || "answers no more, until it is resumed".to_owned());
        }
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        suspend(fleet, step).await.into()
    }
}

async fn suspend(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    fence::require_unblocked(step)?;
    step.require_state(&[TenantState::Active])?;
    fleet.point("suspend: claimed").await;
    let state = fence::at_rest(&step.tenant);
    stamp::restamp(fleet, step, &[state], state).await?;
    fleet.point("suspend: stamped").await;
    let reason = step.reason();
    let flip = Flip {
        state: Some(TenantState::Suspended),
        reason: Some(Some(reason.clone())),
        ..Flip::of(step.tenant.id, step.tenant.generation)
    };
    let event = step.event("tenant.suspended", json!({"reason": reason}));
    Ok(Outcome::done(json!({})).with(Effect::Flip(flip)).with(Effect::Event(event)))
}
