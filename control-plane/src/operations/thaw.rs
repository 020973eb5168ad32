//! The end of an operation that fenced a database and cannot do what it was to do: the database serves again.

use catalog::retained::RetainedRecord;
use catalog::tenants::Flip;
use catalog::{Generation, ServerId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::IdentityState;

use super::build::{self, Built};
use super::fence::{self, Current, Fence};
use super::swap::{Swap, Why};
use super::{Effect, Fleet, Outcome, Step, Verdict, put_back, stamp};
use crate::error::{Error, Result};
use crate::plan::retry::ATTEMPTS_MAX;

/// The phase in which the fenced database comes back. That it does is decided in the catalog before the database is told,
/// and while the fence stands no way leads from here back to the swap: a worker that slept past its lease finds its stamp
/// made or refused, whatever the one after it did.
pub(super) const THAW: &str = "thaw";

/// What is to come back, and why.
#[derive(Debug, Serialize, Deserialize)]
struct GivenUp {
    #[serde(flatten)]
    fence: Fence,
    /// Was made in its place, and goes.
    built: Option<Built>,
    /// It was kept for an undo before, and stays.
    #[serde(default)]
    was_kept: bool,
    code: String,
    message: String,
}

/// Whether another attempt may do better.
pub(super) fn may_pass(step: &Step, error: &Error) -> bool {
    error.transient && step.attempt < ATTEMPTS_MAX
}

/// The end of what cannot be: the current database is to serve again, unless another attempt may do better.
pub(super) fn give_up(step: &Step, fence: &Fence, swap: Option<&Swap>, error: Error) -> Result<Outcome> {
    if may_pass(step, &error) || fence.current != Current::Frozen {
        return Err(error);
    }
    tracing::warn!(tenant = %step.tenant.id, op = %step.op.id, code = %error.code, %error, "given up: thawing");
    let (code, message) = (error.code.to_string(), error.detail);
    let (built, was_kept) = (swap.map(|swap| swap.built.clone()), swap.is_some_and(|swap| swap.why == Why::Undo));
    Ok(Outcome::next(THAW, json!(GivenUp { fence: fence.clone(), built, was_kept, code, message })))
}

/// The end of a phase that ended its process too often: behind a fence, the current database is to serve again.
pub(super) async fn give_up_phase(fleet: &Fleet, step: &Step, error: Error) -> Outcome {
    let swap = step.facts::<Swap>().ok();
    let fence = swap.as_ref().map(|swap| swap.fence.clone()).or_else(|| step.facts::<Fence>().ok());
    let fence = fence.filter(|fence| step.phase != THAW && fence::stands(step, fence));
    match (fence, swap) {
        (Some(_), Some(swap)) => swap.give_up(fleet, step, error).await,
        (Some(fence), None) => give_up(step, &fence, None, error),
        (None, _) => Err(error),
    }
    .into()
}

/// The phase [`THAW`]: the fenced database serves again, what was made in its place goes, and the step has failed.
pub(super) async fn thaw(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    let GivenUp { fence, built, was_kept, code, message } = step.facts()?;
    let error = Error::new(500, code, message);
    if !fence::stands(step, &fence) {
        // It was lifted, by somebody between two attempts or by the thaw itself before a retry: as in every other phase
        // behind a fence, what is left to do begins anew.
        return Ok(Outcome::next("", json!({})));
    }
    fleet.point("thaw: claimed").await;
    let left = match &built {
        Some(built) => discard_built(fleet, step, built, was_kept).await,
        None => None,
    };
    // One that was retired comes back only where it was decided with a look at what replaced it.
    let from: &[IdentityState] = match &built {
        Some(_) => &[IdentityState::Frozen, IdentityState::Moved],
        None => &[IdentityState::Frozen],
    };
    stamp::restamp(fleet, step, from, fence.at_rest()).await?;
    fleet.point("thaw: stamped").await;
    let flip = fence.lifted(Flip::of(step.tenant.id, step.tenant.generation));
    let event = step.event(&format!("tenant.{}_given_up", step.op.kind), json!({"code": error.code}));
    let mut effects = vec![Effect::Flip(flip), Effect::Event(event)];
    effects.extend(left.map(Effect::Retain));
    Ok(Outcome { verdict: Verdict::Failed(error), effects })
}

/// What was made in the place of a database that comes back after all, for who takes over from a thaw.
pub(super) async fn discard(fleet: &Fleet, step: &Step, swap: &Swap) -> Option<RetainedRecord> {
    discard_built(fleet, step, &swap.built, swap.why == Why::Undo).await
}

/// Of a step that had decided that the database comes back which its fence stands around: what was made in its place.
pub(super) fn decided(facts: &str, generation: Generation) -> Option<Option<Swap>> {
    let GivenUp { fence, built, was_kept, .. } = serde_json::from_str(facts).ok()?;
    let why = if was_kept { Why::Undo } else { Why::default() };
    (fence.generation == generation).then(|| built.map(|built| Swap { built, fence, why }))
}

/// Drops what is not needed after all, if it never left `building`. One that was activated, or that cannot be reached, is
/// kept for as long as what a restore replaces: a catalog that was set back to an earlier moment may not know that it
/// has served. One that was kept before is kept as before.
async fn discard_built(fleet: &Fleet, step: &Step, built: &Built, was_kept: bool) -> Option<RetainedRecord> {
    if was_kept {
        if let Err(error) = retire_kept(fleet, step, built).await {
            tracing::warn!(tenant = %step.tenant.id, code = %error.code, %error, "a kept database was not retired again");
        }
        return None;
    }
    let error = build::discard(fleet, step, built).await.err()?;
    tracing::warn!(tenant = %step.tenant.id, code = %error.code, %error, "a database that is not needed stays for now");
    if let Err(error) = put_aside(fleet, step, built).await
        && !error.transient
    {
        // At another generation, or somebody else's: it is not this step's to keep or to drop.
        tracing::warn!(tenant = %step.tenant.id, code = %error.code, %error, "and it is not what this step made");
        return None;
    }
    let at = (built.server.unwrap_or(step.tenant.server_id), built.placement.as_str());
    Some(given_up(fleet, step, at, built.generation))
}

/// A new database that is not needed after all and stays for a while.
fn given_up(
    fleet: &Fleet,
    step: &Step,
    (server_id, placement): (ServerId, &str),
    generation: Generation,
) -> RetainedRecord {
    let now = fleet.catalog.now();
    RetainedRecord {
        tenant_id: step.tenant.id,
        server_id,
        placement: placement.to_owned(),
        generation,
        reason: "given_up".to_owned(),
        op_id: step.op.id,
        schema_version: step.tenant.schema_version,
        pin: step.tenant.pin,
        created_at: now,
        keep_until: now + fleet.config.undo_ms,
    }
}

/// The kept database of an undo that is given up: it was this step's alone, and nobody is served by it.
async fn retire_kept(fleet: &Fleet, step: &Step, built: &Built) -> Result<()> {
    let all = catalog::retained::of_tenant(&mut fleet.catalog.read().await?, step.tenant.id).await?;
    let is_it = |kept: &&RetainedRecord| {
        kept.placement == built.placement && built.server.is_none_or(|server| server == kept.server_id)
    };
    match all.iter().find(is_it) {
        Some(record) => put_back::retire_kept(fleet, step, record, built.generation).await,
        None => Ok(()),
    }
}

/// Nobody is served by it from here on.
async fn put_aside(fleet: &Fleet, step: &Step, built: &Built) -> Result<()> {
    let (engine, at) = fleet.at(built.server.unwrap_or(step.tenant.server_id), &built.placement).await?;
    let states = [IdentityState::Active, IdentityState::Frozen, IdentityState::Moved];
    let expected = step.expected_at(fleet.id(), built.generation, &states);
    Ok(engine.stamp(&at, &expected, &step.identity(fleet.id(), built.generation, IdentityState::Moved)).await?)
}
