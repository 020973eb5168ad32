//! How many processes share the limits of the fleet: each renews a lease in the catalog.
//!
//! A background task renews the lease and counts the others; requests only read the number. A fleet without plans
//! writes nothing. The lease of a dead process expires.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use catalog::{Catalog, leases, plans};
use tokio_util::sync::CancellationToken;

use crate::error::Result;

/// A dead process counts for this time.
const LEASE_MS: i64 = 15_000;
/// A third of the lease time: two renewals may fail.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// The longest time that giving up the lease may delay the end of a process.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// The number of live processes, as this process last read it.
#[derive(Debug)]
pub(crate) struct ProcessCount {
    catalog: Catalog,
    owner: String,
    live: AtomicU64,
    /// True when the lease was given up: it is not renewed then.
    is_over: AtomicBool,
}

impl ProcessCount {
    pub(crate) fn new(catalog: Catalog) -> Self {
        let owner = catalog::OperationId::generate().uuid().simple().to_string();
        Self { catalog, owner, live: AtomicU64::new(1), is_over: AtomicBool::new(false) }
    }

    /// At least one: this process. One load.
    pub(crate) fn live_processes(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Renews the lease until told to stop.
    pub(crate) async fn keep_counting(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
            if let Err(error) = self.renew_lease().await {
                // The number is kept: without the catalog, no other process begins either.
                tracing::warn!(%error, "the number of processes that share the limits is not known anew");
            }
        }
    }

    /// Renews the lease, if the fleet has plans, and counts the live processes.
    pub(crate) async fn renew_lease(&self) -> Result<()> {
        if self.is_over.load(Ordering::Acquire) {
            return Ok(());
        }
        if !plans::any_plan(&mut self.catalog.read().await?).await? {
            self.live.store(1, Ordering::Relaxed);
            return Ok(());
        }
        let mut tx = self.catalog.write().await?;
        let until = tx.now() + LEASE_MS;
        leases::renew_process(&mut tx, &self.owner, until).await?;
        let live = leases::live_processes(&mut tx, &self.owner).await?;
        tx.commit().await?;
        self.live.store(live, Ordering::Relaxed);
        Ok(())
    }

    /// Counts the live processes without a renewal.
    pub(crate) async fn count_again(&self) -> Result<()> {
        let live = leases::live_processes(&mut self.catalog.read().await?, &self.owner).await?;
        self.live.store(live, Ordering::Relaxed);
        Ok(())
    }

    /// Gives up the lease. If that fails, it expires.
    pub(crate) async fn release_lease(&self) {
        self.is_over.store(true, Ordering::Release);
        let release = async {
            if plans::any_plan(&mut self.catalog.read().await?).await? {
                let mut tx = self.catalog.write().await?;
                leases::release_process(&mut tx, &self.owner).await?;
                tx.commit().await?;
            }
            Ok::<_, catalog::Error>(())
        };
        let _ = tokio::time::timeout(FAREWELL_MAX, release).await;
    }
}
