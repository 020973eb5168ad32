//! A new database in the place of the current one: what restore, its undo and move do behind their fences.

use catalog::Generation;
use catalog::retained::RetainedRecord;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenant_engine::{Depth, ErrorKind, IdentityState};

use super::build::{self, Built};
use super::fence::{self, Current, Fence};
use super::{Effect, Fleet, Outcome, Step, thaw};
use crate::error::{Error, Result};

/// A new database, ready, and the fence around the current one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Swap {
    #[serde(flatten)]
    pub(super) built: Built,
    #[serde(flatten)]
    pub(super) fence: Fence,
    #[serde(default)]
    pub(super) why: Why,
}

/// What a swap is part of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    /// The new database was filled from a backup.
    #[default]
    Restore,
    /// It is one that was kept.
    Undo,
    /// It is a copy on another server.
    Move,
}

/// How a swap is told once it is done: the kind of the event, and what was done.
pub(super) type Told = fn(&Step, &Swap, Times) -> (&'static str, Value);

/// When, milliseconds since 1970, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) now: i64,
    /// How long writers were stopped, milliseconds; unknown when another process stopped them.
    pub(super) frozen_ms: Option<i64>,
    /// Until when the replaced database is kept.
    pub(super) keep_until: i64,
}

/// Which generation a replacement gets: one for the fence around the current database, one for the swap.
pub(super) fn after_swap(generation: Generation) -> Generation {
    generation.next().next()
}

/// The phase that swaps; when that cannot be, the current database serves again and the step fails.
pub(super) async fn exchange(fleet: &Fleet, step: &Step, told: Told) -> Result<Outcome> {
    let swap: Swap = step.facts()?;
    if swap.built.generation != step.tenant.generation.next() {
        let detail = format!("{} was changed during the {}", step.tenant.name, step.op.kind);
        return Err(Error::new(409, "conflict", detail));
    }
    match swap.stamp(fleet, step).await {
        Ok(()) => Ok(swap.done(fleet, step, told)),
        Err(error) => swap.give_up(fleet, step, error).await,
    }
}

impl Swap {
    /// The new one first: at no moment is there none that may come to serve.
    async fn stamp(&self, fleet: &Fleet, step: &Step) -> Result<()> {
        build::activate(fleet, step, &self.built, self.fence.at_rest()).await?;
        fence::retire(fleet, step, &self.fence).await?;
        fleet.point("swap: retired").await;
        Ok(())
    }

    fn done(&self, fleet: &Fleet, step: &Step, told: Told) -> Outcome {
        let now = fleet.catalog.now();
        let frozen_ms = fleet.pauses.end(step);
        let times = Times { now, frozen_ms, keep_until: now + fleet.config.undo_ms };
        let (event, facts) = told(step, self, times);
        let mut effects = self.effects(step, times);
        effects.push(Effect::Event(step.event(event, facts.clone())));
        Outcome { effects, ..Outcome::done(facts) }
    }

    /// The catalog names the new database, and keeps the replaced one.
    pub(super) fn effects(&self, step: &Step, times: Times) -> Vec<Effect> {
        let mut effects = vec![Effect::Flip(self.fence.lifted(self.built.flip(step)))];
        if self.why == Why::Undo {
            let server = self.built.server.unwrap_or(step.tenant.server_id);
            effects.push(Effect::Unretain { server, placement: self.built.placement.clone() });
        }
        effects.extend(self.retained(step, times).map(Effect::Retain));
        effects
    }

    /// The replaced database; only a sound one can come back by itself.
    fn retained(&self, step: &Step, Times { now, keep_until, .. }: Times) -> Option<RetainedRecord> {
        let reason = match (self.fence.current, self.why) {
            (Current::Missing, _) => return None,
            (Current::Damaged, _) => DAMAGED,
            (Current::Frozen, Why::Move) => "move",
            (Current::Frozen, Why::Restore | Why::Undo) => RETAINED,
        };
        Some(RetainedRecord {
            tenant_id: step.tenant.id,
            server_id: step.tenant.server_id,
            placement: step.tenant.placement.clone()?,
            // The fence stamped what the catalog has now.
            generation: step.tenant.generation,
            reason: reason.to_owned(),
            op_id: step.op.id,
            schema_version: step.tenant.schema_version,
            pin: step.tenant.pin,
            created_at: now,
            keep_until,
        })
    }

    /// A retired database comes back only if the new one never served: after the stamps the catalog may have been told,
    /// and set back to an earlier moment since. Otherwise the tenant stays fenced until the two agree.
    pub(super) async fn give_up(&self, fleet: &Fleet, step: &Step, error: Error) -> Result<Outcome> {
        if thaw::may_pass(step, &error) {
            return Err(error);
        }
        if self.is_retired(fleet, step).await? && self.found(fleet, step).await.ok() != Some(Found::Unserved) {
            return Err(error);
        }
        thaw::give_up(step, &self.fence, Some(self), error)
    }

    /// Whether the current database has been stamped out of service.
    pub(super) async fn is_retired(&self, fleet: &Fleet, step: &Step) -> Result<bool> {
        if self.fence.current != Current::Frozen {
            return Ok(false);
        }
        let (engine, at) = fleet.current(&step.tenant).await?;
        let found = engine.inspect(&at, None, Depth::Ledger).await?.identity;
        Ok(found.state == IdentityState::Moved)
    }

    /// What the new database has come to.
    pub(super) async fn found(&self, fleet: &Fleet, step: &Step) -> Result<Found> {
        let built = &self.built;
        let (engine, at) = fleet.at(built.server.unwrap_or(step.tenant.server_id), &built.placement).await?;
        let found = match engine.inspect(&at, None, Depth::Ledger).await {
            Ok(found) => found.identity,
            Err(error) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Corrupt) => {
                return Ok(Found::Other(error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let is_it = found.tenant == step.tenant.id && found.fleet == fleet.id() && found.generation == built.generation;
        Ok(match found.state {
            IdentityState::Building if is_it => Found::Unserved,
            IdentityState::Active | IdentityState::Frozen if is_it => Found::Activated,
            state => Found::Other(format!("it is at generation {} and {state}", found.generation)),
        })
    }

    /// Completes a swap whose stamps were made, in the name of another operation.
    pub(super) async fn complete(&self, fleet: &Fleet, step: &Step) -> Result<Outcome> {
        let built = &self.built;
        let (engine, at) = fleet.at(built.server.unwrap_or(step.tenant.server_id), &built.placement).await?;
        let serves = step.expected_at(fleet.id(), built.generation, &[self.fence.at_rest()]);
        build::probe(engine, &at, &serves).await?;
        Ok(self.done(fleet, step, |_, swap, _| {
            ("tenant.settled", json!({"settled": true, "completed": swap.why, "placement": swap.built.placement}))
        }))
    }
}

/// What has become of a new database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// It never left `building`.
    Unserved,
    /// It is as the swap stamped it, and may have served.
    Activated,
    /// It is not there, damaged, or what a later operation left.
    Other(String),
}

/// Why the catalog keeps a database that was not what it promised.
pub(super) const DAMAGED: &str = "damaged";

/// Why the catalog keeps a database that a restore replaced.
pub(super) const RETAINED: &str = "restore";
