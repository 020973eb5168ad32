//! Periodic tasks of a serving process: idempotent, without input, never retrying inside. One line each in [`start`].

mod expire;
mod reconcile;
mod trim;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::operations::Fleet;
use crate::tasks::Tasks;

/// Starts them all; the periods are how late each may notice.
pub fn start(fleet: &Arc<Fleet>, tasks: &Tasks) {
    every(tasks, fleet, "reconcile", Duration::from_secs(20), |fleet| async move { reconcile::run(&fleet).await });
    every(tasks, fleet, "expire", Duration::from_secs(300), |fleet| async move { expire::run(&fleet).await });
    every(tasks, fleet, "trim", Duration::from_secs(600), |fleet| async move { trim::run(&fleet).await });
}

fn every<F>(
    tasks: &Tasks,
    fleet: &Arc<Fleet>,
    name: &'static str,
    period: Duration,
    run: impl Fn(Arc<Fleet>) -> F + Send + 'static,
) where
    F: Future<Output = Result<()>> + Send,
{
    let (fleet, stopping) = (Arc::clone(fleet), tasks.stopping().clone());
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(period) => {}
            }
            if let Err(error) = run(Arc::clone(&fleet)).await {
                tracing::warn!(task = name, code = %error.code, %error, "a periodic task failed; it runs again");
            }
        }
    });
}
