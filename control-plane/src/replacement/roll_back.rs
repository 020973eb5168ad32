//! Ends an operation that fenced a database and cannot finish: the database serves again.

use catalog::replacements::{FencedDatabase, ReplacementRecord, ReplacementStage};
use catalog::tenants::TenantUpdate;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::decide::{Decision, Question, decide};
use super::{act, observe, state, swap};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{CatalogEffect, ClaimedStep, PhaseOutcome, StepContext, StepVerdict};
use crate::plan::retry::ATTEMPTS_MAX;

/// The phase in which the fenced database comes back to service. The catalog records this decision before the database
/// is stamped. While the fence stands, this phase never leads back to the swap. A late worker finds its stamp already
/// made, or the engine refuses it. The catalog stores the phase under its older name, `thaw`.
pub(crate) const ROLL_BACK: &str = "thaw";

/// The facts of a rollback: why the operation cannot finish.
#[derive(Debug, Serialize, Deserialize)]
struct RollbackFacts {
    code: String,
    message: String,
}

/// Whether another attempt may succeed.
pub(super) fn may_retry(step: &ClaimedStep, error: &Error) -> bool {
    error.transient && step.attempt < ATTEMPTS_MAX
}

/// Starts the rollback of an operation that cannot finish, unless another attempt may succeed.
pub(crate) fn start_rollback(step: &ClaimedStep, open: &ReplacementRecord, error: Error) -> Result<PhaseOutcome> {
    if may_retry(step, &error) || open.found != FencedDatabase::Frozen {
        return Err(error);
    }
    tracing::warn!(tenant = %step.tenant.id, op = %step.op.id, code = %error.code(), %error, "given up: rolling back");
    let facts = RollbackFacts { code: error.code().to_owned(), message: error.detail };
    let open = ReplacementRecord { stage: ReplacementStage::RollingBack, ..open.clone() };
    Ok(PhaseOutcome::next_phase(ROLL_BACK, json!(facts)).with_effect(CatalogEffect::PutReplacement(Box::new(open))))
}

/// Ends a phase in which processes died too often. If the tenant is fenced, the current database is to serve again.
pub(crate) async fn roll_back_phase(context: &StepContext, step: &ClaimedStep, error: Error) -> PhaseOutcome {
    match state::own_replacement(context, step).await {
        Ok(Some(open)) => match open.stage {
            ReplacementStage::Ready => swap::give_up_swap(context, step, open, error).await,
            ReplacementStage::Fenced => start_rollback(step, &open, error),
            ReplacementStage::RollingBack => Err(error),
        },
        Ok(None) | Err(_) => Err(error),
    }
    .into()
}

/// The phase [`ROLL_BACK`]: the fenced database serves again, the replacement is discarded, and the step fails.
pub(crate) async fn roll_back(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    let RollbackFacts { code, message } = step.parse_facts()?;
    let Some(open) = state::own_replacement(context, step).await? else {
        // The fence was lifted, by somebody between two attempts or by this phase before a retry. As in every phase
        // behind a fence, the remaining work starts again from the beginning.
        return Ok(PhaseOutcome::next_phase("", json!({})));
    };
    context.fault_point("thaw: claimed").await;
    let seen = observe::observe_replacement(context, step, Some(open.clone())).await?;
    let found = match decide(&seen.situation(), Question::RollBack) {
        Decision::UseCurrent => seen.current.require_identity()?,
        Decision::Refuse(why) => return Err(act::refusal_error(step, seen, why)),
        other => return Err(Error::internal(format!("a rollback was decided as {other:?}"))),
    };
    let left = act::discard_new(context, step, &open).await;
    act::serve_current(context, step, &found, state::unfenced_state(&open)).await?;
    context.fault_point("thaw: stamped").await;
    let error = Error::new(ErrorKind::Recorded(code), message);
    let update = state::lift_block(&open, TenantUpdate::for_generation(step.tenant.id, step.tenant.generation));
    let event = step.tenant_event(&format!("tenant.{}_given_up", step.op.kind), json!({"code": error.code()}));
    let mut effects = vec![
        CatalogEffect::UpdateTenant(update),
        CatalogEffect::EndReplacement(step.tenant.id),
        CatalogEffect::Event(event),
    ];
    effects.extend(left.map(CatalogEffect::Retain));
    Ok(PhaseOutcome { verdict: StepVerdict::Failed(error), effects })
}
