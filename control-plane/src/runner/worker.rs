//! Runs one claimed step: phase after phase under one lease. Each outcome is recorded before the next phase begins.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use catalog::operations::WhenLeft;
use catalog::steps::{StepOutcome, StepRecord, StepResult};
use catalog::{OperationId, TenantId};
use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Runner;
use super::record::{RecordAnswer, StepReport};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{CatalogEffect, ClaimedStep, ExclusionReason, FleetOperation, PhaseOutcome, StepVerdict};
use crate::plan::retry::{self, FailureCause};
use crate::replacement::failed_step::{self, PossibleLeftovers};

/// A claimed step and its operation.
pub(super) struct ClaimedWork {
    pub(super) claimed: StepRecord,
    pub(super) step: ClaimedStep,
    pub(super) operation: Arc<dyn FleetOperation>,
    pub(super) lost: CancellationToken,
}

/// Whether the worker continues with its step.
enum WorkerNext {
    /// Run the next phase, under the same lease.
    Continue,
    /// The step is over for this process.
    End,
}

impl Runner {
    /// Runs a step until it ends, is to be retried, or its lease is lost.
    pub(super) async fn work_on_step(self: Arc<Self>, work: ClaimedWork, its_operation: Arc<tokio::sync::Semaphore>) {
        let (slot, epoch) = ((work.claimed.op_id, work.claimed.tenant_id), work.claimed.lease_epoch);
        let lost = work.lost.clone();
        tokio::select! {
            biased;
            // Nobody waits for the result any more. Engine calls that have begun run to their end; their identity check
            // makes that harmless.
            () = lost.cancelled() => {}
            () = self.run_with_permits(work, &its_operation) => {}
        }
        self.release_held(slot, epoch);
        self.progress.send_modify(|seen| *seen += 1);
        self.wake.notify_one();
    }

    /// Releases a held step, unless this process holds a newer claim of it.
    fn release_held(&self, slot: (OperationId, TenantId), epoch: i64) {
        let mut state = self.lock_state();
        if state.held.get(&slot).is_some_and(|held| held.epoch == epoch) {
            state.held.remove(&slot);
        }
    }

    /// Waits for a permit of the operation, of the server and of the process, then runs the step.
    async fn run_with_permits(&self, mut work: ClaimedWork, its_operation: &tokio::sync::Semaphore) {
        let server = self.server_permits(work.step.tenant.server_id);
        // None of the three semaphores is ever closed.
        let Ok(_operation) = its_operation.acquire().await else { return };
        let Ok(_server) = server.acquire().await else { return };
        let Ok(_process) = self.steps.acquire().await else { return };
        if self.tasks.stopping_token().is_cancelled() {
            self.hand_back(&work).await;
            return;
        }
        while let WorkerNext::Continue = self.run_one_phase(&mut work).await {}
    }

