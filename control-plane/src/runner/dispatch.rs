//! The loop that finds work. It claims batches of steps for workers, closes operations that are done, and takes over
//! the steps of dead processes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use catalog::events::NewEvent;
use catalog::operations::{OperationProgress, OperationRecord, OperationState};
use catalog::steps::{DEATHS_ALONE, StepClaimant, StepRecord};
use catalog::{OperationId, TenantId, TenantRecord, WriteTx};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::lease::LEASE_MS;
use super::worker::ClaimedWork;
use super::{HeldStep, POLL, Runner, reached_versions};
use crate::config::ProcessRole;
use crate::error::{Error, Result};
use crate::operation::{ClaimedStep, FleetOperation, PlacementUse};

/// Maximum number of steps of one operation per claim. It limits the transaction, and the work that waits for a lease
/// when a process dies.
const CLAIM_MAX: usize = 256;
/// Pause after an error of the catalog, before it is asked again.
pub(super) const AFTER_ERROR: Duration = Duration::from_secs(1);
/// Attempts to open or close an operation before it ends without.
pub(super) const CLOSE_ATTEMPTS_MAX: u32 = 3;

/// Data that the dispatcher keeps between rounds.
#[derive(Default)]
struct DispatcherCache {
    operations: HashMap<OperationId, RunningOperation>,
}

/// An operation that this process runs.
#[derive(Clone)]
pub(super) struct RunningOperation {
    pub(super) record: Arc<OperationRecord>,
    pub(super) operation: Arc<dyn FleetOperation>,
    turns: Arc<Semaphore>,
}

struct EndsDispatching<'a>(&'a Runner);

impl Drop for EndsDispatching<'_> {
    fn drop(&mut self) {
        self.0.dispatching.store(false, Ordering::Release);
        // The recorder still serves steps of the last round, and waits for this signal.
        self.0.progress.send_modify(|seen| *seen += 1);
    }
}

