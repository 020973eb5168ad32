//! The fence around a tenant's current database while an operation replaces or buries it: reads go on, writes wait.

use catalog::tenants::Flip;
use catalog::{BlockWrites, Generation, TenantRecord, TenantState};
use serde::{Deserialize, Serialize};
use tenant_engine::{ErrorKind, IdentityState};

use super::{Fleet, Step, newest, stamp};
use crate::error::{Error, Result};

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
    /// Since when writes wait, milliseconds since 1970; for people, as clocks may step.
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

    /// Who had blocked writes before.
    pub(super) fn block(&self) -> Option<BlockWrites> {
        self.block
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

/// What a tenant without a database that serves keeps of it: one that was read-only comes back so. Of one that was
/// suspended besides only the suspension is kept, as there is one reason for both.
pub(super) fn asleep(state: TenantState, block: Option<BlockWrites>) -> Option<BlockWrites> {
    block.filter(|block| *block == BlockWrites::Operator && state != TenantState::Suspended)
}

/// The state in which a tenant wakes that kept this: a reason without a block is a suspension's, and it does not answer
/// without an operator's word.
pub(super) fn awake(tenant: &TenantRecord) -> TenantState {
    match (tenant.block_writes, &tenant.state_reason) {
        (None, Some(_)) => TenantState::Suspended,
        _ => TenantState::Active,
    }
}

/// Stops every writer of the current database, which the catalog is about to put at the next generation; a database
/// that is damaged or gone needs no fence, and replacing it is the way out.
pub(super) async fn freeze(fleet: &Fleet, step: &Step) -> Result<Fence> {
    let frozen_at = fleet.catalog.now();
    fleet.pauses.begin(step);
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
    if frozen.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced) && stamp::is_ours(fleet, step).await? {
        // Sound, but a step ahead: an operation stamped it, died before the catalog heard of it, and was cancelled. It
        // holds everything that was ever written, so it is kept like any other.
        frozen = engine.freeze(&at, &stamp::a_step_ahead(fleet, step), &identity).await;
        if frozen.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced) {
            // Or it was about to be replaced, and was not.
            let retired = step.expected(fleet.id(), &[IdentityState::Moved]);
            frozen = engine.freeze(&at, &retired, &identity).await;
        }
    }
    if frozen.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced) {
        newest::require_not_ahead(fleet, step, engine, &at).await?;
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

/// The flip that goes with [`freeze`]: writes wait or are refused until the next flip.
pub(super) fn block(step: &Step) -> Flip {
    Flip {
        block_writes: Some(Some(BlockWrites::Operation)),
        reason: Some(Some(format!("{} {} is replacing the database", step.op.kind, step.op.id))),
        ..Flip::of(step.tenant.id, step.tenant.generation)
    }
}

/// Refuses to begin on a tenant that another operation has fenced and will come back to.
pub(super) fn require_unblocked(step: &Step) -> Result<()> {
    if step.tenant.block_writes != Some(BlockWrites::Operation) {
        return Ok(());
    }
    Err(busy(step).transient())
}

/// The error of a tenant that another operation will come back to.
pub(super) fn busy(step: &Step) -> Error {
    let detail = format!("another operation is replacing the database of {}", step.tenant.name);
    Error::new(409, "operation_in_progress", detail)
        .try_next(format!("fleetctl tenant settle {}      # if that operation has ended", step.tenant.name))
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
