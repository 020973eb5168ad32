//! The recorder: many outcomes, one transaction. What others wait for is committed at once (a step's next phase, the
//! last steps of a run); ends of steps gather for a moment while many more are at work, so that a busy runner pays one
//! flush of the catalog for dozens of steps.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use catalog::steps::{StepOutcome, StepResult};
use catalog::{OperationId, TenantId};
use tokio::sync::{mpsc, oneshot};

use super::{Runner, effects};
use crate::error::{Error, Result};
use crate::operations::Effect;

/// Outcomes waiting for the recorder: more than all steps in flight have.
pub(super) const QUEUE_MAX: usize = 1_024;
/// Outcomes in one transaction: what keeps it a few tens of milliseconds short.
const BATCH_MAX: usize = 512;

/// Ends of steps wait this long for each other: a kill repeats that much work, and finds it done.
const GATHER_MAX: Duration = Duration::from_millis(100);
/// With so many of the steps at work ended, the catalog is told.
const GATHER_SHARE: usize = 4;

/// Attempts to write a batch: with the pause between them, still well within a lease.
const WRITE_ATTEMPTS_MAX: u32 = 5;
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// One outcome on its way into the catalog.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) outcome: StepOutcome,
    pub(super) effects: Vec<Effect>,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is in the catalog.
    Recorded,
    /// The step was not this process's any more, or the catalog could not be written: nothing was taken.
    Dropped,
}

