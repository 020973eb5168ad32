//! What operations share that change what a tenant's requests meet: looking into a new database as a request would, the
//! fence around the current one, its next stamp, and bringing an older one forward.

use std::sync::Arc;

use catalog::retained::RetainedRecord;
use catalog::tenants::Flip;
use catalog::{BlockWrites, Generation, ReleaseId, TenantRecord, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{
    Access, After, Engine, ErrorKind, Expected, Identity, IdentityState, Limits, Placement, Statement,
};

use super::build::{self, Built};
use super::{Effect, Fleet, Outcome, Step, Verdict};
use crate::error::{Error, Result};
use crate::plan::retry::ATTEMPTS_MAX;

/// Opens a database with the verb, the expectation and the session that the router will use, and reads from it.
pub(super) async fn probe(engine: &Arc<dyn Engine>, at: &Placement, expected: &Expected) -> Result<()> {
    let pool = engine.connect(at, expected).await?;
    let statement = Statement { sql: "select 1".to_owned(), params: Vec::new() };
    let read = pool.session(Access::Read, Limits::default()).run(vec![statement], After::Commit).await;
    pool.close().await;
    read?;
    Ok(())
}

/// What the fence found of the current database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Current {
    /// Sound: it is kept, and can come back.
    Frozen,
    /// Not what the catalog promises: it is kept for a look, but cannot come back by itself.
    Damaged,
    /// There is no file.
    Missing,
}

/// The fence around the current database, as the phases behind it need to know it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Fence {
    pub(super) current: Current,
    /// Since when writes wait, milliseconds since 1970.
    pub(super) frozen_at: i64,
    /// What the fence stamped, and the catalog has while it stands. Beside a new database's own in the same facts.
    #[serde(rename = "fenced_generation")]
    pub(super) generation: Generation,
    /// Who blocked writes before: it is so again afterwards.
    #[serde(default)]
    block: Option<BlockWrites>,
    #[serde(default)]
    reason: Option<String>,
}

impl Fence {
    /// What the identity says of the database that serves behind the fence.
    pub(super) fn at_rest(&self) -> IdentityState {
        resting(self.block)
    }

    /// Why the tenant was blocked or suspended before.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The same flip, which also takes the fence away.
    pub(super) fn lifted(&self, flip: Flip) -> Flip {
        Flip { block_writes: Some(self.block), reason: Some(self.reason.clone()), ..flip }
    }
}

/// What the identity of a tenant's database says while no operation is at work on it.
pub(super) fn at_rest(tenant: &TenantRecord) -> IdentityState {
    resting(tenant.block_writes)
}

pub(super) fn resting(block: Option<BlockWrites>) -> IdentityState {
    match block {
        Some(BlockWrites::Operator) => IdentityState::Frozen,
        Some(BlockWrites::Operation) | None => IdentityState::Active,
    }
}

/// Stops every writer of the current database, which the catalog is about to put at the next generation; a database
/// that is damaged or gone needs no fence, and replacing it is the way out.
pub(super) async fn freeze(fleet: &Fleet, step: &Step) -> Result<Fence> {
    let frozen_at = fleet.catalog.now();
    let (block, reason) = before(fleet, step).await?;
    let current = stop_writers(fleet, step).await?;
    Ok(Fence { current, frozen_at, generation: step.tenant.generation.next(), block, reason })
}

/// Who blocked the tenant's writes, and why, without what an operation that is no more did: that it noted itself.
pub(super) async fn before(fleet: &Fleet, step: &Step) -> Result<(Option<BlockWrites>, Option<String>)> {
    let tenant = &step.tenant;
    if tenant.block_writes != Some(BlockWrites::Operation) {
        return Ok((tenant.block_writes, tenant.state_reason.clone()));
    }
    let left = catalog::steps::last_facts(&mut fleet.catalog.read().await?, tenant.id, step.op.id).await?;
    let fences = left.iter().filter_map(|facts| serde_json::from_str::<Fence>(facts).ok());
    let fence = fences.into_iter().find(|fence| fence.generation == tenant.generation);
    Ok(fence.map_or((None, None), |fence| (fence.block, fence.reason)))
}

