//! Whose turn it is: of all processes on one catalog, one runs a periodic task.
//!
//! The lease is taken at the first run and renewed by every later one, so the task stays where it is; it outlives two
//! periods, and runs out when its process died. A long run renews it meanwhile and ends where it is when it was lost:
//! tasks are idempotent, so even two at once would do no harm.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::operations::Fleet;

/// How often a run renews its lease: a few times within the shortest one.
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// One task in one process.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) fleet: Arc<Fleet>,
    pub(super) name: &'static str,
    pub(super) period: Duration,
    owner: String,
}

impl Turn {
    pub(super) fn new(fleet: Arc<Fleet>, owner: &str, name: &'static str, period: Duration) -> Self {
        Self { fleet, name, period, owner: owner.to_owned() }
    }

    /// Runs `work` if it is this process's turn.
    pub(super) async fn run(&self, work: impl Future<Output = Result<()>>) -> Result<()> {
        if !self.take().await? {
            return Ok(());
        }
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
            match self.take().await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(task = self.name, "another process has taken this task over");
                    return Ok(());
                }
                // The lease lasts longer than one renewal that failed; the work itself will tell.
                Err(error) => tracing::warn!(task = self.name, %error, "the lease of a task was not renewed"),
            }
        }
    }

    /// Lets another process run it at once. One that cannot be told waits for the lease to run out.
    pub(super) async fn give_back(&self) {
        let told = async {
            let mut tx = self.fleet.catalog.write().await?;
            catalog::leases::release_task(&mut tx, self.name, &self.owner).await?;
            tx.commit().await
        };
        if let Err(error) = told.await {
            tracing::debug!(task = self.name, %error, "the lease of a task was not given back");
        }
    }

    async fn take(&self) -> Result<bool> {
        let mut tx = self.fleet.catalog.write().await?;
        let lease = i64::try_from(self.period.as_millis()).unwrap_or(i64::MAX / 4).saturating_mul(2);
        let until = tx.now() + lease;
        let mine = catalog::leases::take_task(&mut tx, self.name, &self.owner, until).await?;
        if mine {
            tx.commit().await?;
        }
        Ok(mine)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::config::{Config, Role};

    #[tokio::test]
    async fn one_process_runs_a_task_until_it_dies_or_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path().canonicalize().unwrap(), Role::Embedded);
        let now = Arc::new(AtomicI64::new(1_000_000));
        let reads = Arc::clone(&now);
        let clock: catalog::Clock = Arc::new(move || reads.load(Ordering::SeqCst));
        crate::app::App::init_with(&config, Arc::clone(&clock)).await.unwrap();
        let app = crate::app::App::open_with(config, clock).await.unwrap();
        let turn = |owner| Turn::new(Arc::clone(&app.fleet), owner, "expire", Duration::from_secs(300));
        let (a, b) = (turn("a"), turn("b"));
        let runs = async |turn: &Turn| {
            let ran = std::cell::Cell::new(false);
            let work = async {
                ran.set(true);
                Ok(())
            };
            turn.run(work).await.unwrap();
            ran.get()
        };
        assert_eq!((runs(&a).await, runs(&b).await, runs(&a).await), (true, false, true));
        now.fetch_add(599_999, Ordering::SeqCst);
        assert!(!runs(&b).await, "a may only be late");
        now.fetch_add(1, Ordering::SeqCst);
        assert_eq!((runs(&b).await, runs(&a).await), (true, false), "a has died");
        b.give_back().await;
        assert!(runs(&a).await);
        app.shutdown(Duration::from_secs(1)).await;
    }
}
