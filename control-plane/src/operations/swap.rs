//! What create, restore, undo and delete share: looking into a new database as a request would, the fence around the
//! current one, and bringing an older one forward.

use std::sync::Arc;

use catalog::tenants::Flip;
use catalog::{BlockWrites, Generation, ReleaseId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{Access, After, Engine, ErrorKind, Expected, IdentityState, Limits, Placement, Statement};

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

/// Stops every writer of the current database, which the catalog is about to put at the next generation; a database
/// that is damaged or gone needs no fence, and replacing it is the way out.
pub(super) async fn freeze(fleet: &Fleet, step: &Step) -> Result<Current> {
    if step.tenant.placement.is_none() {
        return Ok(Current::Missing);
    }
    let (engine, at) = fleet.current(&step.tenant).await?;
    // Frozen already: an earlier restore gave up after its fence.
    let as_promised = step.expected(fleet.id(), &[IdentityState::Active, IdentityState::Frozen]);
    let identity = step.identity(fleet.id(), step.tenant.generation.next(), IdentityState::Frozen);
    let mut frozen = engine.freeze(&at, &as_promised, &identity).await;
    if frozen.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced) && is_ours(fleet, step).await? {
        // Sound, but a step ahead: an operation stamped it, died before the catalog heard of it, and was cancelled. It
        // holds everything that was ever written, so it is kept like any other.
        frozen = engine.freeze(&at, &a_step_ahead(fleet, step), &identity).await;
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

/// True while the tenant is this operation's and as it was claimed: what a late worker takes for a step ahead may be the
/// present.
async fn is_ours(fleet: &Fleet, step: &Step) -> Result<bool> {
    let now = catalog::tenants::get(&mut fleet.catalog.read().await?, step.tenant.id).await?;
    Ok(now.is_some_and(|now| now.op_id == Some(step.op.id) && now.generation == step.tenant.generation))
}

/// The current database as an operation leaves it that stamped it and never told the catalog.
fn a_step_ahead(fleet: &Fleet, step: &Step) -> Expected {
    let states = [IdentityState::Active, IdentityState::Frozen, IdentityState::Tombstone];
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

/// The end of a swap that cannot be: the current database serves again, unless another attempt may do better.
pub(super) async fn give_up(fleet: &Fleet, step: &Step, current: Current, error: Error) -> Result<Outcome> {
    let may_pass = error.transient && step.attempt < ATTEMPTS_MAX;
    if may_pass || current != Current::Frozen {
        return Err(error);
    }
    let flip = thaw(fleet, step).await?;
    let event = step.event(&format!("tenant.{}_given_up", step.op.kind), json!({"code": error.code}));
    let effects = vec![Effect::Flip(flip), Effect::Event(event)];
    Ok(Outcome { verdict: Verdict::Failed(error.permanent()), effects })
}

/// Lets the frozen database serve again: the way back when its replacement cannot be used after all.
async fn thaw(fleet: &Fleet, step: &Step) -> Result<Flip> {
    let (engine, at) = fleet.current(&step.tenant).await?;
    let expected = step.expected(fleet.id(), &[IdentityState::Frozen]);
    let identity = step.identity(fleet.id(), step.tenant.generation.next(), IdentityState::Active);
    engine.stamp(&at, &expected, &identity).await?;
    Ok(Flip { block_writes: Some(None), reason: Some(None), ..Flip::of(step.tenant.id, step.tenant.generation) })
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
    Err(Error::new(409, "operation_in_progress", detail).transient())
}
