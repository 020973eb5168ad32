//! Whether a request still waits for its transaction: one decision between the worker and the waiting request.
//!
//! SQLite looks at the clock every 250 steps, and at a request to stop more often; the waiting side sends that at the
//! deadline. One step may take long all the same. The request is then answered without the worker. The worker must not
//! commit after that answer, so both sides decide here, and one wins.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::InterruptHandle;

use super::pool::PoolInner;
use super::transaction::deadline;
use super::workers::lock;
use crate::error::Result;

/// How long after its deadline a statement may take to notice it.
const NOTICE: Duration = Duration::from_millis(250);

/// No worker has it yet.
const QUEUED: u8 = 0;
/// A worker runs its statements.
const BEGUN: u8 = 1;
/// The worker commits; the answer waits for that.
const COMMITTING: u8 = 2;
/// Answered before a worker had it.
const GIVEN_UP: u8 = 3;
/// Answered while a worker was stuck in it.
const STUCK: u8 = 4;

/// The decision of one call.
pub(super) struct Fate {
    state: AtomicU8,
    /// Stops the statement that runs; nothing while the connection may belong to another call.
    running: Mutex<Option<Arc<InterruptHandle>>>,
    stuck: Arc<AtomicUsize>,
}

impl Fate {
    /// Undecided. `stuck` counts calls that were answered while a worker was stuck in them, until it is free.
    pub(super) fn new(stuck: &Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(QUEUED), running: Mutex::default(), stuck: Arc::clone(stuck) })
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// A worker begins.
    pub(super) fn begin(&self) {
        self.change(QUEUED, BEGUN);
    }

    /// A worker runs statements that may be stopped, until the returned value is dropped.
    pub(super) fn stoppable(&self, handle: &Arc<InterruptHandle>) -> Stoppable<'_> {
        *lock(&self.running) = Some(Arc::clone(handle));
        Stoppable(self)
    }

    fn stop(&self) {
        if let Some(handle) = &*lock(&self.running) {
            handle.interrupt();
        }
    }

    /// The worker wants to commit, which is not stopped.
    ///
    /// # Errors
    /// [`crate::ErrorKind::DeadlineExceeded`] when the request was answered already.
    pub(super) fn commit(&self) -> Result<()> {
        if self.change(BEGUN, COMMITTING) { Ok(()) } else { Err(deadline()) }
    }

    /// Runs `work` on a worker and waits for it, but not longer than its deadline and a short while. A commit that has
    /// begun is waited for.
    ///
    /// # Errors
    /// Those of [`super::workers::Workers::run`]; [`crate::ErrorKind::DeadlineExceeded`].
    pub(super) async fn hop<T: Send + 'static>(
        &self,
        pool: &PoolInner,
        until: Instant,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut run = std::pin::pin!(pool.engine().workers.run(pool.lane(), work));
        if let Ok(answer) = tokio::time::timeout_at(until.into(), &mut run).await {
            return answer;
        }
        self.stop();
        match tokio::time::timeout_at((until + NOTICE).into(), &mut run).await {
            Ok(answer) => answer,
            Err(_) if self.give_up() => Err(deadline()),
            Err(_) => run.await,
        }
    }

    /// The request wants to answer that its time is over; false when the worker commits.
    fn give_up(&self) -> bool {
        if self.change(BEGUN, STUCK) {
            self.stuck.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        self.change(QUEUED, GIVEN_UP)
    }
}

/// While it lives, the call's statements may be stopped.
pub(super) struct Stoppable<'a>(&'a Fate);

impl Drop for Stoppable<'_> {
    fn drop(&mut self) {
        *lock(&self.0.running) = None;
    }
}

impl std::fmt::Debug for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fate").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Drop for Fate {
    fn drop(&mut self) {
        if *self.state.get_mut() == STUCK {
            self.stuck.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
