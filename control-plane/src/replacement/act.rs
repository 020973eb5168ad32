//! Acts on a decision: freezes, stamps and drops databases. Every act may run twice, and is refused by the engine when
//! the database's identity is not the one that was observed.

use catalog::replacements::{FencedDatabase, NewDatabase, ReplacementKind, ReplacementRecord, ReplacementStage};
use catalog::retained::{RetainedReason, RetainedRecord};
use catalog::{BlockWrites, Generation};
use tenant_engine::{ErrorKind as DatabaseError, Identity, IdentityState};

use super::decide::{Decision, Question, Refusal, decide};
use super::observe::{Observation, observe_tenant};
use super::{build, failed_step, latest, stamp, state, swap};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{ClaimedStep, StepContext};

/// Stops all writers of the current database, which the catalog is about to put at the next generation. Returns the
/// record of the replacement, which the caller has recorded together with the block of writes. A damaged or missing
/// database needs no fence: replacing it is the remedy.
pub(crate) async fn fence_current(
    context: &StepContext,
    step: &ClaimedStep,
    kind: ReplacementKind,
    new: Option<NewDatabase>,
) -> Result<ReplacementRecord> {
    let fenced_at = context.catalog.now();
    context.pauses.begin_pause(step);
    let (previous_block, previous_reason) = block_before_fence(context, step).await?;
    let found = stop_writers(context, step).await?;
    Ok(ReplacementRecord {
        tenant_id: step.tenant.id,
        op_id: step.op.id,
        kind,
        stage: if new.is_some() { ReplacementStage::Ready } else { ReplacementStage::Fenced },
        generation: step.tenant.generation.next(),
        server_id: step.tenant.server_id,
        placement: step.tenant.placement.clone(),
        found,
        new,
        previous_block,
        previous_reason,
        fenced_at,
    })
}

/// Fences the current database for operations that need its content. They fail if it is damaged or missing.
pub(crate) async fn fence_sound(
    context: &StepContext,
    step: &ClaimedStep,
    kind: ReplacementKind,
) -> Result<ReplacementRecord> {
    let open = fence_current(context, step, kind, None).await?;
    let name = &step.tenant.name;
    let (kind, what) = match open.found {
        FencedDatabase::Frozen => return Ok(open),
        FencedDatabase::Damaged => (ErrorKind::DatabaseCorrupt, "is damaged, or not the one that the catalog expects"),
        FencedDatabase::Missing => (ErrorKind::DatabaseMissing, "is not there"),
    };
    Err(Error::new(kind, format!("the database of {name} {what}"))
        .try_next(format!("fleetctl restore run {name} --to latest")))
}

/// Who blocked the tenant's writes before any fence, and why. The block of an ended operation does not count: then the
/// block from before it is returned.
pub(crate) async fn block_before_fence(
    context: &StepContext,
    step: &ClaimedStep,
) -> Result<(Option<BlockWrites>, Option<String>)> {
    if step.tenant.block_writes != Some(BlockWrites::Operation) {
        return Ok((step.tenant.block_writes, step.tenant.state_reason.clone()));
    }
    let open = state::open_replacement(context, step).await?;
    Ok(open.map_or((None, None), |open| (open.previous_block, open.previous_reason)))
}

async fn stop_writers(context: &StepContext, step: &ClaimedStep) -> Result<FencedDatabase> {
    if step.tenant.placement.is_none() {
        return Ok(FencedDatabase::Missing);
    }
    let (engine, at) = context.current_database(&step.tenant).await?;
    // The database may already be frozen: by an operator, or by an earlier operation that gave up after its fence.
    let as_promised = step.expected_identity(context.fleet_id(), &[IdentityState::Active, IdentityState::Frozen]);
    let frozen = step.identity_to_stamp(context.fleet_id(), step.tenant.generation.next(), IdentityState::Frozen);
    match engine.freeze_database(&at, &as_promised, &frozen).await {
        Ok(()) => return Ok(FencedDatabase::Frozen),
        Err(error) => match error.kind() {
            DatabaseError::Fenced | DatabaseError::Missing | DatabaseError::Corrupt | DatabaseError::WrongTenant => {}
            _ => return Err(error.into()),
        },
    }
    let seen = observe_tenant(context, step).await?;
    match decide(&seen.situation(), Question::Fence) {
        Decision::Freeze => {
            let found = seen.current.require_identity()?;
            let expected = step.expected_at(context.fleet_id(), found.generation, &[found.state]);
            engine.freeze_database(&at, &expected, &frozen).await?;
            Ok(FencedDatabase::Frozen)
        }
        Decision::GoOnWithout(found) => Ok(found),
        Decision::Refuse(why) => Err(refusal_error(step, seen, why)),
        other => Err(Error::internal(format!("a fence was decided as {other:?}"))),
    }
}

