//! The phase that puts a new database in the place of the current one. Restore, its undo and move share it.

use catalog::replacements::{ReplacementKind, ReplacementRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::decide::{Decision, Question, decide};
use super::{act, build, observe, roll_back, state};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{CatalogEffect, ClaimedStep, PhaseOutcome, StepContext};

/// The facts of the phase that swaps. Everything else is in the record of the replacement.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct SwapFacts {
    /// What the source has and the new database lacks, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) left_out: Vec<String>,
}

/// Describes a finished swap: the kind of its event, and the facts that are reported.
pub(crate) type DescribeSwap = fn(&ClaimedStep, &ReplacementRecord, SwapTimes) -> (&'static str, Value);

/// The times of a swap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SwapTimes {
    pub(crate) now: i64,
    /// How long writers were stopped, milliseconds. Unknown when another process stopped them.
    pub(crate) frozen_ms: Option<i64>,
    /// Until when the replaced database is retained, milliseconds since 1970.
    pub(crate) keep_until: i64,
}

/// The phase that swaps. If the swap is impossible, the current database serves again and the step fails.
pub(crate) async fn swap_databases(
    context: &StepContext,
    step: &ClaimedStep,
    describe: DescribeSwap,
) -> Result<PhaseOutcome> {
    let open = state::own_replacement(context, step).await?;
    let fits =
        |open: &ReplacementRecord| open.new.as_ref().is_some_and(|new| new.generation == step.tenant.generation.next());
    let Some(open) = open.filter(fits) else {
        let detail = format!("{} was changed during the {}", step.tenant.name, step.op.kind);
        return Err(Error::new(ErrorKind::Conflict, detail));
    };
    match act::stamp_both(context, step, &open).await {
        Ok(()) => done_outcome(context, step, &open, describe),
        Err(error) => give_up_swap(context, step, open, error).await,
    }
}

fn done_outcome(
    context: &StepContext,
    step: &ClaimedStep,
    open: &ReplacementRecord,
    describe: DescribeSwap,
) -> Result<PhaseOutcome> {
    let now = context.catalog.now();
    let frozen_ms = context.pauses.end_pause(step);
    let times = SwapTimes { now, frozen_ms, keep_until: now + context.config.undo_ms };
    let (event, mut facts) = describe(step, open, times);
    let left_out = step.parse_facts::<SwapFacts>().unwrap_or_default().left_out;
    if !left_out.is_empty() {
        facts["left_out"] = json!(left_out);
    }
    let mut effects = swap_effects(step, open, times)?;
    effects.push(CatalogEffect::Event(step.tenant_event(event, facts.clone())));
    Ok(PhaseOutcome { effects, ..PhaseOutcome::step_done(facts) })
}

/// A job of the restored database may have run after the backup was made.
const JOBS_RESTORED: &str = "the database was restored, and the job may have run already";

/// The effects that point the catalog to the new database, retain the replaced one and end the replacement.
fn swap_effects(step: &ClaimedStep, open: &ReplacementRecord, times: SwapTimes) -> Result<Vec<CatalogEffect>> {
    let new = state::require_new(open)?;
    let mut effects = vec![
        CatalogEffect::UpdateTenant(state::lift_block(open, state::update_to_new(step, new))),
        CatalogEffect::EndReplacement(step.tenant.id),
    ];
    if matches!(open.kind, ReplacementKind::Restore | ReplacementKind::Undo) {
        let below = new.generation;
        effects.push(CatalogEffect::BuryJobs { tenant: step.tenant.id, below, reason: JOBS_RESTORED });
    }
    if open.kind == ReplacementKind::Undo {
        effects.push(CatalogEffect::Unretain { server: new.server_id, placement: new.placement.clone() });
    }
    effects.extend(act::retained_record(step, open, times).map(CatalogEffect::Retain));
    Ok(effects)
}

/// Ends a swap that failed: tries again, rolls back, or leaves the tenant blocked for a repair.
pub(super) async fn give_up_swap(
    context: &StepContext,
    step: &ClaimedStep,
    open: ReplacementRecord,
    error: Error,
) -> Result<PhaseOutcome> {
    if roll_back::may_retry(step, &error) {
        return Err(error);
    }
    let seen = observe::observe_replacement(context, step, Some(open.clone())).await?;
    match decide(&seen.situation(), Question::FailedSwap) {
        Decision::RollBack => roll_back::start_rollback(step, &open, error),
        _ => Err(error),
    }
}

/// Completes a swap whose stamps were made, for another operation.
pub(crate) async fn complete_swap(
    context: &StepContext,
    step: &ClaimedStep,
    open: &ReplacementRecord,
) -> Result<PhaseOutcome> {
    let new = state::require_new(open)?;
    let (engine, at) = context.resolve_placement(new.server_id, &new.placement).await?;
    let serves = step.expected_at(context.fleet_id(), new.generation, &[state::unfenced_state(open)]);
    build::probe_database(engine, &at, &serves).await?;
    done_outcome(context, step, open, |_, open, _| {
        let placement = open.new.as_ref().map(|new| &new.placement);
        ("tenant.settled", json!({"settled": true, "completed": open.kind, "placement": placement}))
    })
}
