//! unarchive: the database of an archived tenant from its last backup, brought to the release of the day.

use async_trait::async_trait;
use catalog::TenantState;
use catalog::tenants::Flip;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::IdentityState;

use super::{Effect, Fleet, Operation, Outcome, Placements, Plan, Seen, Step, Targets, build, restore, swap};
use crate::error::Result;

/// Nothing to say: the selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "unarchive"
    }

    fn targets(&self) -> Targets {
        Targets::Selected(&[TenantState::Archived])
    }

    fn placements(&self) -> Placements {
        Placements::Fresh
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let mut plan = Plan { release: seen.current_release, ..Plan::default() };
        for tenant in &seen.tenants {
            plan.step(tenant.id, &tenant.name, || "gets its database back from its last backup".to_owned());
        }
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        unarchive(fleet, step).await.into()
    }
}

async fn unarchive(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    swap::require_state(step, &[TenantState::Archived])?;
    // An archived tenant is never backed up, so the newest one is the one it was archived with.
    let newest = catalog::backups::newest(&mut fleet.catalog.read().await?, step.tenant.id, None).await?;
    let newest = newest.ok_or_else(|| restore::not_found(&step.tenant.name))?;
    let source = build::Source { backup: newest.id, tenant: step.tenant.id };
    let release = step.op.release_id.or(step.tenant.release_id);
    let built = build::from_backup(fleet, step, source, step.tenant.generation.next(), release).await?;
    build::activate(fleet, step, &built, IdentityState::Active).await?;
    let suspended = step.tenant.state_reason.is_some();
    let state = if suspended { TenantState::Suspended } else { TenantState::Active };
    let flip = Flip { state: Some(state), ..built.flip(step) };
    let facts = json!({"backup": newest.id, "state": state, "schema_version": built.schema_version});
    let event = step.event("tenant.unarchived", facts.clone());
    Ok(Outcome::done(facts).with(Effect::Flip(flip)).with(Effect::Event(event)))
}
