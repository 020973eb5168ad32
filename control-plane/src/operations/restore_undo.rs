//! restore undo: the one allowed return to an old placement, the database that the last restore replaced.
//!
//! *prepare* looks into the kept database and takes it out of its fence, still not to be served; *freeze* stops writers
//! of the current one; *swap* stamps and flips. The database that was current is kept in its place, so that an undo can
//! be undone.

use async_trait::async_trait;
use catalog::retained::RetainedRecord;
use catalog::tenants::Flip;
use catalog::{Generation, ReleaseId, TenantState, WriteTx};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{Depth, IdentityState};

use super::restore::{RETAINED, retained};
use super::swap::{self, Current};
use super::{Effect, Fleet, Operation, Outcome, Plan, Seen, Step, Targets};
use crate::error::{Error, Result};

/// Nothing to say: the selection names exactly one tenant.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {}

const FREEZE: &str = "freeze";
const SWAP: &str = "swap";

/// The kept database, ready to come back.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ready {
    placement: String,
    /// Stamped into it now.
    generation: Generation,
    schema_version: Option<i64>,
    release: Option<ReleaseId>,
}

/// The same, and what became of the current one.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Frozen {
    #[serde(flatten)]
    ready: Ready,
    current: Current,
    frozen_at: i64,
}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "restore_undo"
    }

    fn targets(&self) -> Targets {
        Targets::One(&[TenantState::Active])
    }

    async fn look(&mut self, tx: &mut WriteTx, seen: &mut Seen) -> Result<()> {
        if let Some(tenant) = seen.tenants.first() {
            seen.retained.extend(catalog::retained::newest(tx, tenant.id, RETAINED).await?);
        }
        Ok(())
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let tenant = seen.tenants.first().ok_or_else(|| Error::internal("an undo is about one tenant"))?;
        let kept = seen.retained.first().ok_or_else(|| nothing(&tenant.name))?;
        let until = jiff::Timestamp::from_millisecond(kept.created_at).map(|at| at.to_string()).unwrap_or_default();
        let mut plan = Plan::default();
        plan.step(tenant.id, &tenant.name, || format!("returns to the database that was replaced at {until}"));
        plan.notes.push("the database that is current now is kept in its place".to_owned());
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        match step.phase.as_str() {
            "" => prepare(fleet, step).await,
            FREEZE => freeze(fleet, step).await,
            SWAP => swap_or_thaw(fleet, step).await,
            _ => Err(step.unknown_phase()),
        }
        .into()
    }
}

async fn prepare(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    let kept = catalog::retained::newest(&mut fleet.catalog.read().await?, step.tenant.id, RETAINED).await?;
    let kept = kept.ok_or_else(|| nothing(&step.tenant.name))?;
    let (engine, at) = fleet.at(kept.server_id, &kept.placement).await?;
    fleet.point("undo: claimed").await;
    let generation = swap::after_swap(step.tenant.generation);
    let building = step.expected_at(fleet.id(), generation, &[IdentityState::Building]);
    if engine.inspect(&at, Some(&building), Depth::Ledger).await.is_err() {
        take_out(fleet, step, &kept, generation).await?;
    }
    fleet.point("undo: building").await;
    let release = step.tenant.release_id;
    let found = kept.schema_version;
    let (schema_version, release) = swap::forward(fleet, engine, &at, &building, release, found).await?;
    fleet.point("undo: migrated").await;
    Ok(Outcome::next(FREEZE, json!(Ready { placement: kept.placement, generation, schema_version, release })))
}

/// Makes sure that the kept database is sound and stamps it `building`. Whatever state an earlier attempt left it in,
/// it is this tenant's and nobody serves it.
async fn take_out(fleet: &Fleet, step: &Step, kept: &RetainedRecord, generation: Generation) -> Result<()> {
    let (engine, at) = fleet.at(kept.server_id, &kept.placement).await?;
    let found = engine.inspect(&at, None, Depth::Full).await?;
    if let Some(problem) = found.problems.first() {
        return Err(Error::new(409, "database_corrupt", format!("the kept database is damaged: {problem}"))
            .try_next(format!("fleetctl restore run {} --to latest", step.tenant.name)));
    }
    if step.tenant.placement.as_deref() == Some(kept.placement.as_str()) {
        return Err(Error::internal("the kept database is the current one"));
    }
    // Active: an undo stamped it, died before the catalog heard of it, and was cancelled.
    let states = [IdentityState::Frozen, IdentityState::Building, IdentityState::Active];
    let expected = step.expected_at(fleet.id(), found.identity.generation, &states);
    engine.stamp(&at, &expected, &step.identity(fleet.id(), generation, IdentityState::Building)).await?;
    Ok(())
}

async fn freeze(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    let ready: Ready = step.facts()?;
    if ready.generation != swap::after_swap(step.tenant.generation) {
        return Ok(Outcome::next("", json!({})));
    }
    fleet.point("undo: freezes").await;
    let current = swap::freeze(fleet, step).await?;
    fleet.point("undo: frozen").await;
    let facts = json!(Frozen { ready, current, frozen_at: fleet.catalog.now() });
    Ok(Outcome::next(SWAP, facts).with(Effect::Flip(swap::block(step))))
}

/// Swaps; when that cannot be, the current database serves again and the step fails.
async fn swap_or_thaw(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    let frozen: Frozen = step.facts()?;
    if frozen.ready.generation != step.tenant.generation.next() {
        return Err(Error::new(409, "conflict", format!("{} was changed during the undo", step.tenant.name)));
    }
    match activate(fleet, step, &frozen.ready).await {
        Ok(()) => Ok(swapped(fleet, step, frozen)),
        Err(error) => swap::give_up(fleet, step, frozen.current, error).await,
    }
}

/// Stamps the kept database with the generation that the catalog will have, and opens it as a request would.
async fn activate(fleet: &Fleet, step: &Step, ready: &Ready) -> Result<()> {
    let (engine, at) = fleet.at(step.tenant.server_id, &ready.placement).await?;
    fleet.point("undo: swaps").await;
    let building = step.expected_at(fleet.id(), ready.generation, &[IdentityState::Building]);
    engine.stamp(&at, &building, &step.identity(fleet.id(), ready.generation, IdentityState::Active)).await?;
    fleet.point("undo: stamped").await;
    swap::probe(engine, &at, &step.expected_at(fleet.id(), ready.generation, &[IdentityState::Active])).await
}

fn swapped(fleet: &Fleet, step: &Step, frozen: Frozen) -> Outcome {
    let Frozen { ready, current, frozen_at } = frozen;
    let now = fleet.catalog.now();
    let flip = Flip {
        block_writes: Some(None),
        reason: Some(None),
        placement: Some(Some(ready.placement.clone())),
        schema_version: Some(ready.schema_version),
        release_id: Some(ready.release),
        ..Flip::of(step.tenant.id, step.tenant.generation)
    };
    let facts = json!({"schema_version": ready.schema_version, "frozen_ms": now - frozen_at});
    let outcome = Outcome::done(facts.clone())
        .with(Effect::Flip(flip))
        .with(Effect::Unretain { server: step.tenant.server_id, placement: ready.placement })
        .with(Effect::Event(step.event("tenant.restore_undone", facts)));
    match retained(step, current, now, now + fleet.config.undo_ms) {
        Some(record) => outcome.with(Effect::Retain(record)),
        None => outcome,
    }
}

fn nothing(name: &str) -> Error {
    Error::new(404, "nothing_to_undo", format!("no database that a restore replaced is kept for {name}"))
        .try_next(format!("fleetctl backup list {name}"))
}
