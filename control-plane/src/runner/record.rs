//! The recorder writes many outcomes in one transaction. Outcomes that others wait for are committed at once: a step's
//! next phase, and the last steps of a run. Other ended steps are gathered for a moment while many more are running. So
//! a busy runner pays one flush of the catalog for dozens of steps.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use catalog::steps::{StepOutcome, StepResult};
use catalog::{OperationId, TenantId};
use tokio::sync::{mpsc, oneshot};

use super::{Runner, effects};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::CatalogEffect;

/// Maximum number of outcomes that wait for the recorder: more than all running steps can produce.
pub(super) const QUEUE_MAX: usize = 1_024;
/// Maximum number of outcomes in one transaction. It then takes a few tens of milliseconds.
const BATCH_MAX: usize = 512;

/// How long ended steps wait for each other. If the process is killed, at most this much work is repeated, and its
/// effects are already there.
const GATHER_MAX: Duration = Duration::from_millis(100);
/// The batch is written once one in this many of the running steps has ended.
const GATHER_SHARE: usize = 4;

/// Attempts to write a batch. Including the pauses between them they stay well within a lease.
const WRITE_ATTEMPTS_MAX: u32 = 5;
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// One outcome that is to be recorded.
#[derive(Debug)]
pub(super) struct StepReport {
    pub(super) outcome: StepOutcome,
    pub(super) effects: Vec<CatalogEffect>,
    pub(super) answer: oneshot::Sender<RecordAnswer>,
}

/// The answer to a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordAnswer {
    /// The outcome is in the catalog.
    Recorded,
    /// Nothing was recorded: the step no longer belonged to this process, or the catalog could not be written.
    Dropped,
}

