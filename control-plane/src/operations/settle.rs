//! settle: catalog and database of a tenant agree again, and it serves.
//!
//! An operation that failed or was given up between its stamp and what the catalog was told of it leaves a database that
//! no router serves, or a block that nobody lifts. The database that the catalog names holds everything that was ever
//! acknowledged, so it is stamped for a next generation, and the catalog follows. Where nothing is wrong, nothing is done.

use async_trait::async_trait;
use catalog::tenants::Flip;
use catalog::{BlockWrites, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{Depth, Identity, IdentityState};

use super::{Effect, Fleet, Operation, Outcome, Plan, Seen, Step, Targets, swap};
use crate::error::{Error, Result};

/// Nothing to say: the selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "settle"
    }

    fn targets(&self) -> Targets {
        Targets::Selected(&[TenantState::Active, TenantState::Suspended])
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let mut plan = Plan::default();
        for tenant in &seen.tenants {
            plan.step(tenant.id, &tenant.name, || "serves again, if an operation left it fenced".to_owned());
        }
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        settle(fleet, step).await.into()
    }
}

async fn settle(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    swap::require_state(step, &[TenantState::Active, TenantState::Suspended])?;
    if catalog::steps::awaited(&mut fleet.catalog.read().await?, step.tenant.id, step.op.id).await? {
        return Ok(Outcome::done(json!({"settled": false, "why": "another operation will go on with it"})));
    }
    fleet.point("settle: claimed").await;
    let (engine, at) = fleet.current(&step.tenant).await?;
    let found = engine.inspect(&at, None, Depth::Ledger).await?.identity;
    let held = step.tenant.block_writes == Some(BlockWrites::Operation);
    let state = swap::at_rest(&step.tenant);
    if !held && found.generation == step.tenant.generation && found.state == state {
        return Ok(Outcome::done(json!({"settled": false})));
    }
    may_serve(fleet, step, &found)?;
    let expected = step.expected_at(fleet.id(), found.generation, &[found.state]);
    let identity = step.identity(fleet.id(), step.tenant.generation.next(), state);
    swap::stamp(engine, &at, &expected, &identity).await?;
    fleet.point("settle: stamped").await;
    let flip = Flip {
        block_writes: held.then_some(None),
        reason: held.then_some(None),
        ..Flip::of(step.tenant.id, step.tenant.generation)
    };
    let facts = json!({"settled": true, "was": {"generation": found.generation, "state": found.state}});
    let event = step.event("tenant.settled", facts.clone());
    Ok(Outcome::done(facts).with(Effect::Flip(flip)).with(Effect::Event(event)))
}

/// Only what the catalog names, or what was stamped in its name and not told.
fn may_serve(fleet: &Fleet, step: &Step, found: &Identity) -> Result<()> {
    let ours = found.tenant == step.tenant.id && found.fleet == fleet.id();
    let now = step.tenant.generation;
    let near = found.generation == now || found.generation == now.next();
    if ours && near && found.state != IdentityState::Building {
        return Ok(());
    }
    let detail = format!(
        "the database of {} is at generation {} and {}, the catalog at {now}: that is not what an operation leaves",
        step.tenant.name, found.generation, found.state
    );
    Err(Error::new(409, "fenced", detail).try_next(format!("fleetctl restore run {} --to latest", step.tenant.name)))
}
