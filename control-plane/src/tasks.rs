//! The only place that spawns: every task is counted, told to stop, and waited for.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs `work` on a thread that may block; the caller waits. Dropping the caller does not stop work that has begun.
///
/// # Panics
/// When `work` panics, or the runtime is gone.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    ended(tokio::task::spawn_blocking(work).await)
}

fn ended<T>(result: Result<T, JoinError>) -> T {
    match result.map_err(JoinError::try_into_panic) {
        Ok(value) => value,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(error)) => panic!("the runtime is shutting down: {error}"),
    }
}

/// Work that runs to its end when its caller is dropped, because it removes what it has made.
#[derive(Debug, Clone, Default)]
pub struct CompletedWork(TaskTracker);

impl CompletedWork {
    /// Runs `work`; the caller waits for it.
    ///
    /// # Panics
    /// When `work` panics, or the runtime is gone.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        ended(self.0.spawn(work).await)
    }

    /// Waits until all work has ended, at most `patience`.
    pub async fn wait(&self, patience: Duration) {
        self.0.close();
        let _ = tokio::time::timeout(patience, self.0.wait()).await;
    }
}

/// The tasks of one process's control plane.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    aborted: CancellationToken,
}

impl Tasks {
    /// Runs `work` in the background until it ends or [`Tasks::stop`] gives up on it.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let aborted = self.aborted.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = aborted.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Cancelled when the process is asked to end: loops end, nothing new is begun.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Asks every task to end and waits for that, at most `drain`; those that are left end where they are. Returns how
    /// many.
    pub async fn stop(&self, drain: Duration) -> usize {
        self.stopping.cancel();
        self.tracker.close();
        let _ = tokio::time::timeout(drain, self.tracker.wait()).await;
        let left = self.tracker.len();
        self.abort().await;
        left
    }

    /// Ends every task where it is.
    pub async fn abort(&self) {
        self.aborted.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_does_not_end_is_ended() {
        let tasks = Tasks::default();
        tasks.spawn(std::future::pending());
        let stopping = tasks.stopping().clone();
        tasks.spawn(async move { stopping.cancelled().await });
        assert_eq!(tasks.stop(Duration::from_millis(20)).await, 1);
        assert_eq!(tasks.stop(Duration::ZERO).await, 0);
    }
}
