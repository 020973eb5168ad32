//! settle: catalog and database of a tenant agree again, and it serves.
//!
//! An operation that failed or was given up between its stamp and what the catalog was told of it leaves a database that
//! no router serves, or a block that nobody lifts. The database that the catalog names is stamped for a next generation,
//! and the catalog follows; unless it was retired already: then the one that was to replace it may have served, by a
//! catalog that was set back since, and the swap is completed instead. Where nothing is wrong, nothing is done.
//!
//! A catalog that was set back further knows too little for that: then an operator lets it look for the database of the
//! tenant that served last (`newest.rs`).

use async_trait::async_trait;
use catalog::tenants::Flip;
use catalog::{BlockWrites, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{Depth, Identity, IdentityState};

use super::pin::Before;
use super::swap::{Found, Swap};
use super::{Effect, Fleet, Operation, Outcome, Plan, Seen, Step, Targets, fence, newest, put_back, stamp, thaw};
use crate::error::{Error, Result};

/// What to do where it cannot be known which of two databases was the last to serve.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {
    /// Serve the one that the catalog names, even if it was retired.
    #[serde(default)]
    pub back: bool,
    /// Serve the one that served last by what all of the tenant's databases say, wherever it is.
    #[serde(default)]
    pub newest: bool,
}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "settle"
    }

    fn targets(&self) -> Targets {
        Targets::Selected(self.states())
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        if self.back && self.newest {
            return Err(Error::new(422, "invalid", "back and newest are two ways to choose a database: say one"));
        }
        let mut plan = Plan::default();
        for tenant in &seen.tenants {
            plan.step(tenant.id, &tenant.name, || "serves again, if an operation left it fenced".to_owned());
        }
        if self.newest {
            let note = "what else the catalog does not know of (a suspension, a deletion, a block of writes, a name) is not found again";
            plan.notes.push(note.to_owned());
        }
        if self.back {
            plan.notes.push("what was written to a database that replaced a retired one is not in it".to_owned());
        }
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        self.settle(fleet, step).await.into()
    }
}

impl Params {
    /// An archived or deleted tenant has none that serves by the catalog's word, and may have one by its own.
    fn states(&self) -> &'static [TenantState] {
        match self.newest {
            true => &[TenantState::Active, TenantState::Suspended, TenantState::Archived, TenantState::Deleted],
            false => &[TenantState::Active, TenantState::Suspended],
        }
    }

    async fn settle(&self, fleet: &Fleet, step: &Step) -> Result<Outcome> {
        step.require_state(self.states())?;
        if catalog::steps::in_the_middle(&mut fleet.catalog.read().await?, step.tenant.id, step.op.id).await? {
            if self.newest {
                return Err(fence::busy(step).transient());
            }
            return Ok(Outcome::done(json!({"settled": false, "why": "another operation will go on with it"})));
        }
        fleet.point("settle: claimed").await;
        if self.newest {
            return newest(fleet, step).await;
        }
        let (engine, at) = fleet.current(&step.tenant).await?;
        let found = engine.inspect(&at, None, Depth::Ledger).await?.identity;
        let held = step.tenant.block_writes == Some(BlockWrites::Operation);
        let (block, _) = fence::before(fleet, step).await?;
        let rests = if held { fence::resting(block) } else { fence::at_rest(&step.tenant) };
        if !held && found.generation == step.tenant.generation && found.state == rests {
            return kept_only(fleet, step).await;
        }
        let left = if held { left(fleet, step).await? } else { Left::Nothing };
        match &left {
            Left::Swap(swap) if found.state == IdentityState::Moved && !self.back => {
                onward(fleet, step, swap, &found).await
            }
            _ => self.back(fleet, step, &left, &found).await,
        }
    }

    /// The database that the catalog names serves again.
    async fn back(&self, fleet: &Fleet, step: &Step, left: &Left, found: &Identity) -> Result<Outcome> {
        self.may_serve(fleet, step, left, found)?;
        back(fleet, step, left, found).await
    }

    /// Only what the catalog names, or what was stamped in its name and not told.
    fn may_serve(&self, fleet: &Fleet, step: &Step, left: &Left, found: &Identity) -> Result<()> {
        let ours = found.tenant == step.tenant.id && found.fleet == fleet.id();
        let now = step.tenant.generation;
        let near = found.generation == now || found.generation == now.next();
        let unserved = match found.state {
            IdentityState::Building => false,
            IdentityState::Moved => self.back || matches!(left, Left::GivenUp(Some(_))),
            _ => true,
        };
        match ours && near && unserved {
            true => Ok(()),
            false => Err(unexpected(step, found, "that is not what an operation leaves")),
        }
    }
}

/// The tenant serves; an undo that came to nothing may have left a kept database taken out.
async fn kept_only(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    match put_back::kept(fleet, step).await? {
        0 => Ok(Outcome::done(json!({"settled": false}))),
        kept => {
            let facts = json!({"settled": true, "kept": kept});
            Ok(Outcome::done(facts.clone()).with(Effect::Event(step.event("tenant.settled", facts))))
        }
    }
}

