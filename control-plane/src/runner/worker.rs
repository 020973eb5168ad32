//! One claimed step: phase after phase under one lease, each outcome recorded before the next begins.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use catalog::operations::WhenLeft;
use catalog::steps::{StepOutcome, StepRecord, StepResult};
use catalog::{OperationId, TenantId};
use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Runner;
use super::record::{Answer, Report};
use crate::error::{Error, Result};
use crate::operations::{Effect, Left, Operation, Outcome, Params, Step, Verdict};
use crate::plan::retry::{self, Cause};

/// A claimed step and what its operation is.
pub(super) struct Work {
    pub(super) claimed: StepRecord,
    pub(super) step: Step,
    pub(super) params: Arc<Params>,
    pub(super) lost: CancellationToken,
}

/// Whether the worker goes on with its step.
enum Then {
    /// The next phase, under the same lease.
    Continue,
    /// It is over, here.
    End,
}

impl Runner {
    /// Runs a step to its end, to a retry, or until the lease is lost.
    pub(super) async fn work(self: Arc<Self>, work: Work, its_operation: Arc<tokio::sync::Semaphore>) {
        let (slot, epoch) = ((work.claimed.op_id, work.claimed.tenant_id), work.claimed.lease_epoch);
        let lost = work.lost.clone();
        tokio::select! {
            biased;
            // Nobody listens any more: what a verb has begun runs to its end, and its identity check makes that harmless.
            () = lost.cancelled() => {}
            () = self.take_turns(work, &its_operation) => {}
        }
        self.let_go(slot, epoch);
        self.progress.send_modify(|seen| *seen += 1);
        self.wake.notify_one();
    }

    /// Unless a newer claim of the same step is held by now.
    fn let_go(&self, slot: (OperationId, TenantId), epoch: i64) {
        let mut state = self.state();
        if state.held.get(&slot).is_some_and(|held| held.epoch == epoch) {
            state.held.remove(&slot);
        }
    }

    /// Waits for its turn, among the steps of its operation, of its server, and of this process.
    async fn take_turns(&self, mut work: Work, its_operation: &tokio::sync::Semaphore) {
        let server = self.server(work.step.tenant.server_id);
        // None of the three is ever closed.
        let Ok(_operation) = its_operation.acquire().await else { return };
        let Ok(_server) = server.acquire().await else { return };
        let Ok(_process) = self.steps.acquire().await else { return };
        if self.tasks.stopping().is_cancelled() {
            self.hand_back(&work).await;
            return;
        }
        while let Then::Continue = self.phase(&mut work).await {}
    }

