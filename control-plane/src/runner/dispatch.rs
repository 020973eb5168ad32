//! The loop that looks for work: claims batches of steps for workers, closes operations that are done, and finds what
//! dead processes left.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use catalog::events::NewEvent;
use catalog::operations::{OperationRecord, OperationState, Progress};
use catalog::steps::{Claimant, DEATHS_ALONE, StepRecord};
use catalog::{OperationId, TenantId, TenantRecord, WriteTx};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::worker::Work;
use super::{Held, LEASE_MS, POLL, Runner, reached};
use crate::config::Role;
use crate::error::{Error, Result};
use crate::operations::{Params, Placements, Step};

/// Steps claimed of one operation at most: what one transaction takes, and what is lost for a lease when a process dies.
const CLAIM_MAX: usize = 256;
/// After an error of the catalog nothing is asked of it for so long.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// Attempts to close an operation before it is ended without.
const CLOSE_ATTEMPTS_MAX: u32 = 3;

/// What the dispatcher remembers between rounds.
#[derive(Default)]
struct Known {
    operations: HashMap<OperationId, Prepared>,
}

/// An operation that this process runs.
#[derive(Clone)]
struct Prepared {
    record: Arc<OperationRecord>,
    params: Arc<Params>,
    turns: Arc<Semaphore>,
}

struct EndsDispatching<'a>(&'a Runner);

impl Drop for EndsDispatching<'_> {
    fn drop(&mut self) {
        self.0.dispatching.store(false, Ordering::Release);
        // The recorder stays for what a last round claimed, and waits for this.
        self.0.progress.send_modify(|seen| *seen += 1);
    }
}