    async fn run_one_phase(&self, work: &mut ClaimedWork) -> WorkerNext {
        self.context.fault_point("worker: phase").await;
        let outcome = match AssertUnwindSafe(self.run_phase(work)).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::internal("the step failed because of a bug; see the log")).into(),
        };
        let PhaseOutcome { verdict, mut effects } = outcome;
        let result = self.step_result(&work.step, verdict);
        if matches!(result, StepResult::Failed { .. }) {
            effects.extend(self.put_back(work).await);
        }
        let going_on = match &result {
            StepResult::Next { phase, facts } => Some((phase.clone(), facts.clone())),
            _ => None,
        };
        match (self.report_outcome(work, result, effects).await, going_on) {
            (RecordAnswer::Recorded, Some((phase, facts))) => self.continue_step(work, phase, facts).await,
            _ => WorkerNext::End,
        }
    }

    /// Runs the phase. If its attempts are used up, the operation gives the step up instead.
    async fn run_phase(&self, work: &ClaimedWork) -> PhaseOutcome {
        let (operation, step) = (work.operation.as_ref(), &work.step);
        if let Some(left) = exclusion_by_rule(operation, step) {
            return PhaseOutcome { verdict: StepVerdict::Skipped(left), effects: Vec::new() };
        }
        if retry::may_run(step.attempt, step.deaths) {
            return operation.run_phase(&self.context, step).await;
        }
        let error = process_died(step);
        match retry::may_give_up(step.deaths) {
            true => operation.give_up(&self.context, step, error).await,
            false => Err(error).into(),
        }
    }

    /// Undoes what a step did that has failed permanently. Returns the changes that the catalog records together with
    /// the failure.
    async fn put_back(&self, work: &ClaimedWork) -> Vec<CatalogEffect> {
        let made = PossibleLeftovers {
            placements: work.operation.placement_use(),
            elsewhere: work.operation.other_server(&self.context, &work.step).await,
        };
        failed_step::after_failure(&self.context, &work.step, made).await
    }

    /// The result that is recorded in the catalog.
    fn step_result(&self, step: &ClaimedStep, verdict: StepVerdict) -> StepResult {
        match verdict {
            StepVerdict::Next { phase, facts } => {
                StepResult::Next { phase: phase.to_owned(), facts: facts.to_string() }
            }
            StepVerdict::Done(facts) => StepResult::Done { facts: facts.to_string() },
            StepVerdict::Skipped(left) => StepResult::Skipped { code: left.kind.code().to_owned(), message: left.why },
            StepVerdict::Failed(error) => {
                tracing::warn!(
                    op = %step.op.id, kind = %step.op.kind, tenant = %step.tenant.id, phase = %step.phase,
                    attempt = step.attempt, code = %error.code(), error = %error_chain(&error), "step failed"
                );
                let cause = if error.transient { FailureCause::Transient } else { FailureCause::Permanent };
                let salt = step.tenant.id.uuid().as_u64_pair().1;
                let (code, message) = (error.code().to_owned(), error.detail);
                match retry::decide_retry(cause, step.attempt, self.context.catalog.now(), salt) {
                    retry::RetryDecision::At(not_before) => StepResult::Retry { not_before, code, message },
                    retry::RetryDecision::GiveUp if is_busy_elsewhere(step, &error.kind) => {
                        StepResult::Skipped { code, message }
                    }
                    retry::RetryDecision::GiveUp => StepResult::Failed { code, message },
                }
            }
        }
    }

    async fn report_outcome(
        &self,
        work: &ClaimedWork,
        result: StepResult,
        effects: Vec<CatalogEffect>,
    ) -> RecordAnswer {
        let (answer, answered) = oneshot::channel();
        let outcome = StepOutcome {
            op_id: work.claimed.op_id,
            tenant_id: work.claimed.tenant_id,
            lease_owner: self.owner.clone(),
            lease_epoch: work.claimed.lease_epoch,
            result,
        };
        if self.outcomes.send(StepReport { outcome, effects, answer }).await.is_err() {
            return RecordAnswer::Dropped;
        }
        answered.await.unwrap_or(RecordAnswer::Dropped)
    }

    /// Continues with the next phase, with the tenant as the recorded effects left it.
    async fn continue_step(&self, work: &mut ClaimedWork, phase: String, facts: String) -> WorkerNext {
        match self.reread_tenant(work).await {
            Ok(Some(tenant)) => {
                work.step = ClaimedStep { tenant, phase, facts, attempt: 1, deaths: 0, ..work.step.clone() };
                WorkerNext::Continue
            }
            Ok(None) => WorkerNext::End,
            Err(error) => {
                // The phase is recorded. When the lease has expired, another process continues from there.
                tracing::warn!(code = %error.code(), %error, "a tenant was not read again");
                WorkerNext::End
            }
        }
    }

    /// Reads the tenant again. `None` when the step belongs to another worker by now: a worker that slept must not
    /// mistake the other's work for its own and run the next phase on it.
    async fn reread_tenant(&self, work: &ClaimedWork) -> Result<Option<catalog::TenantRecord>> {
        let id = work.claimed.tenant_id;
        let mut tx = self.context.catalog.read().await?;
        let live =
            catalog::steps::check_live_claims(&mut tx, &[(work.claimed.op_id, id, work.claimed.lease_epoch)]).await?;
        if live != [true] {
            return Ok(None);
        }
        let found = catalog::tenants::get(&mut tx, id).await?;
        found.map(Some).ok_or_else(|| Error::internal(format!("{id} is not in the catalog")))
    }

    /// Returns a step that a stopping process claimed and did not begin.
    async fn hand_back(&self, work: &ClaimedWork) {
        let (code, message) =
            (ErrorKind::ShuttingDown.code().to_owned(), "the process that held the step was stopped".to_owned());
        self.report_outcome(work, StepResult::HandedBack { code, message }, Vec::new()).await;
    }
}

/// The reason why the tenant no longer belongs to the selection. Checked before anything is done to the tenant. No
/// other operation changes the tenant while this one holds it.
fn exclusion_by_rule(operation: &dyn FleetOperation, step: &ClaimedStep) -> Option<ExclusionReason> {
    let by_rule = step.op.when_left != WhenLeft::Fail;
    if !by_rule || !step.phase.is_empty() {
        return None;
    }
    operation.exclusion_reason(&step.tenant)
}

/// Whether a tenant that a rule selected is left out, because another operation is replacing its database.
fn is_busy_elsewhere(step: &ClaimedStep, kind: &ErrorKind) -> bool {
    step.op.when_left != WhenLeft::Fail && step.phase.is_empty() && *kind == ErrorKind::OperationInProgress
}

/// The error of a step whose attempts were used up by processes that died.
fn process_died(step: &ClaimedStep) -> Error {
    let phase = if step.phase.is_empty() { "its first phase" } else { &step.phase };
    let detail = match step.deaths {
        1 => format!("the process that ran the step died in {phase}, and no attempt is left"),
        deaths => format!("processes that ran the step died {deaths} times in {phase}"),
    };
    Error::new(ErrorKind::ProcessDied, detail)
        .try_next(format!("find out what ends the process (log, memory), then fleetctl op retry {}", step.op.id))
}

/// An error with its causes, for the log.
fn error_chain(error: &Error) -> String {
    let mut text = error.detail.clone();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
