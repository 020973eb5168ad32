//! Periodic tasks of a serving process: idempotent, without input, never retrying inside. One line each in [`start`].
//!
//! Of several processes on one catalog, one runs a task: the one that holds its lease (`turn.rs`).

mod expire;
mod reconcile;
mod trim;
mod turn;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::operations::Fleet;
use crate::tasks::Tasks;
use turn::Turn;

/// Starts them all; the periods are how late each may notice, and twice that when the process that ran it has died.
pub fn start(fleet: &Arc<Fleet>, tasks: &Tasks) {
    let owner = uuid::Uuid::now_v7().simple().to_string();
    let turn = |name, seconds| Turn::new(Arc::clone(fleet), &owner, name, Duration::from_secs(seconds));
    every(tasks, turn("reconcile", 20), |fleet| async move { reconcile::run(&fleet).await });
    every(tasks, turn("expire", 300), |fleet| async move { expire::run(&fleet).await });
    every(tasks, turn("trim", 600), |fleet| async move { trim::run(&fleet).await });
}

fn every<F>(tasks: &Tasks, turn: Turn, run: impl Fn(Arc<Fleet>) -> F + Send + 'static)
where
    F: Future<Output = Result<()>> + Send,
{
    let stopping = tasks.stopping().clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return turn.give_back().await,
                () = tokio::time::sleep(turn.period) => {}
            }
            if let Err(error) = turn.run(run(Arc::clone(&turn.fleet))).await {
                tracing::warn!(task = turn.name, code = %error.code, %error, "a periodic task failed; it runs again");
            }
        }
    });
}