/// The database that served last serves on, and the catalog learns of it.
async fn newest(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    let newest = match newest::find(fleet, step).await? {
        Some(newest) => newest,
        None if newest::is_buried(&step.tenant) => return Ok(Outcome::done(json!({"settled": false}))),
        None => return Err(newest::nothing(step)),
    };
    let comes_back = newest::is_buried(&step.tenant);
    let found = &newest.found.identity;
    let held = step.tenant.block_writes == Some(BlockWrites::Operation);
    let (block, reason) = fence::before(fleet, step).await?;
    let is_known = step.tenant.placement.as_deref() == Some(newest.placement.as_str())
        && step.tenant.server_id == newest.server
        && step.tenant.generation == found.generation;
    if is_known && !held && found.state == fence::resting(block) {
        return Ok(Outcome::done(json!({"settled": false})));
    }
    // After the look: what a worker finds that slept meanwhile may be what another one has made of it.
    if !stamp::is_ours(fleet, step).await? {
        let detail = format!("{} was changed meanwhile", step.tenant.name);
        return Err(Error::new(409, "conflict", detail).try_next(format!("fleetctl tenant get {}", step.tenant.name)));
    }
    let (engine, at) = fleet.at(newest.server, &newest.placement).await?;
    let next = found.generation.next();
    let expected = step.expected_at(fleet.id(), found.generation, &[found.state]);
    stamp::stamp(engine, &at, &expected, &step.identity(fleet.id(), next, fence::resting(block))).await?;
    fleet.point("settle: newest stamped").await;
    let flip = Flip {
        to: Some(next),
        state: comes_back.then(|| fence::awake(&step.tenant)),
        purge_after: comes_back.then_some(None),
        server_id: Some(newest.server),
        placement: Some(Some(newest.placement.clone())),
        schema_version: Some(newest.found.schema_version()),
        pin: Some(Before::known(&step.tenant).pin(newest.found.schema_version(), step)),
        size_bytes: i64::try_from(newest.found.size_bytes).ok(),
        block_writes: held.then_some(block),
        reason: held.then_some(reason),
        ..Flip::of(step.tenant.id, step.tenant.generation)
    };
    let was = json!({"generation": found.generation, "state": found.state});
    let facts = json!({"settled": true, "was": was, "server": newest.server, "placement": newest.placement});
    let event = step.event("tenant.settled", facts.clone());
    // By an older catalog's word it may be one that is kept until some day.
    let unkept = Effect::Unretain { server: newest.server, placement: newest.placement };
    Ok(Outcome::done(facts).with(Effect::Flip(flip)).with(unkept).with(Effect::Event(event)))
}

/// What the operation that fenced the tenant noted last.
enum Left {
    /// It was about to put another database in its place.
    Swap(Box<Swap>),
    /// It had decided that the fenced database comes back, and what was made in its place goes.
    GivenUp(Option<Box<Swap>>),
    Nothing,
}

async fn left(fleet: &Fleet, step: &Step) -> Result<Left> {
    let mut tx = fleet.catalog.read().await?;
    for facts in catalog::steps::last_facts(&mut tx, step.tenant.id, step.op.id).await? {
        match serde_json::from_str::<Swap>(&facts) {
            Ok(swap) if swap.fence.generation == step.tenant.generation => return Ok(Left::Swap(Box::new(swap))),
            _ => {
                if let Some(swap) = thaw::decided(&facts, step.tenant.generation) {
                    return Ok(Left::GivenUp(swap.map(Box::new)));
                }
            }
        }
    }
    Ok(Left::Nothing)
}

/// The retired database was replaced, by all that can be known.
async fn onward(fleet: &Fleet, step: &Step, swap: &Swap, found: &Identity) -> Result<Outcome> {
    let ours = found.tenant == step.tenant.id && found.fleet == fleet.id();
    if !ours || found.generation != step.tenant.generation {
        return Err(unexpected(step, found, "that is not what an operation leaves"));
    }
    match swap.found(fleet, step).await? {
        Found::Activated => swap.complete(fleet, step).await,
        Found::Unserved => back(fleet, step, &Left::Swap(Box::new(swap.clone())), found).await,
        Found::Other(what) => {
            let detail = format!("it was retired, and of the one that was to replace it: {what}");
            Err(unexpected(step, found, &detail))
        }
    }
}

async fn back(fleet: &Fleet, step: &Step, left: &Left, found: &Identity) -> Result<Outcome> {
    let held = step.tenant.block_writes == Some(BlockWrites::Operation);
    let (block, reason) = fence::before(fleet, step).await?;
    let (engine, at) = fleet.current(&step.tenant).await?;
    let rests = if held { fence::resting(block) } else { fence::at_rest(&step.tenant) };
    let kept = match left {
        Left::Swap(swap) | Left::GivenUp(Some(swap)) => thaw::discard(fleet, step, swap).await,
        Left::GivenUp(None) | Left::Nothing => None,
    };
    put_back::kept(fleet, step).await?;
    let expected = step.expected_at(fleet.id(), found.generation, &[found.state]);
    let identity = step.identity(fleet.id(), step.tenant.generation.next(), rests);
    stamp::stamp(engine, &at, &expected, &identity).await?;
    fleet.point("settle: stamped").await;
    let flip = Flip {
        block_writes: held.then_some(block),
        reason: held.then_some(reason),
        ..Flip::of(step.tenant.id, step.tenant.generation)
    };
    let facts = json!({"settled": true, "was": {"generation": found.generation, "state": found.state}});
    let event = step.event("tenant.settled", facts.clone());
    let mut outcome = Outcome::done(facts).with(Effect::Flip(flip)).with(Effect::Event(event));
    outcome.effects.extend(kept.map(Effect::Retain));
    Ok(outcome)
}

fn unexpected(step: &Step, found: &Identity, what: &str) -> Error {
    let (name, now) = (&step.tenant.name, step.tenant.generation);
    let detail = format!(
        "the database of {name} is at generation {} and {}, the catalog at {now}: {what}",
        found.generation, found.state
    );
    let near = found.generation == now || found.generation == now.next();
    let next = match found.state {
        IdentityState::Moved if near => {
            format!("fleetctl tenant settle {name} --back      # if nothing was written since")
        }
        _ => format!("fleetctl tenant settle {name} --newest      # after the catalog was set back"),
    };
    Error::new(409, "fenced", detail).try_next(next)
}
