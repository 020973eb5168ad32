//! Tells the catalog which tenants have jobs, after their transactions have committed.
//!
//! The marks are collected and written by one task, so a request does not wait for the catalog. A process that dies in
//! between leaves its row in the catalog's `job_enqueuers`, and another process repairs the index (`sweep.rs`). The row is
//! written before the process enqueues its first job.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use catalog::{Catalog, TenantId, job_queues};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::Result;
use crate::router::Router;

/// How long a process counts as alive after it was last heard. A longer time delays the jobs of a dead process.
const ALIVE_MS: i64 = 60_000;
/// How often it is heard.
const RENEW_EVERY: Duration = Duration::from_secs(20);
/// How long the task waits after the catalog could not be written.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long marks are collected before they are written together.
const COLLECT: Duration = Duration::from_millis(5);
/// Tenants whose marks may wait in memory while the catalog cannot be written. More are left to the sweep.
const PENDING_MAX: usize = 100_000;

/// The marks that this process has not written yet.
#[derive(Debug)]
pub(crate) struct JobMarks {
    process: String,
    pending: Mutex<HashMap<TenantId, i64>>,
    /// Until when the catalog counts this process as alive; 0 before its first job.
    alive_until: AtomicI64,
    turn: tokio::sync::Mutex<()>,
    writing: tokio::sync::Mutex<()>,
    changed: Notify,
    /// True when a mark was dropped. A sweep must then follow the end of this process.
    is_incomplete: AtomicBool,
    /// Wakes the runners of this process after marks were written.
    written: Notify,
}

impl JobMarks {
    pub(crate) fn new() -> Self {
        Self {
            process: Uuid::new_v4().simple().to_string(),
            pending: Mutex::default(),
            alive_until: AtomicI64::new(0),
            turn: tokio::sync::Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            is_incomplete: AtomicBool::new(false),
            written: Notify::new(),
        }
    }

    /// The name of this process among those that enqueue and run jobs.
    pub(super) fn process_name(&self) -> &str {
        &self.process
    }

    /// Waits until marks of this process were written.
    pub(super) async fn wait_for_written(&self) {
        self.written.notified().await;
    }

    /// Makes sure that the jobs of this process are found if it dies. Call it before a job is committed.
    ///
    /// # Errors
    /// `CatalogUnavailable`.
    pub(super) async fn register(&self, catalog: &Catalog) -> Result<()> {
        let is_known = |now: i64| self.alive_until.load(Ordering::Acquire) > now + ALIVE_MS / 2;
        if is_known(catalog.now()) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        if is_known(catalog.now()) {
            return Ok(());
        }
        self.renew(catalog).await
    }

    async fn renew(&self, catalog: &Catalog) -> Result<()> {
        let mut tx = catalog.write().await?;
        let until = tx.now().saturating_add(ALIVE_MS);
        job_queues::register_enqueuer(&mut tx, &self.process, until).await?;
        tx.commit().await?;
        self.alive_until.store(until, Ordering::Release);
        self.changed.notify_one();
        Ok(())
    }

