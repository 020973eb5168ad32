//! undelete: a deleted tenant comes back, as long as its database has not been purged.

use async_trait::async_trait;
use catalog::TenantState;
use catalog::tenants::Flip;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::IdentityState;

use super::{Effect, Fleet, Operation, Outcome, Plan, Seen, Step, Targets, fence, stamp};
use crate::error::Result;

/// Nothing to say: the selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "undelete"
    }

    fn targets(&self) -> Targets {
        Targets::Selected(&[TenantState::Deleted])
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let mut plan = Plan::default();
        for tenant in &seen.tenants {
            let becomes = if tenant.placement.is_some() { "answers again" } else { "is archived again" };
            plan.step(tenant.id, &tenant.name, || becomes.to_owned());
        }
        plan.notes.push("releases that came meanwhile were not applied: fleetctl migrate run brings them".to_owned());
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        undelete(fleet, step).await.into()
    }
}

async fn undelete(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    step.require_state(&[TenantState::Deleted])?;
    fleet.point("undelete: claimed").await;
    let state = match step.tenant.placement {
        Some(_) => {
            stamp::restamp(fleet, step, &[IdentityState::Tombstone], fence::at_rest(&step.tenant)).await?;
            fence::awake(&step.tenant)
        }
        None => TenantState::Archived,
    };
    fleet.point("undelete: stamped").await;
    let flip = Flip { state: Some(state), purge_after: Some(None), ..Flip::of(step.tenant.id, step.tenant.generation) };
    let event = step.event("tenant.undeleted", json!({"state": state}));
    Ok(Outcome::done(json!({"state": state})).with(Effect::Flip(flip)).with(Effect::Event(event)))
}