/// Whether this step's fence still stands: between two attempts somebody may have lifted it, and writes went on.
pub(super) fn stands(step: &Step, fence: &Fence) -> bool {
    step.tenant.generation == fence.generation && step.tenant.block_writes == Some(BlockWrites::Operation)
}

async fn stop_writers(fleet: &Fleet, step: &Step) -> Result<Current> {
    if step.tenant.placement.is_none() {
        return Ok(Current::Missing);
    }
    let (engine, at) = fleet.current(&step.tenant).await?;
    // Frozen already: an operator did it, or an earlier operation gave up after its fence.
    let as_promised = step.expected(fleet.id(), &[IdentityState::Active, IdentityState::Frozen]);
    let identity = step.identity(fleet.id(), step.tenant.generation.next(), IdentityState::Frozen);
    let mut frozen = engine.freeze(&at, &as_promised, &identity).await;
    if frozen.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced) && is_ours(fleet, step).await? {
        // Sound, but a step ahead: an operation stamped it, died before the catalog heard of it, and was cancelled. It
        // holds everything that was ever written, so it is kept like any other.
        frozen = engine.freeze(&at, &a_step_ahead(fleet, step), &identity).await;
        if frozen.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced) {
            // Or it was about to be replaced, and was not.
            let retired = step.expected(fleet.id(), &[IdentityState::Moved]);
            frozen = engine.freeze(&at, &retired, &identity).await;
        }
    }
    match frozen {
        Ok(()) => Ok(Current::Frozen),
        Err(error) => match error.kind() {
            ErrorKind::Missing => Ok(Current::Missing),
            ErrorKind::Corrupt | ErrorKind::WrongTenant | ErrorKind::Fenced => Ok(Current::Damaged),
            _ => Err(error.into()),
        },
    }
}

/// The same for operations that need what is in the database: without it there is nothing to do.
pub(super) async fn freeze_sound(fleet: &Fleet, step: &Step) -> Result<Fence> {
    let fence = freeze(fleet, step).await?;
    let name = &step.tenant.name;
    let (code, what) = match fence.current {
        Current::Frozen => return Ok(fence),
        Current::Damaged => ("database_corrupt", "is damaged, or not the one that the catalog promises"),
        Current::Missing => ("database_missing", "is not there"),
    };
    Err(Error::new(409, code, format!("the database of {name} {what}"))
        .try_next(format!("fleetctl restore run {name} --to latest")))
}

/// The fenced database is about to be replaced: whoever has not heard of it must not even read it any more.
pub(super) async fn retire(fleet: &Fleet, step: &Step, fence: &Fence) -> Result<()> {
    if fence.current != Current::Frozen {
        return Ok(());
    }
    let (engine, at) = fleet.current(&step.tenant).await?;
    let expected = step.expected(fleet.id(), &[IdentityState::Frozen, IdentityState::Moved]);
    let identity = step.identity(fleet.id(), step.tenant.generation, IdentityState::Moved);
    Ok(engine.stamp(&at, &expected, &identity).await?)
}

/// Stamps the current database for the generation that the catalog is about to have: whoever only knows the present one
/// does not serve it any more.
pub(super) async fn restamp(fleet: &Fleet, step: &Step, from: &[IdentityState], to: IdentityState) -> Result<()> {
    let (engine, at) = fleet.current(&step.tenant).await?;
    let identity = step.identity(fleet.id(), step.tenant.generation.next(), to);
    match stamp(engine, &at, &step.expected(fleet.id(), from), &identity).await {
        // Stamped by an operation that died before the catalog heard of it: nobody has been served by it since.
        Err(error) if error.code == "fenced" && is_ours(fleet, step).await? => {
            stamp(engine, &at, &a_step_ahead(fleet, step), &identity).await
        }
        stamped => stamped,
    }
}