/// Stamps the new database as active, then the current one as retired. In this order there is always one that can
/// serve.
pub(super) async fn stamp_both(context: &StepContext, step: &ClaimedStep, open: &ReplacementRecord) -> Result<()> {
    let new = state::require_new(open)?;
    build::activate_database(context, step, new, state::unfenced_state(open)).await?;
    retire_current(context, step, open).await?;
    context.fault_point("swap: retired").await;
    Ok(())
}

/// Marks the fenced database as retired, because it is about to be replaced. A process that has not heard of the change
/// cannot even read it any more.
async fn retire_current(context: &StepContext, step: &ClaimedStep, open: &ReplacementRecord) -> Result<()> {
    if open.found != FencedDatabase::Frozen {
        return Ok(());
    }
    let (engine, at) = context.current_database(&step.tenant).await?;
    let expected = step.expected_identity(context.fleet_id(), &[IdentityState::Frozen, IdentityState::Moved]);
    let identity = step.identity_to_stamp(context.fleet_id(), step.tenant.generation, IdentityState::Moved);
    Ok(engine.stamp_identity(&at, &expected, &identity).await?)
}

/// Lets the current database serve again: stamps it with the next generation, which the catalog gets after it.
pub(super) async fn serve_current(
    context: &StepContext,
    step: &ClaimedStep,
    found: &Identity,
    served_state: IdentityState,
) -> Result<()> {
    let (engine, at) = context.current_database(&step.tenant).await?;
    let expected = step.expected_at(context.fleet_id(), found.generation, &[found.state]);
    let identity = step.identity_to_stamp(context.fleet_id(), step.tenant.generation.next(), served_state);
    stamp::stamp_database(engine, &at, &expected, &identity).await
}

/// Lets the current database serve again after a repair, and discards the new one. Returns the record of a new database
/// that is retained.
pub(crate) async fn return_to_current(
    context: &StepContext,
    step: &ClaimedStep,
    open: Option<&ReplacementRecord>,
    (found, served_state): (&Identity, IdentityState),
) -> Result<Option<RetainedRecord>> {
    let kept = match open {
        Some(open) => discard_new(context, step, open).await,
        None => None,
    };
    failed_step::retire_all_retained(context, step).await?;
    serve_current(context, step, found, served_state).await?;
    Ok(kept)
}

/// Discards the new database of a replacement that does not happen. It is dropped if it never left `building`. A
/// database that was activated or cannot be reached is retained as long as one that a restore replaces: a catalog that
/// was restored from an older copy may not know that it has served. A database that was already retained stays
/// retained as before.
pub(super) async fn discard_new(
    context: &StepContext,
    step: &ClaimedStep,
    open: &ReplacementRecord,
) -> Option<RetainedRecord> {
    let new = open.new.as_ref()?;
    if open.kind == ReplacementKind::Undo {
        if let Err(error) = retire_undone(context, step, new).await {
            tracing::warn!(tenant = %step.tenant.id, code = %error.code(), %error, "a retained database was not retired again");
        }
        return None;
    }
    let error = build::drop_unserved(context, step, new).await.err()?;
    tracing::warn!(tenant = %step.tenant.id, code = %error.code(), %error, "a database that is not needed was not dropped");
    if let Err(error) = retire_new(context, step, new).await
        && !error.transient
    {
        // The database has another generation or another owner. This step must neither retain nor drop it.
        tracing::warn!(tenant = %step.tenant.id, code = %error.code(), %error, "the database was not created by this step");
        return None;
    }
    Some(retained_after_rollback(context, step, new))
}

/// The record of a new database that is not needed after all and is retained for a while.
fn retained_after_rollback(context: &StepContext, step: &ClaimedStep, new: &NewDatabase) -> RetainedRecord {
    let now = context.catalog.now();
    RetainedRecord {
        tenant_id: step.tenant.id,
        server_id: new.server_id,
        placement: new.placement.clone(),
        generation: new.generation,
        reason: RetainedReason::GivenUp,
        op_id: step.op.id,
        schema_version: step.tenant.schema_version,
        pin: step.tenant.pin,
        created_at: now,
        keep_until: now + context.config.undo_ms,
    }
}

