//! The only place that spawns: every task is counted, told to stop, and waited for.

use std::future::Future;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs `work` on a thread that may block; the caller waits. Dropping the caller does not stop work that has begun.
///
/// # Panics
/// When `work` panics, or the runtime is gone.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("the runtime is shutting down: {error}"),
        },
    }
}

/// The tasks of one process's control plane.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
}

impl Tasks {
    /// Runs `work` in the background until it ends or [`Tasks::stop`] gives up on it.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tracker.spawn(work).abort_handle()
    }

    /// Cancelled when the process is asked to end: loops end, nothing new is begun.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Asks every task to end and waits for that, at most `drain`; returns how many did not.
    pub async fn stop(&self, drain: Duration) -> usize {
        self.stopping.cancel();
        self.tracker.close();
        let _ = tokio::time::timeout(drain, self.tracker.wait()).await;
        self.tracker.len()
    }
}