    async fn phase(&self, work: &mut Work) -> Then {
        self.fleet.point("worker: phase").await;
        let outcome = match AssertUnwindSafe(self.run_phase(work)).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::internal("the step stopped with a bug; see the log")).into(),
        };
        let Outcome { verdict, mut effects } = outcome;
        let result = self.result(&work.step, verdict);
        if matches!(result, StepResult::Failed { .. }) {
            effects.extend(work.params.operation().put_back(&self.fleet, &work.step).await);
        }
        let going_on = match &result {
            StepResult::Next { phase, facts } => Some((phase.clone(), facts.clone())),
            _ => None,
        };
        match (self.report(work, result, effects).await, going_on) {
            (Answer::Recorded, Some((phase, facts))) => self.go_on(work, phase, facts).await,
            _ => Then::End,
        }
    }

    /// Runs the phase, unless its attempts are used up: then the operation gives it up.
    async fn run_phase(&self, work: &Work) -> Outcome {
        let (operation, step) = (work.params.operation(), &work.step);
        if let Some(left) = has_left(operation, step) {
            return Outcome { verdict: Verdict::Skipped(left), effects: Vec::new() };
        }
        if retry::may_run(step.attempt, step.deaths) {
            return operation.step(&self.fleet, step).await;
        }
        let error = process_died(step);
        match retry::may_give_up(step.deaths) {
            true => operation.give_up(&self.fleet, step, error).await,
            false => Err(error).into(),
        }
    }

    /// What the catalog is told.
    fn result(&self, step: &Step, verdict: Verdict) -> StepResult {
        match verdict {
            Verdict::Next { phase, facts } => StepResult::Next { phase: phase.to_owned(), facts: facts.to_string() },
            Verdict::Done(facts) => StepResult::Done { facts: facts.to_string() },
            Verdict::Skipped(left) => StepResult::Skipped { code: left.code.to_owned(), message: left.why },
            Verdict::Failed(error) => {
                tracing::warn!(
                    op = %step.op.id, kind = %step.op.kind, tenant = %step.tenant.id, phase = %step.phase,
                    attempt = step.attempt, code = %error.code, error = %chain(&error), "step failed"
                );
                let cause = if error.transient { Cause::Transient } else { Cause::Permanent };
                let salt = step.tenant.id.uuid().as_u64_pair().1;
                let (code, message) = (error.code.to_string(), error.detail);
                match retry::next(cause, step.attempt, self.fleet.catalog.now(), salt) {
                    retry::Next::At(not_before) => StepResult::Retry { not_before, code, message },
                    retry::Next::GiveUp if is_busy_elsewhere(step, &code) => StepResult::Skipped { code, message },
                    retry::Next::GiveUp => StepResult::Failed { code, message },
                }
            }
        }
    }

    async fn report(&self, work: &Work, result: StepResult, effects: Vec<Effect>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let outcome = StepOutcome {
            op_id: work.claimed.op_id,
            tenant_id: work.claimed.tenant_id,
            lease_owner: self.owner.clone(),
            lease_epoch: work.claimed.lease_epoch,
            result,
        };
        if self.outcomes.send(Report { outcome, effects, answer }).await.is_err() {
            return Answer::Dropped;
        }
        answered.await.unwrap_or(Answer::Dropped)
    }

    /// The tenant as the recorded effects left it, for the next phase.
    async fn go_on(&self, work: &mut Work, phase: String, facts: String) -> Then {
        match self.reread(work).await {
            Ok(Some(tenant)) => {
                work.step = Step { tenant, phase, facts, attempt: 1, deaths: 0, ..work.step.clone() };
                Then::Continue
            }
            Ok(None) => Then::End,
            Err(error) => {
                // The phase is recorded: when the lease has run out, somebody goes on from there.
                tracing::warn!(code = %error.code, %error, "a tenant was not read again");
                Then::End
            }
        }
    }

    /// `None` when the step is another's by now: a worker that slept must not take what that one left for its own work,
    /// and do the next phase to it.
    async fn reread(&self, work: &Work) -> Result<Option<catalog::TenantRecord>> {
        let id = work.claimed.tenant_id;
        let mut tx = self.fleet.catalog.read().await?;
        let live = catalog::steps::live(&mut tx, &[(work.claimed.op_id, id, work.claimed.lease_epoch)]).await?;
        if live != [true] {
            return Ok(None);
        }
        let found = catalog::tenants::get(&mut tx, id).await?;
        found.map(Some).ok_or_else(|| Error::internal(format!("{id} is not in the catalog")))
    }

    /// Gives a step back that a stopping process claimed and did not begin.
    async fn hand_back(&self, work: &Work) {
        let (code, message) = ("shutting_down".to_owned(), "the process that held the step was stopped".to_owned());
        self.report(work, StepResult::HandedBack { code, message }, Vec::new()).await;
    }
}

/// Why the tenant does not belong to the selection any more. Asked before anything is done to it: no other operation
/// changes it while this one holds it.
fn has_left(operation: &dyn Operation, step: &Step) -> Option<Left> {
    let by_rule = step.op.when_left != WhenLeft::Fail;
    if !by_rule || !step.phase.is_empty() {
        return None;
    }
    operation.has_left(&step.tenant)
}

/// Whether a tenant that a rule selected is given up because another operation is replacing its database.
fn is_busy_elsewhere(step: &Step, code: &str) -> bool {
    step.op.when_left != WhenLeft::Fail && step.phase.is_empty() && code == "operation_in_progress"
}

/// The error of a step whose processes used its attempts up.
fn process_died(step: &Step) -> Error {
    let phase = if step.phase.is_empty() { "its first phase" } else { &step.phase };
    let detail = match step.deaths {
        1 => format!("its process died in {phase}, and its attempts are used up"),
        deaths => format!("its process died {deaths} times in {phase}"),
    };
    Error::new(500, "process_died", detail)
        .try_next(format!("find out what ends the process (log, memory), then fleetctl op retry {}", step.op.id))
}

/// An error with its causes, for the log.
fn chain(error: &Error) -> String {
    let mut text = error.detail.clone();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
