//! Decides whether a transaction may still commit, between the worker and the request that waits for it.
//!
//! SQLite checks the clock every 250 steps, and checks for an interrupt more often; the waiting request interrupts at
//! the deadline. A single step may still take long. The request is then answered without the worker. The worker must
//! not commit after that answer, so both sides decide here, and one of them wins.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::InterruptHandle;

use super::pool::SqlitePoolInner;
use super::transaction::deadline_exceeded;
use crate::error::Result;
use crate::sqlite::locks::lock_ignoring_poison;

/// How long after its deadline a statement may take to notice the deadline.
const NOTICE: Duration = Duration::from_millis(250);

/// No worker has taken the call yet.
const QUEUED: u8 = 0;
/// A worker runs its statements.
const BEGUN: u8 = 1;
/// The worker commits; the answer waits for the commit.
const COMMITTING: u8 = 2;
/// The request was answered before a worker took the call.
const GIVEN_UP: u8 = 3;
/// The request was answered while a worker was stuck in the call.
const STUCK: u8 = 4;

/// The decision about one call.
pub(super) struct CommitDecision {
    state: AtomicU8,
    /// Interrupts the running statement; empty while the connection may belong to another call.
    running: Mutex<Option<Arc<InterruptHandle>>>,
    stuck: Arc<AtomicUsize>,
}

impl CommitDecision {
    /// A new, undecided call. `stuck` counts answered calls in which a worker is still stuck, until the worker is free.
    pub(super) fn new(stuck: &Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(QUEUED), running: Mutex::default(), stuck: Arc::clone(stuck) })
    }

    fn change_state(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// A worker begins the call.
    pub(super) fn begin_work(&self) {
        self.change_state(QUEUED, BEGUN);
    }

    /// A worker runs statements that may be interrupted, until the returned value is dropped.
    pub(super) fn allow_stop(&self, handle: &Arc<InterruptHandle>) -> StoppableCall<'_> {
        *lock_ignoring_poison(&self.running) = Some(Arc::clone(handle));
        StoppableCall(self)
    }

    /// Interrupts the statement that runs now, if it may be interrupted.
    pub(super) fn stop_running(&self) {
        if let Some(handle) = &*lock_ignoring_poison(&self.running) {
            handle.interrupt();
        }
    }

    /// The worker wants to commit. A commit is not interrupted.
    ///
    /// # Errors
    /// [`crate::ErrorKind::DeadlineExceeded`] when the request was already answered.
    pub(super) fn claim_commit(&self) -> Result<()> {
        if self.change_state(BEGUN, COMMITTING) { Ok(()) } else { Err(deadline_exceeded()) }
    }

    /// Runs `work` on a worker and waits for it until shortly after its deadline. A commit that has begun is waited
    /// for.
    ///
    /// # Errors
    /// Those of [`super::workers::WorkerThreads::run_job`]; [`crate::ErrorKind::DeadlineExceeded`].
    pub(super) async fn run_on_worker<T: Send + 'static>(
        &self,
        pool: &SqlitePoolInner,
        until: Instant,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut run = std::pin::pin!(pool.engine_inner().workers.run_job(pool.worker_lane(), work));
        if let Ok(answer) = tokio::time::timeout_at(until.into(), &mut run).await {
            return answer;
        }
        self.stop_running();
        match tokio::time::timeout_at((until + NOTICE).into(), &mut run).await {
            Ok(answer) => answer,
            Err(_) if self.give_up() => Err(deadline_exceeded()),
            Err(_) => run.await,
        }
    }

    /// The request wants to answer that its deadline passed; false when the worker commits.
    fn give_up(&self) -> bool {
        if self.change_state(BEGUN, STUCK) {
            self.stuck.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        self.change_state(QUEUED, GIVEN_UP)
    }
}

/// The call's statements may be interrupted until this value is dropped.
pub(super) struct StoppableCall<'a>(&'a CommitDecision);

impl Drop for StoppableCall<'_> {
    fn drop(&mut self) {
        *lock_ignoring_poison(&self.0.running) = None;
    }
}

impl std::fmt::Debug for CommitDecision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommitDecision").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Drop for CommitDecision {
    fn drop(&mut self) {
        if *self.state.get_mut() == STUCK {
            self.stuck.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