/// Stamps, with the fence against writers where the state wants it.
pub(super) async fn stamp(
    engine: &Arc<dyn Engine>,
    at: &Placement,
    expected: &Expected,
    identity: &Identity,
) -> Result<()> {
    match identity.state {
        IdentityState::Frozen => Ok(engine.freeze(at, expected, identity).await?),
        _ => Ok(engine.stamp(at, expected, identity).await?),
    }
}

/// True while the tenant is this operation's and as it was claimed: what a late worker takes for a step ahead may be the
/// present.
pub(super) async fn is_ours(fleet: &Fleet, step: &Step) -> Result<bool> {
    let now = catalog::tenants::get(&mut fleet.catalog.read().await?, step.tenant.id).await?;
    Ok(now.is_some_and(|now| now.op_id == Some(step.op.id) && now.generation == step.tenant.generation))
}

/// The current database as an operation leaves it that stamped it and never told the catalog.
pub(super) fn a_step_ahead(fleet: &Fleet, step: &Step) -> Expected {
    use IdentityState::{Active, Frozen, Moved, Tombstone};
    let states = [Active, Frozen, Moved, Tombstone];
    step.expected_at(fleet.id(), step.tenant.generation.next(), &states)
}

/// The flip that goes with [`freeze`]: writes wait or are refused until the next flip.
pub(super) fn block(step: &Step) -> Flip {
    Flip {
        block_writes: Some(Some(BlockWrites::Operation)),
        reason: Some(Some(format!("{} {} is replacing the database", step.op.kind, step.op.id))),
        ..Flip::of(step.tenant.id, step.tenant.generation)
    }
}

/// The phase in which the fenced database comes back. That it does is decided in the catalog before the database is told,
/// and no way leads from here back to the swap: a worker that slept past its lease finds its stamp made or refused,
/// whatever the one after it did.
pub(super) const THAW: &str = "thaw";

/// What is to come back, and why.
#[derive(Debug, Serialize, Deserialize)]
struct GivenUp {
    #[serde(flatten)]
    fence: Fence,
    /// Was made in its place, and goes.
    built: Option<Built>,
    code: String,
    message: String,
}

/// The end of a swap that cannot be: the current database is to serve again, unless another attempt may do better.
pub(super) fn give_up(step: &Step, fence: &Fence, built: Option<&Built>, error: Error) -> Result<Outcome> {
    let may_pass = error.transient && step.attempt < ATTEMPTS_MAX;
    if may_pass || fence.current != Current::Frozen {
        return Err(error);
    }
    tracing::warn!(tenant = %step.tenant.id, op = %step.op.id, code = %error.code, %error, "given up: thawing");
    let (code, message) = (error.code.to_string(), error.detail);
    Ok(Outcome::next(THAW, json!(GivenUp { fence: fence.clone(), built: built.cloned(), code, message })))
}

/// The phase [`THAW`]: the fenced database serves again, what was made in its place goes, and the step has failed.
pub(super) async fn thaw(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    let GivenUp { fence, built, code, message } = step.facts()?;
    let error = Error::new(500, code, message);
    if !stands(step, &fence) {
        // Somebody lifted the fence between two attempts.
        return Err(error);
    }
    fleet.point("thaw: claimed").await;
    let left = match &built {
        Some(built) => discard(fleet, step, built).await,
        None => None,
    };
    restamp(fleet, step, &[IdentityState::Frozen, IdentityState::Moved], fence.at_rest()).await?;
    fleet.point("thaw: stamped").await;
    let flip = fence.lifted(Flip::of(step.tenant.id, step.tenant.generation));
    let event = step.event(&format!("tenant.{}_given_up", step.op.kind), json!({"code": error.code}));
    let mut effects = vec![Effect::Flip(flip), Effect::Event(event)];
    effects.extend(left.map(Effect::Retain));
    Ok(Outcome { verdict: Verdict::Failed(error), effects })
}