impl Runner {
    /// Records until every worker is gone. Ends after the last report of a stopping process.
    pub(super) async fn record_loop(self: Arc<Self>, mut reports: mpsc::Receiver<StepReport>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                biased;
                received = reports.recv_many(&mut batch, BATCH_MAX) => if received == 0 { return },
                () = self.idle_and_stopping() => return,
            }
            self.gather_reports(&mut reports, &mut batch).await;
            self.record_batch(std::mem::take(&mut batch)).await;
        }
    }

    /// Lets the batch grow as long as nobody waits for it.
    async fn gather_reports(&self, reports: &mut mpsc::Receiver<StepReport>, batch: &mut Vec<StepReport>) {
        let until = tokio::time::Instant::now() + GATHER_MAX;
        while self.may_gather(batch) {
            let room = BATCH_MAX - batch.len();
            match tokio::time::timeout_at(until, reports.recv_many(batch, room)).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn may_gather(&self, batch: &[StepReport]) -> bool {
        let ends =
            |report: &StepReport| matches!(report.outcome.result, StepResult::Done { .. } | StepResult::Skipped { .. });
        let few = batch.len() < BATCH_MAX.min(self.lock_state().held.len() / GATHER_SHARE);
        few && batch.iter().all(ends) && !self.tasks.stopping_token().is_cancelled()
    }

    /// Resolves when the process is stopping and holds no step that could still report.
    pub(super) async fn idle_and_stopping(&self) {
        self.tasks.stopping_token().cancelled().await;
        let mut progress = self.progress.subscribe();
        while self.may_still_report() {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    async fn record_batch(&self, batch: Vec<StepReport>) {
        self.context.fault_point("record: begins").await;
        let written = self.write_or_try_again(&batch).await;
        self.trouble.note_write(&written);
        self.context.fault_point("record: committed").await;
        if let Err(error) = &written {
            // The leases expire, and the process that claims the steps next finds their work done.
            tracing::error!(code = %error.code(), %error, outcomes = batch.len(), "outcomes were not recorded");
        }
        let written = written.unwrap_or_default();
        for (number, report) in batch.into_iter().enumerate() {
            let answer = if written.contains(&number) { RecordAnswer::Recorded } else { RecordAnswer::Dropped };
            let _ = report.answer.send(answer);
        }
    }

    /// Writes a batch, with retries, so that a catalog that is locked or full for a moment does not cost the work of
    /// the batch.
    async fn write_or_try_again(&self, batch: &[StepReport]) -> Result<HashSet<usize>> {
        for _ in 1..WRITE_ATTEMPTS_MAX {
            match self.write_batch(batch).await {
                Err(error) if error.transient => tokio::time::sleep(AFTER_ERROR).await,
                Err(error) => {
                    tracing::warn!(code = %error.code(), %error, outcomes = batch.len(), "a batch was refused");
                    return self.write_each(batch).await;
                }
                written => return written,
            }
        }
        self.write_batch(batch).await
    }

    /// Writes each outcome alone, so that one that can never be written does not block the others or come back
    /// endlessly. A refused outcome becomes the failure of its step.
    async fn write_each(&self, batch: &[StepReport]) -> Result<HashSet<usize>> {
        let mut written = HashSet::new();
        for (number, report) in batch.iter().enumerate() {
            match self.write_batch(std::slice::from_ref(report)).await {
                Ok(kept) if kept.is_empty() => {}
                Ok(_) => drop(written.insert(number)),
                Err(error) if error.transient => return Err(error),
                Err(error) => self.record_failure(report, &error).await?,
            }
        }
        Ok(written)
    }

    async fn record_failure(&self, report: &StepReport, error: &Error) -> Result<()> {
        let message = format!("the outcome of the step could not be recorded: {error}");
        let result = StepResult::Failed { code: error.code().to_owned(), message };
        let mut tx = self.context.catalog.write().await?;
        catalog::steps::record_outcomes(&mut tx, &[StepOutcome { result, ..report.outcome.clone() }]).await?;
        Ok(tx.commit().await?)
    }

    /// Writes a batch in one transaction. Returns the indexes of the reports that it contains.
    async fn write_batch(&self, batch: &[StepReport]) -> Result<HashSet<usize>> {
        let mut tx = self.context.catalog.write().await?;
        let claims: Vec<(OperationId, TenantId, i64)> =
            batch.iter().map(|r| (r.outcome.op_id, r.outcome.tenant_id, r.outcome.lease_epoch)).collect();
        let live = catalog::steps::check_live_claims(&mut tx, &claims).await?;
        let numbered = batch.iter().enumerate().zip(live);
        let live: Vec<(usize, &StepReport)> = numbered.filter(|(_, live)| *live).map(|(report, _)| report).collect();
        let reports: Vec<&StepReport> = live.iter().map(|(_, report)| *report).collect();
        let now = tx.now();
        let conflicts = effects::apply_updates(&mut tx, &reports).await?;
        let outcomes: Vec<StepOutcome> =
            reports.iter().map(|report| outcome_to_record(&report.outcome, &conflicts, now)).collect();
        let recorded = catalog::steps::record_outcomes(&mut tx, &outcomes).await?;
        // By index, not by tenant: the batch may also contain a report of an earlier operation on the same tenant.
        let kept: Vec<(usize, &StepReport)> = live
            .into_iter()
            .zip(&recorded)
            .filter(|((_, report), recorded)| **recorded && !conflicts.contains(&report.outcome.tenant_id))
            .map(|(numbered, _)| numbered)
            .collect();
        let reports: Vec<&StepReport> = kept.iter().map(|(_, report)| *report).collect();
        effects::apply_effects(&mut tx, &reports).await?;
        tx.commit().await?;
        Ok(kept.into_iter().map(|(number, _)| number).collect())
    }
}

/// The outcome to record. If somebody else changed the tenant, the step is retried.
fn outcome_to_record(outcome: &StepOutcome, conflicts: &HashSet<TenantId>, now: i64) -> StepOutcome {
    if !conflicts.contains(&outcome.tenant_id) {
        return outcome.clone();
    }
    let message = "the tenant was changed while the step ran".to_owned();
    let result = StepResult::Retry { not_before: now + 1_000, code: ErrorKind::Conflict.code().to_owned(), message };
    StepOutcome { result, ..outcome.clone() }
}

#[cfg(test)]
mod tests {
    use catalog::WriteTx;
    use catalog::operations::{NewOperation, OperationState, WhenLeft};
    use catalog::steps::StepClaimant;

    use super::*;
    use crate::config::{Config, ProcessRole};
    use crate::tasks::ProcessTasks;

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
        catalog::operations::insert_operation(tx, &new).await.unwrap();
        let step = catalog::steps::claim_steps(
            tx,
            new.id,
            StepClaimant { owner: "this process", lease_until: until, limit: 1, may_run_alone: true, held: &[] },
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

    fn report(outcome: StepOutcome) -> StepReport {
        StepReport { outcome, effects: Vec::new(), answer: oneshot::channel().0 }
    }

    /// A fleet with a tenant that is being created, and a runner beside the app's own.
    async fn world(dir: &tempfile::TempDir) -> (Arc<crate::app::App>, Arc<Runner>, catalog::ServerId) {
        let config = Config::new(dir.path().canonicalize().unwrap(), ProcessRole::Embedded);
        crate::app::App::init_fleet(&config).await.unwrap();
        let app = crate::app::App::open(config).await.unwrap();
        let runner =
            Runner::start_runner(Arc::clone(&app.context), crate::operations::registry(), ProcessTasks::default(), 8);
        let mut tx = app.catalog.read().await.unwrap();
        let server = catalog::servers::by_name(&mut tx, "local").await.unwrap().unwrap();
        (app, runner, server.id)
    }

    async fn tenant(tx: &mut WriteTx, name: &str, server_id: catalog::ServerId) -> TenantId {
        let (id, name) = (TenantId::generate(), catalog::TenantName::parse_slug(name).unwrap());
        let new = catalog::tenants::NewTenant { id, name, server_id, labels: Default::default(), plan: None };
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
        // There is no such backup, so this effect is refused every time.
        reports[0].effects.push(CatalogEffect::Verified { backup: catalog::BackupId::generate(), error: None });
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
        catalog::steps::cancel_pending(&mut tx, lost.op_id, &[]).await.unwrap();
        let held = claimed(&mut tx, id, now + 60_000).await;
        tx.commit().await.unwrap();
        let written = runner.write_batch(&[report(lost), report(held)]).await.unwrap();
        assert_eq!(written, HashSet::from([1]));
    }
}