impl Runner {
    /// Looks for work when something was recorded or submitted, or becomes due. When idle, it looks once a second.
    pub(super) async fn dispatch_loop(self: Arc<Self>) {
        let mut known = DispatcherCache::default();
        // Dropped even if a bug ends the loop, so that health checks notice.
        let _ended = EndsDispatching(&self);
        loop {
            let looked = self.dispatch_round(&mut known).await;
            if looked.is_err() {
                self.trouble.note_write(&looked);
            }
            let again = match looked {
                Ok(again) => again,
                Err(error) => {
                    tracing::warn!(code = %error.code(), %error, "looking for work failed");
                    AFTER_ERROR
                }
            };
            tokio::select! {
                () = self.tasks.stopping_token().cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// One round over all open operations. Returns when to look again if nothing happens before.
    async fn dispatch_round(self: &Arc<Self>, known: &mut DispatcherCache) -> Result<Duration> {
        if self.context.config.role == ProcessRole::Embedded && self.lock_state().mine.is_empty() {
            return Ok(Duration::from_secs(3_600));
        }
        let open = catalog::operations::open_operations(&mut self.context.catalog.read().await?).await?;
        self.forget_ended(known, &open).await?;
        let open: Vec<OperationRecord> = open.into_iter().filter(|op| self.runs_here(op.id)).collect();
        for record in open {
            let Some(prepared) = self.load_operation(known, record).await? else { continue };
            self.fill_workers(&prepared).await?;
        }
        Ok(self.next_look().await?.min(POLL))
    }

    fn runs_here(&self, op: OperationId) -> bool {
        self.context.config.role == ProcessRole::Serving || self.lock_state().mine.contains(&op)
    }

    /// Ends operations that were cancelled while their last steps ran, and forgets operations that have ended.
    async fn forget_ended(&self, known: &mut DispatcherCache, open: &[OperationRecord]) -> Result<()> {
        for id in self.no_longer_open(known, open) {
            let found = catalog::operations::get(&mut self.context.catalog.read().await?, id).await?;
            match found.map(|record| (record.state, record.finished_at)) {
                // Cancelled while steps ran, and the last of them has finished.
                Some((OperationState::Cancelled, None)) => self.end_cancelled(id).await?,
                // Paused, and it may resume; or submitted after the open operations were read.
                Some((_, None)) => continue,
                Some((_, Some(_))) | None => {}
            }
            known.operations.remove(&id);
            self.lock_state().mine.remove(&id);
        }
        Ok(())
    }

    /// Operations of this process that the catalog no longer lists as open, and of which this process holds no step.
    fn no_longer_open(&self, known: &DispatcherCache, open: &[OperationRecord]) -> Vec<OperationId> {
        let state = self.lock_state();
        let busy = |id: &OperationId| state.held.keys().any(|(op, _)| op == id) || state.closing.contains(id);
        let mut over: Vec<OperationId> = known.operations.keys().chain(&state.mine).copied().collect();
        over.retain(|id| !open.iter().any(|op| op.id == *id) && !busy(id));
        over.sort_unstable();
        over.dedup();
        over
    }

    async fn end_cancelled(&self, id: OperationId) -> Result<()> {
        let mut tx = self.context.catalog.write().await?;
        catalog::steps::cancel_pending(&mut tx, id, &self.held(id)).await?;
        if let Some(ended) = catalog::operations::finish_if_done(&mut tx, id).await? {
            append_ended(&mut tx, &ended).await?;
        }
        tx.commit().await?;
        reached_versions::record_reached(&self.context, self.operations, id).await
    }

    /// Prepares an operation. If this program does not understand its parameters, the operation fails and is not tried
    /// again.
    async fn load_operation(
        &self,
        known: &mut DispatcherCache,
        record: OperationRecord,
    ) -> Result<Option<RunningOperation>> {
        // The parameters contain the result of an opening, so a changed operation is loaded again.
        let is_current = |known: &&RunningOperation| known.record.params == record.params;
        if let Some(prepared) = known.operations.get(&record.id).filter(is_current) {
            return Ok(Some(prepared.clone()));
        }
        let operation = match (self.operations.parse_record)(&record) {
            Ok(operation) => Arc::from(operation),
            Err(error) => {
                let mut tx = self.context.catalog.write().await?;
                let failed =
                    catalog::operations::fail_operation(&mut tx, record.id, error.code(), &error.detail).await?;
                append_ended(&mut tx, &failed).await?;
                tx.commit().await?;
                return Ok(None);
            }
        };
        let turns = Arc::new(Semaphore::new(usize::try_from(record.concurrency).unwrap_or(1).max(1)));
        let prepared = RunningOperation { record: Arc::new(record), operation, turns };
        known.operations.insert(prepared.record.id, prepared.clone());
        Ok(Some(prepared))
    }

    /// Claims as many steps as there is room for. An operation without remaining steps is closed.
    async fn fill_workers(self: &Arc<Self>, prepared: &RunningOperation) -> Result<()> {
        let id = prepared.record.id;
        if prepared.operation.describe_opening().is_some() {
            self.open_once(prepared);
            return Ok(());
        }
        let (held, may_run_alone) = self.held_steps(id);
        // Claims up to twice the concurrency, so that the next step is ready when one ends. Single claims would cost a
        // transaction each.
        let most = usize::try_from(prepared.record.concurrency).unwrap_or(1).saturating_mul(2).clamp(1, CLAIM_MAX);
        if held > most / 2 || self.runs_alone(id) {
            return Ok(());
        }
        let claimed = self.claim_steps(prepared, most - held, may_run_alone).await?;
        if claimed.is_empty() {
            return if held == 0 { self.close_if_done(prepared).await } else { Ok(()) };
        }
        self.trouble.note_write(&Ok(()));
        for (step, tenant) in claimed {
            self.begin_step(prepared, step, tenant);
        }
        Ok(())
    }

    /// How many steps of an operation this process holds, and whether it may take one that must run alone.
    fn held_steps(&self, id: OperationId) -> (usize, bool) {
        let state = self.lock_state();
        let held = state.held.keys().filter(|(op, _)| *op == id).count();
        (held, held == 0 && !state.held.values().any(|held| held.alone))
    }

    /// Whether this process holds a step of the operation that must run alone.
    fn runs_alone(&self, id: OperationId) -> bool {
        self.lock_state().held.iter().any(|((op, _), held)| *op == id && held.alone)
    }

    /// In one transaction: claims steps, tenants and the placement numbers that the steps will fill.
    async fn claim_steps(
        &self,
        prepared: &RunningOperation,
        room: usize,
        may_run_alone: bool,
    ) -> Result<Vec<(StepRecord, TenantRecord)>> {
        self.context.wait_while_halted().await;
        let mut tx = self.context.catalog.write().await?;
        let lease_until = tx.now() + LEASE_MS;
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        let held = &self.held(prepared.record.id);
        let claimant = StepClaimant { owner: &self.owner, lease_until, limit, may_run_alone, held };
        let claimed = catalog::steps::claim_steps(&mut tx, prepared.record.id, claimant).await?;
        if claimed.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<TenantId> = claimed.iter().map(|step| step.tenant_id).collect();
        if prepared.operation.placement_use() == PlacementUse::Fresh {
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

    fn begin_step(self: &Arc<Self>, prepared: &RunningOperation, claimed: StepRecord, tenant: TenantRecord) {
        let lost = CancellationToken::new();
        let slot = (claimed.op_id, claimed.tenant_id);
        let alone = claimed.deaths >= DEATHS_ALONE;
        let held = HeldStep { epoch: claimed.lease_epoch, alone, lost: lost.clone() };
        if let Some(before) = self.lock_state().held.insert(slot, held) {
            // The worker of the older claim has reported, and is about to release it.
            before.lost.cancel();
        }
        let step = ClaimedStep {
            op: Arc::clone(&prepared.record),
            tenant,
            phase: claimed.phase.clone(),
            facts: claimed.facts.clone(),
            attempt: claimed.attempt,
            deaths: claimed.deaths,
            claim: claimed.lease_epoch,
            now: self.context.catalog.now(),
            lease_until: claimed.lease_until.unwrap_or_default(),
            filled: Arc::default(),
        };
        let work = ClaimedWork { claimed, step, operation: Arc::clone(&prepared.operation), lost };
        self.tasks.spawn_task(Arc::clone(self).work_on_step(work, Arc::clone(&prepared.turns)));
    }

    /// Ends an operation whose steps have all ended, after its closing. Runs in a task, because the closing may take
    /// long.
    async fn close_if_done(self: &Arc<Self>, prepared: &RunningOperation) -> Result<()> {
        let id = prepared.record.id;
        let progress = catalog::operations::operation_progress(&mut self.context.catalog.read().await?, id).await?;
        if progress.pending + progress.running > 0 || !self.lock_state().closing.insert(id) {
            return Ok(());
        }
        let (runner, prepared) = (Arc::clone(self), prepared.clone());
        self.tasks.spawn_task(async move {
            if let Err(error) = runner.close_operation(&prepared).await {
                tracing::warn!(op = %id, code = %error.code(), %error, "an operation was not closed");
            }
            runner.lock_state().closing.remove(&id);
            runner.progress.send_modify(|seen| *seen += 1);
            runner.wake.notify_one();
        });
        Ok(())
    }

    async fn close_operation(&self, prepared: &RunningOperation) -> Result<()> {
        let record = &prepared.record;
        self.context.fault_point("operation: closes").await;
        let mut failure = None;
        for attempt in 1..=CLOSE_ATTEMPTS_MAX {
            failure = prepared.operation.run_closing(&self.context, record).await.err();
            match &failure {
                Some(error) if error.transient && attempt < CLOSE_ATTEMPTS_MAX => tokio::time::sleep(AFTER_ERROR).await,
                _ => break,
            }
        }
        self.context.fault_point("operation: ends").await;
        let mut tx = self.context.catalog.write().await?;
        end_operation(&mut tx, record, failure).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The time until a retry becomes due or a lease expires.
    async fn next_look(&self) -> Result<Duration> {
        let mut tx = self.context.catalog.read().await?;
        let now = tx.now();
        let due = catalog::steps::next_due(&mut tx).await?;
        // Steps that are due but not claimed have no room. A worker that ends wakes the dispatcher.
        let wait = due.filter(|due| *due > now).map_or(i64::MAX, |due| due - now);
        Ok(Duration::from_millis(wait.unsigned_abs().max(1)))
    }
}

/// Ends the operation and writes the event, in one transaction. A failure of the opening or closing makes the operation
/// fail, unless its steps ended worse.
pub(super) async fn end_operation(tx: &mut WriteTx, record: &OperationRecord, failure: Option<Error>) -> Result<()> {
    if let Some(error) = failure {
        let failed = catalog::operations::fail_operation(tx, record.id, error.code(), &error.detail).await?;
        return append_ended(tx, &failed).await;
    }
    if let Some(ended) = catalog::operations::finish_if_done(tx, record.id).await? {
        append_ended(tx, &ended).await?;
    }
    Ok(())
}

/// Writes to the audit log how an operation ended, with the counts of its steps.
async fn append_ended(tx: &mut WriteTx, record: &OperationRecord) -> Result<()> {
    let progress = catalog::operations::operation_progress(tx, record.id).await?;
    Ok(catalog::events::append_events(tx, &[ended_event(record, progress)]).await?)
}

fn ended_event(record: &OperationRecord, progress: OperationProgress) -> NewEvent {
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