/// Drops what is not needed after all, if it never left `building`. One that was activated, or that cannot be reached, is
/// kept for as long as what a restore replaces: a catalog that was set back to an earlier moment may not know that it
/// has served.
async fn discard(fleet: &Fleet, step: &Step, built: &Built) -> Option<RetainedRecord> {
    let error = build::discard(fleet, step, built).await.err()?;
    tracing::warn!(tenant = %step.tenant.id, code = %error.code, %error, "a database that is not needed stays for now");
    if let Err(error) = put_aside(fleet, step, built).await
        && !error.transient
    {
        // At another generation, or somebody else's: it is not this step's to keep or to drop.
        tracing::warn!(tenant = %step.tenant.id, code = %error.code, %error, "and it is not what this step made");
        return None;
    }
    let now = fleet.catalog.now();
    Some(RetainedRecord {
        tenant_id: step.tenant.id,
        server_id: built.server.unwrap_or(step.tenant.server_id),
        placement: built.placement.clone(),
        generation: built.generation,
        reason: "given_up".to_owned(),
        op_id: step.op.id,
        schema_version: built.schema_version,
        created_at: now,
        keep_until: now + fleet.config.undo_ms,
    })
}

/// Nobody is served by it from here on.
async fn put_aside(fleet: &Fleet, step: &Step, built: &Built) -> Result<()> {
    let (engine, at) = fleet.at(built.server.unwrap_or(step.tenant.server_id), &built.placement).await?;
    let states = [IdentityState::Active, IdentityState::Frozen, IdentityState::Moved];
    let expected = step.expected_at(fleet.id(), built.generation, &states);
    Ok(engine.stamp(&at, &expected, &step.identity(fleet.id(), built.generation, IdentityState::Moved)).await?)
}

/// Migrates a database that is not served yet to where its tenant is. One that is newer than the release, as after a
/// rollback of the application, stays as it is. Returns its version, and the release when it is at its head.
pub(super) async fn forward(
    fleet: &Fleet,
    engine: &Arc<dyn Engine>,
    at: &Placement,
    expected: &Expected,
    release: Option<ReleaseId>,
    found: Option<i64>,
) -> Result<(Option<i64>, Option<ReleaseId>)> {
    let Some(id) = release else { return Ok((found, None)) };
    let sets = fleet.release(id).await?;
    match engine.migrate(at, expected, sets.of(at.engine())?, None).await {
        Ok(migrated) => Ok((migrated.to_version, Some(id))),
        Err(error) if error.kind() == ErrorKind::MigrationAhead => Ok((found, None)),
        Err(error) => Err(error.into()),
    }
}

/// Which generation a replacement gets: one for the fence around the current database, one for the swap.
pub(super) fn after_swap(generation: Generation) -> Generation {
    generation.next().next()
}

/// Refuses to begin on a tenant that another operation has fenced and will come back to.
pub(super) fn require_unblocked(step: &Step) -> Result<()> {
    if step.tenant.block_writes != Some(BlockWrites::Operation) {
        return Ok(());
    }
    let detail = format!("another operation is replacing the database of {}", step.tenant.name);
    Err(Error::new(409, "operation_in_progress", detail)
        .try_next(format!("fleetctl tenant settle {}      # if that operation has ended", step.tenant.name))
        .transient())
}

/// The same for operations that replace the database: they are a way out for a tenant that a dead operation fenced.
pub(super) async fn require_unawaited(fleet: &Fleet, step: &Step) -> Result<()> {
    if step.tenant.block_writes != Some(BlockWrites::Operation) {
        return Ok(());
    }
    match catalog::steps::in_the_middle(&mut fleet.catalog.read().await?, step.tenant.id, step.op.id).await? {
        true => require_unblocked(step),
        false => Ok(()),
    }
}

/// Refuses to begin on a tenant that is in another state than when the operation was submitted.
pub(super) fn require_state(step: &Step, states: &[TenantState]) -> Result<()> {
    if states.contains(&step.tenant.state) {
        return Ok(());
    }
    let state = serde_json::to_value(step.tenant.state).unwrap_or_default();
    let detail = format!("{} is {} now", step.tenant.name, state.as_str().unwrap_or("changed"));
    Err(Error::new(409, "conflict", detail).try_next(format!("fleetctl tenant get {}", step.tenant.name)))
}