impl Runner {
    /// Looks for work whenever something was recorded, submitted or becomes due; at most once a second when idle.
    pub(super) async fn dispatch(self: Arc<Self>) {
        let mut known = Known::default();
        // Also when a bug ends the loop: whoever asks for health learns it.
        let _ended = EndsDispatching(&self);
        loop {
            let looked = self.round(&mut known).await;
            if looked.is_err() {
                self.trouble.note(&looked);
            }
            let again = match looked {
                Ok(again) => again,
                Err(error) => {
                    tracing::warn!(code = %error.code, %error, "looking for work failed");
                    AFTER_ERROR
                }
            };
            tokio::select! {
                () = self.tasks.stopping().cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// One look at everything; returns when to look again if nothing happens.
    async fn round(self: &Arc<Self>, known: &mut Known) -> Result<Duration> {
        if self.fleet.config.role == Role::Embedded && self.state().mine.is_empty() {
            return Ok(Duration::from_secs(3_600));
        }
        let open = catalog::operations::open(&mut self.fleet.catalog.read().await?).await?;
        self.forget_ended(known, &open).await?;
        let open: Vec<OperationRecord> = open.into_iter().filter(|op| self.runs(op.id)).collect();
        for record in open {
            let Some(prepared) = self.prepared(known, record).await? else { continue };
            self.fill(&prepared).await?;
        }
        Ok(self.next_look().await?.min(POLL))
    }

    fn runs(&self, op: OperationId) -> bool {
        self.fleet.config.role == Role::Serving || self.state().mine.contains(&op)
    }

    /// Ends what was cancelled while its last steps ran, and drops from memory what is over.
    async fn forget_ended(&self, known: &mut Known, open: &[OperationRecord]) -> Result<()> {
        for id in self.no_longer_open(known, open) {
            let found = catalog::operations::get(&mut self.fleet.catalog.read().await?, id).await?;
            match found.map(|record| (record.state, record.finished_at)) {
                // Cancelled while steps ran, and the last of them has come back.
                Some((OperationState::Cancelled, None)) => self.end_cancelled(id).await?,
                // Paused, and it comes back; or submitted since the open ones were read.
                Some((_, None)) => continue,
                Some((_, Some(_))) | None => {}
            }
            known.operations.remove(&id);
            self.state().mine.remove(&id);
        }
        Ok(())
    }

    /// Operations that this process ran and the catalog does not list as open, of which it holds nothing any more.
    fn no_longer_open(&self, known: &Known, open: &[OperationRecord]) -> Vec<OperationId> {
        let state = self.state();
        let busy = |id: &OperationId| state.held.keys().any(|(op, _)| op == id) || state.closing.contains(id);
        let mut over: Vec<OperationId> = known.operations.keys().chain(&state.mine).copied().collect();
        over.retain(|id| !open.iter().any(|op| op.id == *id) && !busy(id));
        over.sort_unstable();
        over.dedup();
        over
    }

    async fn end_cancelled(&self, id: OperationId) -> Result<()> {
        let mut tx = self.fleet.catalog.write().await?;
        catalog::steps::cancel_pending(&mut tx, id).await?;
        if let Some(ended) = catalog::operations::finish_if_done(&mut tx, id).await? {
            append_ended(&mut tx, &ended).await?;
        }
        tx.commit().await?;
        reached::record(&self.fleet, id).await
    }

    /// An operation whose parameters this program does not understand is failed, not looked at for ever.
    async fn prepared(&self, known: &mut Known, record: OperationRecord) -> Result<Option<Prepared>> {
        if let Some(prepared) = known.operations.get(&record.id) {
            return Ok(Some(prepared.clone()));
        }
        let params = match Params::parse(&record) {
            Ok(params) => Arc::new(params),
            Err(error) => {
                let mut tx = self.fleet.catalog.write().await?;
                let failed = catalog::operations::fail(&mut tx, record.id, &error.code, &error.detail).await?;
                append_ended(&mut tx, &failed).await?;
                tx.commit().await?;
                return Ok(None);
            }
        };
        let turns = Arc::new(Semaphore::new(usize::try_from(record.concurrency).unwrap_or(1).max(1)));
        let prepared = Prepared { record: Arc::new(record), params, turns };
        known.operations.insert(prepared.record.id, prepared.clone());
        Ok(Some(prepared))
    }

    /// Claims as much as fits; an operation of which nothing is left is closed.
    async fn fill(self: &Arc<Self>, prepared: &Prepared) -> Result<()> {
        let id = prepared.record.id;
        let (held, may_run_alone) = self.holds(id);
        // Twice the concurrency: the next step is at hand when one ends. Not one by one: a claim is a transaction.
        let most = usize::try_from(prepared.record.concurrency).unwrap_or(1).saturating_mul(2).clamp(1, CLAIM_MAX);
        if held > most / 2 || self.runs_alone(id) {
            return Ok(());
        }
        let claimed = self.claim(prepared, most - held, may_run_alone).await?;
        if claimed.is_empty() {
            return if held == 0 { self.close_if_done(prepared).await } else { Ok(()) };
        }
        self.trouble.note(&Ok(()));
        for (step, tenant) in claimed {
            self.begin(prepared, step, tenant);
        }
        Ok(())
    }

    /// How many steps of an operation this process holds, and whether it may take one that has to run alone.
    fn holds(&self, id: OperationId) -> (usize, bool) {
        let state = self.state();
        let held = state.held.keys().filter(|(op, _)| *op == id).count();
        (held, held == 0 && !state.held.values().any(|held| held.alone))
    }

    /// Whether this process holds a step of the operation that has to run alone.
    fn runs_alone(&self, id: OperationId) -> bool {
        self.state().held.iter().any(|((op, _), held)| *op == id && held.alone)
    }

    /// One transaction: the claims, the tenants' slots, and the numbers of the placements that the steps will fill.
    async fn claim(
        &self,
        prepared: &Prepared,
        room: usize,
        may_run_alone: bool,
    ) -> Result<Vec<(StepRecord, TenantRecord)>> {
        self.fleet.awake().await;
        let mut tx = self.fleet.catalog.write().await?;
        let lease_until = tx.now() + LEASE_MS;
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        let claimant = Claimant { owner: &self.owner, lease_until, limit, may_run_alone };
        let claimed = catalog::steps::claim(&mut tx, prepared.record.id, claimant).await?;
        if claimed.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<TenantId> = claimed.iter().map(|step| step.tenant_id).collect();
        if prepared.params.operation().placements() == Placements::Fresh {
            catalog::tenants::next_epochs(&mut tx, &ids).await?;
        }
        let tenants = catalog::tenants::get_many(&mut tx, &ids).await?;
        tx.commit().await?;
        let mut tenants: HashMap<TenantId, TenantRecord> = tenants.into_iter().map(|t| (t.id, t)).collect();
        claimed
            .into_iter()
            .map(|step| {
                let tenant = tenants.remove(&step.tenant_id);
                tenant.map(|tenant| (step, tenant)).ok_or_else(|| Error::internal("a step without a tenant"))
            })
            .collect()
    }

    fn begin(self: &Arc<Self>, prepared: &Prepared, claimed: StepRecord, tenant: TenantRecord) {
        let lost = CancellationToken::new();
        let slot = (claimed.op_id, claimed.tenant_id);
        let alone = claimed.deaths >= DEATHS_ALONE;
        let held = Held { epoch: claimed.lease_epoch, alone, lost: lost.clone() };
        if let Some(before) = self.state().held.insert(slot, held) {
            // This process slept through its own lease: the older claim is as lost as anybody's.
            before.lost.cancel();
        }
        let step = Step {
            op: Arc::clone(&prepared.record),
            tenant,
            phase: claimed.phase.clone(),
            facts: claimed.facts.clone(),
            attempt: claimed.attempt,
            deaths: claimed.deaths,
            claim: claimed.lease_epoch,
            now: self.fleet.catalog.now(),
            filled: Arc::default(),
        };
        let work = Work { claimed, step, params: Arc::clone(&prepared.params), lost };
        self.tasks.spawn(Arc::clone(self).work(work, Arc::clone(&prepared.turns)));
    }

    /// If every step has ended, runs what belongs to the operation as a whole and ends it. In a task: it may take long.
    async fn close_if_done(self: &Arc<Self>, prepared: &Prepared) -> Result<()> {
        let id = prepared.record.id;
        let progress = catalog::operations::progress(&mut self.fleet.catalog.read().await?, id).await?;
        if progress.pending + progress.running > 0 || !self.state().closing.insert(id) {
            return Ok(());
        }
        let (runner, prepared) = (Arc::clone(self), prepared.clone());
        self.tasks.spawn(async move {
            if let Err(error) = runner.close(&prepared).await {
                tracing::warn!(op = %id, code = %error.code, %error, "an operation was not closed");
            }
            runner.state().closing.remove(&id);
            runner.progress.send_modify(|seen| *seen += 1);
            runner.wake.notify_one();
        });
        Ok(())
    }

    async fn close(&self, prepared: &Prepared) -> Result<()> {
        let record = &prepared.record;
        self.fleet.point("operation: closes").await;
        let mut failure = None;
        for attempt in 1..=CLOSE_ATTEMPTS_MAX {
            failure = prepared.params.operation().close(&self.fleet, record).await.err();
            match &failure {
                Some(error) if error.transient && attempt < CLOSE_ATTEMPTS_MAX => tokio::time::sleep(AFTER_ERROR).await,
                _ => break,
            }
        }
        self.fleet.point("operation: ends").await;
        let mut tx = self.fleet.catalog.write().await?;
        end(&mut tx, record, failure).await?;
        tx.commit().await?;
        Ok(())
    }

    /// When a retry becomes due or somebody's lease runs out.
    async fn next_look(&self) -> Result<Duration> {
        let mut tx = self.fleet.catalog.read().await?;
        let now = tx.now();
        let due = catalog::steps::next_due(&mut tx).await?;
        // Due already and not claimed: there is no room, and a worker that ends says so.
        let wait = due.filter(|due| *due > now).map_or(i64::MAX, |due| due - now);
        Ok(Duration::from_millis(wait.unsigned_abs().max(1)))
    }
}

/// Ends the operation in the transaction that says so in the audit log. What the whole could not do fails it, unless
/// its steps say worse.
async fn end(tx: &mut WriteTx, record: &OperationRecord, failure: Option<Error>) -> Result<()> {
    if let Some(error) = failure {
        let failed = catalog::operations::fail(tx, record.id, &error.code, &error.detail).await?;
        return append_ended(tx, &failed).await;
    }
    if let Some(ended) = catalog::operations::finish_if_done(tx, record.id).await? {
        append_ended(tx, &ended).await?;
    }
    Ok(())
}

/// Writes to the audit log how an operation ended, with the counts of its steps.
async fn append_ended(tx: &mut WriteTx, record: &OperationRecord) -> Result<()> {
    let progress = catalog::operations::progress(tx, record.id).await?;
    Ok(catalog::events::append(tx, &[ended_event(record, progress)]).await?)
}

fn ended_event(record: &OperationRecord, progress: Progress) -> NewEvent {
    NewEvent {
        kind: "operation.ended".to_owned(),
        actor: record.requested_by.clone(),
        tenant_id: None,
        op_id: Some(record.id),
        request_id: None,
        data: json!({
            "kind": record.kind, "state": record.state, "steps": record.steps_total, "done": progress.succeeded,
            "failed": progress.failed, "skipped": progress.skipped,
        }),
    }
}