impl Runner {
    /// Records until every worker is gone; ends after the last report of a stopping process.
    pub(super) async fn record(self: Arc<Self>, mut reports: mpsc::Receiver<Report>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                biased;
                received = reports.recv_many(&mut batch, BATCH_MAX) => if received == 0 { return },
                () = self.idle_and_stopping() => return,
            }
            self.gather(&mut reports, &mut batch).await;
            self.record_batch(std::mem::take(&mut batch)).await;
        }
    }

    /// Lets the batch grow as long as nobody waits for it.
    async fn gather(&self, reports: &mut mpsc::Receiver<Report>, batch: &mut Vec<Report>) {
        let until = tokio::time::Instant::now() + GATHER_MAX;
        while self.may_gather(batch) {
            let room = BATCH_MAX - batch.len();
            match tokio::time::timeout_at(until, reports.recv_many(batch, room)).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn may_gather(&self, batch: &[Report]) -> bool {
        let ends =
            |report: &Report| matches!(report.outcome.result, StepResult::Done { .. } | StepResult::Skipped { .. });
        let few = batch.len() < BATCH_MAX.min(self.state().held.len() / GATHER_SHARE);
        few && batch.iter().all(ends) && !self.tasks.stopping().is_cancelled()
    }

    /// Resolves when the process is stopping and holds nothing more that could report.
    pub(super) async fn idle_and_stopping(&self) {
        self.tasks.stopping().cancelled().await;
        let mut progress = self.progress.subscribe();
        while self.may_still_report() {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    async fn record_batch(&self, batch: Vec<Report>) {
        self.fleet.point("record: begins").await;
        let written = self.write_or_try_again(&batch).await;
        self.trouble.note(&written);
        self.fleet.point("record: committed").await;
        if let Err(error) = &written {
            // The leases run out, and whoever claims the steps next finds their work done.
            tracing::error!(code = %error.code, %error, outcomes = batch.len(), "outcomes were not recorded");
        }
        let written = written.unwrap_or_default();
        for (number, report) in batch.into_iter().enumerate() {
            let answer = if written.contains(&number) { Answer::Recorded } else { Answer::Dropped };
            let _ = report.answer.send(answer);
        }
    }

    /// A catalog that is locked or full for a moment costs a moment, not the work of a whole batch.
    async fn write_or_try_again(&self, batch: &[Report]) -> Result<HashSet<usize>> {
        for _ in 1..WRITE_ATTEMPTS_MAX {
            match self.write(batch).await {
                Err(error) if error.transient => tokio::time::sleep(AFTER_ERROR).await,
                Err(error) => {
                    tracing::warn!(code = %error.code, %error, outcomes = batch.len(), "a batch was refused");
                    return self.write_each(batch).await;
                }
                written => return written,
            }
        }
        self.write(batch).await
    }

    /// One outcome that can never be written must not take the others with it, nor come back for ever: each is written
    /// alone, and a refusal becomes the failure of its step.
    async fn write_each(&self, batch: &[Report]) -> Result<HashSet<usize>> {
        let mut written = HashSet::new();
        for (number, report) in batch.iter().enumerate() {
            match self.write(std::slice::from_ref(report)).await {
                Ok(kept) if kept.is_empty() => {}
                Ok(_) => drop(written.insert(number)),
                Err(error) if error.transient => return Err(error),
                Err(error) => self.fail(report, &error).await?,
            }
        }
        Ok(written)
    }

    async fn fail(&self, report: &Report, error: &Error) -> Result<()> {
        let message = format!("what came of it could not be recorded: {error}");
        let result = StepResult::Failed { code: error.code.to_string(), message };
        let mut tx = self.fleet.catalog.write().await?;
        catalog::steps::record(&mut tx, &[StepOutcome { result, ..report.outcome.clone() }]).await?;
        Ok(tx.commit().await?)
    }

    /// One transaction; returns which reports are in it.
    async fn write(&self, batch: &[Report]) -> Result<HashSet<usize>> {
        let mut tx = self.fleet.catalog.write().await?;
        let claims: Vec<(OperationId, TenantId, i64)> =
            batch.iter().map(|r| (r.outcome.op_id, r.outcome.tenant_id, r.outcome.lease_epoch)).collect();
        let live = catalog::steps::live(&mut tx, &claims).await?;
        let numbered = batch.iter().enumerate().zip(live);
        let live: Vec<(usize, &Report)> = numbered.filter(|(_, live)| *live).map(|(report, _)| report).collect();
        let reports: Vec<&Report> = live.iter().map(|(_, report)| *report).collect();
        let now = tx.now();
        let conflicts = effects::flip(&mut tx, &reports).await?;
        let outcomes: Vec<StepOutcome> =
            reports.iter().map(|report| settled(&report.outcome, &conflicts, now)).collect();
        let recorded = catalog::steps::record(&mut tx, &outcomes).await?;
        // By number, not by tenant: a batch may also hold a report of an operation that the tenant belonged to before.
        let kept: Vec<(usize, &Report)> = live
            .into_iter()
            .zip(&recorded)
            .filter(|((_, report), recorded)| **recorded && !conflicts.contains(&report.outcome.tenant_id))
            .map(|(numbered, _)| numbered)
            .collect();
        let reports: Vec<&Report> = kept.iter().map(|(_, report)| *report).collect();
        effects::apply(&mut tx, &reports).await?;
        tx.commit().await?;
        Ok(kept.into_iter().map(|(number, _)| number).collect())
    }
}

/// The outcome to record: a tenant that was changed by somebody else is looked at again.
fn settled(outcome: &StepOutcome, conflicts: &HashSet<TenantId>, now: i64) -> StepOutcome {
    if !conflicts.contains(&outcome.tenant_id) {
        return outcome.clone();
    }
    let message = "the tenant was changed while the step ran".to_owned();
    let result = StepResult::Retry { not_before: now + 1_000, code: "conflict".to_owned(), message };
    StepOutcome { result, ..outcome.clone() }
}

#[cfg(test)]
mod tests {
    use catalog::WriteTx;
    use catalog::operations::{NewOperation, OperationState, WhenLeft};
    use catalog::steps::Claimant;

    use super::*;
    use crate::config::{Config, Role};
    use crate::tasks::Tasks;

    /// An operation on one tenant, its only step claimed until `until`.
    async fn claimed(tx: &mut WriteTx, tenant: TenantId, until: i64) -> StepOutcome {
        let new = NewOperation {
            id: OperationId::generate(),
            kind: "backup".to_owned(),
            params: "{}".to_owned(),
            release_id: None,
            tenants: vec![tenant],
            skipped: 0,
            left_out: Vec::new(),
            when_left: WhenLeft::Fail,
            concurrency: 1,
            requested_by: "test".to_owned(),
            reason: None,
        };
        catalog::operations::insert(tx, &new).await.unwrap();
        let step = catalog::steps::claim(
            tx,
            new.id,
            Claimant { owner: "this process", lease_until: until, limit: 1, may_run_alone: true },
        )
        .await
        .unwrap()
        .remove(0);
        StepOutcome {
            op_id: new.id,
            tenant_id: tenant,
            lease_owner: "this process".to_owned(),
            lease_epoch: step.lease_epoch,
            result: StepResult::Next { phase: "next".to_owned(), facts: "{}".to_owned() },
        }
    }

    fn report(outcome: StepOutcome) -> Report {
        Report { outcome, effects: Vec::new(), answer: oneshot::channel().0 }
    }

    /// A fleet with a tenant that is being made, and a runner beside the app's own.
    async fn world(dir: &tempfile::TempDir) -> (Arc<crate::app::App>, Arc<Runner>, catalog::ServerId) {
        let config = Config::new(dir.path().canonicalize().unwrap(), Role::Embedded);
        crate::app::App::init(&config).await.unwrap();
        let app = crate::app::App::open(config).await.unwrap();
        let runner = Runner::start(Arc::clone(&app.fleet), Tasks::default(), 8);
        let mut tx = app.catalog.read().await.unwrap();
        let server = catalog::servers::by_name(&mut tx, "local").await.unwrap().unwrap();
        (app, runner, server.id)
    }

    async fn tenant(tx: &mut WriteTx, name: &str, server_id: catalog::ServerId) -> TenantId {
        let (id, name) = (TenantId::generate(), catalog::Name::slug(name).unwrap());
        let new = catalog::tenants::NewTenant { id, name, server_id, labels: Default::default() };
        catalog::tenants::insert_many(tx, &[new]).await.unwrap();
        id
    }

    #[tokio::test]
    async fn one_outcome_that_cannot_be_written_fails_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (app, runner, server) = world(&dir).await;
        let mut tx = app.catalog.write().await.unwrap();
        let (bad, good) = (tenant(&mut tx, "bad", server).await, tenant(&mut tx, "good", server).await);
        let until = tx.now() + 60_000;
        let mut reports = vec![report(claimed(&mut tx, bad, until).await), report(claimed(&mut tx, good, until).await)];
        tx.commit().await.unwrap();
        // There is no such backup, so this effect is refused for ever.
        reports[0].effects.push(Effect::Verified { backup: catalog::BackupId::generate(), error: None });
        let written = runner.write_or_try_again(&reports).await.unwrap();
        assert_eq!(written, HashSet::from([1]));
        let mut tx = app.catalog.read().await.unwrap();
        let step = catalog::steps::get(&mut tx, reports[0].outcome.op_id, bad).await.unwrap().unwrap();
        assert_eq!((step.state, step.error_code.as_deref()), (catalog::steps::StepState::Failed, Some("not_found")));
    }

    #[tokio::test]
    async fn a_lost_step_is_not_told_that_another_operation_on_its_tenant_was_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let (app, runner, server) = world(&dir).await;
        let mut tx = app.catalog.write().await.unwrap();
        let id = tenant(&mut tx, "acme", server).await;
        let now = tx.now();
        let lost = claimed(&mut tx, id, now - 1).await;
        let going = &[OperationState::Running];
        catalog::operations::set_state(&mut tx, lost.op_id, going, OperationState::Cancelled).await.unwrap();
        catalog::steps::cancel_pending(&mut tx, lost.op_id).await.unwrap();
        let held = claimed(&mut tx, id, now + 60_000).await;
        tx.commit().await.unwrap();
        let written = runner.write(&[report(lost), report(held)]).await.unwrap();
        assert_eq!(written, HashSet::from([1]));
    }
}
