//! Decides which process runs a periodic task: of all processes on one catalog, only one.
//!
//! The first run takes the lease, and every later run renews it, so the task stays with its process. The lease lasts
//! longer than two periods, and expires if its process has died. A long run renews the lease meanwhile, and stops if it
//! was lost. Tasks are idempotent, so even two at once would do no harm.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::operation::StepContext;

/// How often a run renews its lease: several times within the shortest lease.
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// One task in one process.
#[derive(Debug)]
pub(super) struct TaskLease {
    pub(super) context: Arc<StepContext>,
    pub(super) name: &'static str,
    pub(super) period: Duration,
    owner: String,
}

impl TaskLease {
    pub(super) fn new(context: Arc<StepContext>, owner: &str, name: &'static str, period: Duration) -> Self {
        Self { context, name, period, owner: owner.to_owned() }
    }

    /// Runs `work` if this process holds or gets the lease.
    pub(super) async fn run_if_owner(&self, work: impl Future<Output = Result<()>>) -> Result<()> {
        if !self.take_lease().await? {
            return Ok(());
        }
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
            match self.take_lease().await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(task = self.name, "another process has taken this task over");
                    return Ok(());
                }
                // The lease outlasts one failed renewal. If the catalog is unavailable, the work itself will fail.
                Err(error) => tracing::warn!(task = self.name, %error, "the lease of a task was not renewed"),
            }
        }
    }

    /// Releases the lease, so that another process can run the task at once. If that fails, the others wait until the
    /// lease expires.
    pub(super) async fn release_lease(&self) {
        let told = async {
            let mut tx = self.context.catalog.write().await?;
            catalog::leases::release_task(&mut tx, self.name, &self.owner).await?;
            tx.commit().await
        };
        if let Err(error) = told.await {
            tracing::debug!(task = self.name, %error, "the lease of a task was not given back");
        }
    }

    async fn take_lease(&self) -> Result<bool> {
        let mut tx = self.context.catalog.write().await?;
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
    use crate::config::{Config, ProcessRole};

    #[tokio::test]
    async fn one_process_runs_a_task_until_it_dies_or_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path().canonicalize().unwrap(), ProcessRole::Embedded);
        let now = Arc::new(AtomicI64::new(1_000_000));
        let reads = Arc::clone(&now);
        let clock: catalog::CatalogClock = Arc::new(move || reads.load(Ordering::SeqCst));
        crate::app::App::init_with(&config, Arc::clone(&clock)).await.unwrap();
        let app = crate::app::App::open_with(config, clock).await.unwrap();
        let turn = |owner| TaskLease::new(Arc::clone(&app.context), owner, "expire", Duration::from_secs(300));
        let (a, b) = (turn("a"), turn("b"));
        let runs = async |turn: &TaskLease| {
            let ran = std::cell::Cell::new(false);
            let work = async {
                ran.set(true);
                Ok(())
            };
            turn.run_if_owner(work).await.unwrap();
            ran.get()
        };
        assert_eq!((runs(&a).await, runs(&b).await, runs(&a).await), (true, false, true));
        now.fetch_add(599_999, Ordering::SeqCst);
        assert!(!runs(&b).await, "a may only be late");
        now.fetch_add(1, Ordering::SeqCst);
        assert_eq!((runs(&b).await, runs(&a).await), (true, false), "a has died");
        b.release_lease().await;
        assert!(runs(&a).await);
        app.shut_down(Duration::from_secs(1)).await;
    }
}
