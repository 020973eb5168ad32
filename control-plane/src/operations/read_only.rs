//! read_only: an operator's block of a tenant's writes, with a reason, and its end. Reads go on.

use async_trait::async_trait;
use catalog::tenants::Flip;
use catalog::{BlockWrites, TenantRecord, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::IdentityState;

use super::{Effect, Fleet, Left, Operation, Outcome, Plan, Seen, Step, Targets, fence, stamp};
use crate::error::Result;

/// States in which a tenant serves requests, so that a block of its writes means something.
const STATES: &[TenantState] = &[TenantState::Active];

/// Which of the two.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Params {
    /// False: writes are allowed again.
    pub on: bool,
}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "read_only"
    }

    fn targets(&self) -> Targets {
        Targets::Selected(STATES)
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let mut plan = Plan::default();
        for tenant in &seen.tenants {
            match (self.on, tenant.block_writes == Some(BlockWrites::Operator)) {
                (true, true) => plan.skip(&tenant.name, || "is read-only already".to_owned()),
                (false, false) => plan.skip(&tenant.name, || "may be written already".to_owned()),
                (true, false) => plan.step(tenant.id, &tenant.name, || "becomes read-only".to_owned()),
                (false, true) => plan.step(tenant.id, &tenant.name, || "may be written again".to_owned()),
            }
        }
        Ok(plan)
    }

    fn has_left(&self, tenant: &TenantRecord) -> Option<Left> {
        let is_so = (tenant.block_writes == Some(BlockWrites::Operator)) == self.on
            && tenant.block_writes != Some(BlockWrites::Operation);
        let what = if self.on { "read-only already" } else { "writable already" };
        let left = Left::by_state(tenant, STATES);
        left.or_else(|| is_so.then(|| Left::is("tenant_left", tenant, what)))
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        self.change(fleet, step).await.into()
    }
}

impl Params {
    async fn change(&self, fleet: &Fleet, step: &Step) -> Result<Outcome> {
        fence::require_unblocked(step)?;
        step.require_state(STATES)?;
        fleet.point("read_only: claimed").await;
        let (to, block, reason, event) = match self.on {
            true => (IdentityState::Frozen, Some(BlockWrites::Operator), Some(step.reason()), "tenant.read_only"),
            false => (IdentityState::Active, None, None, "tenant.writable"),
        };
        stamp::restamp(fleet, step, &[fence::at_rest(&step.tenant)], to).await?;
        fleet.point("read_only: stamped").await;
        let event = step.event(event, json!({"reason": reason}));
        let flip = Flip {
            block_writes: Some(block),
            reason: Some(reason),
            ..Flip::of(step.tenant.id, step.tenant.generation)
        };
        Ok(Outcome::done(json!({"read_only": self.on})).with(Effect::Flip(flip)).with(Effect::Event(event)))
    }
}