/// Retires the retained database of an undo that is given up. It belonged to this step alone and serves nobody.
async fn retire_undone(context: &StepContext, step: &ClaimedStep, new: &NewDatabase) -> Result<()> {
    let all = catalog::retained::of_tenant(&mut context.catalog.read().await?, step.tenant.id).await?;
    let is_it = |kept: &&RetainedRecord| kept.placement == new.placement && kept.server_id == new.server_id;
    match all.iter().find(is_it) {
        Some(record) => failed_step::retire_retained(context, step, record, new.generation).await,
        None => Ok(()),
    }
}

/// Stamps a new database as retired. It serves nobody from here on.
async fn retire_new(context: &StepContext, step: &ClaimedStep, new: &NewDatabase) -> Result<()> {
    let (engine, at) = context.resolve_placement(new.server_id, &new.placement).await?;
    let states = [IdentityState::Active, IdentityState::Frozen, IdentityState::Moved];
    let expected = step.expected_at(context.fleet_id(), new.generation, &states);
    let identity = step.identity_to_stamp(context.fleet_id(), new.generation, IdentityState::Moved);
    Ok(engine.stamp_identity(&at, &expected, &identity).await?)
}

/// The error of a decision to change nothing.
pub(crate) fn refusal_error(step: &ClaimedStep, seen: Observation, why: Refusal) -> Error {
    let found = seen.current.found_identity().cloned();
    let unexpected = |what: &str| match &found {
        Some(found) => unexpected_identity(step, found, what),
        None => Error::internal("a database without an identity was refused"),
    };
    match why {
        Refusal::CurrentUnreadable | Refusal::NewUnreachable => {
            seen.into_problem().unwrap_or_else(|| unexpected("it cannot be read"))
        }
        Refusal::UnexpectedIdentity => unexpected("no operation leaves a database like this"),
        Refusal::NewUnusable => {
            unexpected(&format!("it was retired, and its replacement cannot be used: {}", seen.new_problem()))
        }
        Refusal::CatalogIsOlder => match &found {
            Some(found) => latest::database_ahead(step, found),
            None => Error::internal("a database without an identity is newer than the catalog"),
        },
        Refusal::RepairFirst => {
            let name = &step.tenant.name;
            let detail = format!("an earlier replacement of the database of {name} is unfinished");
            // Only the repair ends it, so another attempt alone cannot succeed.
            Error::new(ErrorKind::OperationInProgress, detail)
                .mark_permanent()
                .try_next(format!("fleetctl tenant repair {name}"))
        }
    }
}

fn unexpected_identity(step: &ClaimedStep, found: &Identity, what: &str) -> Error {
    let (name, now) = (&step.tenant.name, step.tenant.generation);
    let detail = format!(
        "the database of {name} is at generation {} and {}, the catalog at {now}: {what}",
        found.generation, found.state
    );
    let next = match found.state {
        IdentityState::Moved if is_near(found.generation, now) => {
            format!("fleetctl tenant repair {name} --use-current      # if nothing was written since")
        }
        _ => format!(
            "fleetctl tenant repair {name} --find-latest      # after the catalog was restored from an older copy"
        ),
    };
    Error::new(ErrorKind::DatabaseFenced, detail).try_next(next)
}

fn is_near(found: Generation, now: Generation) -> bool {
    found == now || found == now.next()
}

/// The record of the replaced database. Only a sound one can serve again automatically.
pub(super) fn retained_record(
    step: &ClaimedStep,
    open: &ReplacementRecord,
    times: swap::SwapTimes,
) -> Option<RetainedRecord> {
    let reason = match open.found {
        FencedDatabase::Missing => return None,
        FencedDatabase::Damaged => RetainedReason::Damaged,
        FencedDatabase::Frozen => state::retained_reason(open.kind),
    };
    Some(RetainedRecord {
        tenant_id: step.tenant.id,
        server_id: step.tenant.server_id,
        placement: step.tenant.placement.clone()?,
        // The fence stamped the generation that the catalog has now.
        generation: step.tenant.generation,
        reason,
        op_id: step.op.id,
        schema_version: step.tenant.schema_version,
        pin: step.tenant.pin,
        created_at: times.now,
        keep_until: times.keep_until,
    })
}
