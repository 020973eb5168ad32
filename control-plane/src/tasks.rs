//! Spawns all tasks, so that each is counted, told to stop, and waited for.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs `work` on a thread that may block, and waits for it. Dropping the caller does not stop work that has begun.
///
/// # Panics
/// When `work` panics, or the runtime is gone.
pub async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    unwrap_joined(tokio::task::spawn_blocking(work).await)
}

fn unwrap_joined<T>(result: Result<T, JoinError>) -> T {
    match result.map_err(JoinError::try_into_panic) {
        Ok(value) => value,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(error)) => panic!("the runtime is shutting down: {error}"),
    }
}

/// Work that runs to its end even if its caller is dropped, because it removes what it has created.
#[derive(Debug, Clone, Default)]
pub struct CompletedWork(TaskTracker);

impl CompletedWork {
    /// Runs `work` and waits for it.
    ///
    /// # Panics
    /// When `work` panics, or the runtime is gone.
    pub async fn run_to_end<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        unwrap_joined(self.0.spawn(work).await)
    }

    /// Waits until all work has ended, at most `patience`.
    pub async fn wait_all_ended(&self, patience: Duration) {
        self.0.close();
        let _ = tokio::time::timeout(patience, self.0.wait()).await;
    }
}

/// The tasks of one process's control plane.
#[derive(Debug, Clone, Default)]
pub struct ProcessTasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    aborted: CancellationToken,
}

impl ProcessTasks {
    /// Runs `work` in the background until it ends or [`ProcessTasks::stop_tasks`] stops waiting for it.
    pub fn spawn_task(&self, work: impl Future<Output = ()> + Send + 'static) {
        let aborted = self.aborted.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = aborted.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Cancelled when the process is to end. Loops then end, and nothing new is started.
    #[must_use]
    pub fn stopping_token(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Asks every task to end, and waits at most `drain`. Remaining tasks are aborted. Returns how many there were.
    pub async fn stop_tasks(&self, drain: Duration) -> usize {
        self.stopping.cancel();
        self.tracker.close();
        let _ = tokio::time::timeout(drain, self.tracker.wait()).await;
        let left = self.tracker.len();
        self.abort_tasks().await;
        left
    }

    /// Aborts every task where it is.
    pub async fn abort_tasks(&self) {
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
        let tasks = ProcessTasks::default();
        tasks.spawn_task(std::future::pending());
        let stopping = tasks.stopping_token().clone();
        tasks.spawn_task(async move { stopping.cancelled().await });
        assert_eq!(tasks.stop_tasks(Duration::from_millis(20)).await, 1);
        assert_eq!(tasks.stop_tasks(Duration::ZERO).await, 0);
    }
}