    /// Records that a transaction with a job of this tenant has committed. `due_at` in milliseconds since 1970.
    pub(super) fn add_mark(&self, tenant: TenantId, due_at: i64) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() < PENDING_MAX || pending.contains_key(&tenant) {
            pending.entry(tenant).and_modify(|known| *known = due_at.min(*known)).or_insert(due_at);
        } else {
            self.is_incomplete.store(true, Ordering::Release);
        }
        drop(pending);
        self.changed.notify_one();
    }

    /// Writes the marks. If that fails, they wait for the next attempt.
    async fn write_marks(&self, catalog: &Catalog) -> Result<()> {
        // A caller whose marks are being written waits for them.
        let _turn = self.writing.lock().await;
        let taken = TakenMarks::take_all(self);
        if taken.due.is_empty() {
            return Ok(());
        }
        let mut tx = catalog.write().await?;
        job_queues::mark_due(&mut tx, &taken.due).await?;
        tx.commit().await?;
        taken.are_written();
        self.written.notify_waiters();
        self.written.notify_one();
        Ok(())
    }

    /// Writes the marks now, instead of within a moment.
    ///
    /// # Errors
    /// `CatalogUnavailable`; the marks then wait for the next attempt.
    pub(super) async fn write_now(&self, catalog: &Catalog) -> Result<()> {
        self.write_marks(catalog).await
    }

    /// Writes marks until told to stop. Before the first job of the process it only waits.
    pub(crate) async fn keep_writing(&self, catalog: Catalog, stop: CancellationToken) {
        let mut is_failing = false;
        while !stop.is_cancelled() {
            let is_alive = self.alive_until.load(Ordering::Acquire) > 0;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => tokio::time::sleep(COLLECT).await,
                () = tokio::time::sleep(RENEW_EVERY), if is_alive => {}
            }
            let kept = async {
                if self.alive_until.load(Ordering::Acquire) > 0 && self.is_renewal_due(catalog.now()) {
                    self.renew(&catalog).await?;
                }
                self.write_marks(&catalog).await
            };
            match kept.await {
                Ok(()) => is_failing = false,
                Err(error) => {
                    // Logged once per outage.
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "the catalog does not know yet which tenants have new jobs; trying again");
                    }
                    tokio::time::sleep(AGAIN_AFTER).await;
                    self.changed.notify_one();
                }
            }
        }
    }

    fn is_renewal_due(&self, now: i64) -> bool {
        let renew_ms = i64::try_from(RENEW_EVERY.as_millis()).unwrap_or(ALIVE_MS);
        self.alive_until.load(Ordering::Acquire) < now + ALIVE_MS - renew_ms / 2
    }

    /// Writes the last marks at the end of the process. Without an error, nothing is left for a sweep.
    pub(crate) async fn write_last(&self, catalog: &Catalog) -> Result<()> {
        if self.alive_until.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        self.write_marks(catalog).await?;
        if self.is_incomplete.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut tx = catalog.write().await?;
        job_queues::remove_enqueuer(&mut tx, &self.process).await?;
        tx.commit().await?;
        self.alive_until.store(0, Ordering::Release);
        Ok(())
    }
}

/// Marks that are being written. They wait again if that fails, or if its caller stops waiting.
struct TakenMarks<'a> {
    marks: &'a JobMarks,
    due: Vec<(TenantId, i64)>,
}

impl<'a> TakenMarks<'a> {
    fn take_all(marks: &'a JobMarks) -> Self {
        let pending = std::mem::take(&mut *marks.pending.lock().unwrap_or_else(PoisonError::into_inner));
        Self { marks, due: pending.into_iter().collect() }
    }

    fn are_written(mut self) {
        self.due.clear();
    }
}

impl Drop for TakenMarks<'_> {
    fn drop(&mut self) {
        self.due.iter().for_each(|(tenant, at)| self.marks.add_mark(*tenant, *at));
    }
}

/// A commit that may go through after its caller stopped waiting, or although the answer was lost, has done so by then.
const COMMIT_MS_MAX: i64 = 15_000;

/// The mark for a transaction with jobs that is being committed. It is added also when the outcome stays unknown.
pub(crate) struct CommitMark {
    router: Router,
    tenant: TenantId,
    due_at: i64,
    is_committed: bool,
}

impl CommitMark {
    pub(crate) fn new(router: &Router, tenant: TenantId, due_at: i64) -> Self {
        Self { router: router.clone(), tenant, due_at, is_committed: false }
    }

    /// The commit has succeeded.
    pub(crate) fn confirm(mut self) {
        self.is_committed = true;
    }
}

impl Drop for CommitMark {
    fn drop(&mut self) {
        let inner = &self.router.inner;
        // A runner must not look before the commit, find nothing, and forget the tenant.
        let earliest = if self.is_committed { self.due_at } else { inner.catalog.now() + COMMIT_MS_MAX };
        inner.job_marks.add_mark(self.tenant, self.due_at.max(earliest));
    }
}
