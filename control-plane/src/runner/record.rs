//! The recorder: many outcomes, one transaction. It commits at once when one outcome waits, and while it commits the
//! next batch gathers, so that a busy runner pays one flush of the catalog for dozens of steps.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use catalog::steps::{StepOutcome, StepResult};
use catalog::{OperationId, TenantId};
use tokio::sync::{mpsc, oneshot};

use super::{Runner, effects};
use crate::error::Result;
use crate::operations::Effect;

/// Outcomes waiting for the recorder: more than all steps in flight have.
pub(super) const QUEUE_MAX: usize = 1_024;
/// Outcomes in one transaction: what keeps it a few tens of milliseconds short.
const BATCH_MAX: usize = 512;

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
            self.record_batch(std::mem::take(&mut batch)).await;
        }
    }

    /// Resolves when the process is stopping and holds nothing more that could report.
    async fn idle_and_stopping(&self) {
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
                settled => return settled,
            }
        }
        self.write(batch).await
    }

    /// One transaction; returns which reports are in it.
    async fn write(&self, batch: &[Report]) -> Result<HashSet<usize>> {
        let mut tx = self.fleet.catalog.write().await?;
        let claims: Vec<(OperationId, TenantId, i64)> =
            batch.iter().map(|r| (r.outcome.op_id, r.outcome.tenant_id, r.outcome.lease_epoch)).collect();
        let live = catalog::steps::live(&mut tx, &claims).await?;
        let live: Vec<&Report> = batch.iter().zip(&live).filter(|(_, live)| **live).map(|(report, _)| report).collect();
        let now = tx.now();
        let conflicts = effects::flip(&mut tx, &live).await?;
        let outcomes: Vec<StepOutcome> = live.iter().map(|report| settled(&report.outcome, &conflicts, now)).collect();
        let recorded = catalog::steps::record(&mut tx, &outcomes).await?;
        let kept: Vec<&Report> = live
            .into_iter()
            .zip(&recorded)
            .filter(|(report, recorded)| **recorded && !conflicts.contains(&report.outcome.tenant_id))
            .map(|(report, _)| report)
            .collect();
        effects::apply(&mut tx, &kept).await?;
        tx.commit().await?;
        let kept: HashSet<TenantId> = kept.iter().map(|report| report.outcome.tenant_id).collect();
        Ok((0..batch.len()).filter(|number| kept.contains(&batch[*number].outcome.tenant_id)).collect())
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
