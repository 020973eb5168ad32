//! Follows the catalog's change feed and invalidates caches. Safety does not depend on it. It limits how long outdated
//! entries stay, and frees entries that no request will use again.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use catalog::changes::{self, FeedChanges};
use catalog::{Catalog, TenantId, tenants};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::membership::RoleCache;
use crate::metrics::RouterMetrics;
use crate::pools::PoolCache;
use crate::principal::PrincipalCache;
use crate::resolve::TenantDirectory;
use crate::single_flight_cache::ChangeCounter;

/// The longest single wait for a change. Other processes' changes are usually seen earlier.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The pause after a failed read of the feed.
const FEED_PAUSE: Duration = Duration::from_millis(500);

/// Everything that the router caches.
pub(crate) struct RouterCaches {
    pub(crate) change_counter: ChangeCounter,
    pub(crate) principals: PrincipalCache,
    /// The callers with tokens of issuers, if such tokens are accepted. Apart from the others, because no change of the
    /// catalog ends them: only time does.
    pub(crate) token_principals: Option<PrincipalCache>,
    pub(crate) roles: RoleCache,
    pub(crate) directory: TenantDirectory,
    pub(crate) pools: PoolCache,
    pub(crate) meters: Arc<RouterMetrics>,
    /// Notified after every applied change.
    pub(crate) news: Notify,
    /// The position in the feed up to which changes are applied.
    pub(crate) seq: AtomicI64,
    /// Held while changes are applied: one reader at a time, in order.
    pub(crate) feed_turn: Mutex<()>,
    /// How many of this process's own commits are applied.
    pub(crate) own: AtomicU64,
    /// Held while own commits are applied. Never held while the catalog is read.
    pub(crate) own_turn: Mutex<()>,
}

/// Applies changes until told to stop.
pub(crate) async fn follow_feed(caches: Arc<RouterCaches>, catalog: Catalog, stop: CancellationToken) {
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        let seq = caches.seq.load(Ordering::Acquire);
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = changes::wait_for_change(&catalog, seq, WAIT_MAX) => heard,
        };
        let caught_up = match heard {
            Ok(()) => caches.catch_up(&catalog).await,
            Err(error) => Err(error.into()),
        };
        match caught_up {
            Ok(()) => failures = 0,
            Err(error) => {
                failures = failures.saturating_add(1);
                caches.meters.feed_failures.increment(1);
                // Logged once per outage; the counter shows its length.
                if failures == 1 {
                    let source = std::error::Error::source(&error).map(tracing::field::display);
                    tracing::warn!(%error, source, "the change feed cannot be read; trying again");
                }
                tokio::time::sleep(FEED_PAUSE).await;
            }
        }
    }
}

impl RouterCaches {
    /// Invalidates the caches for this process's own changes, so that they apply at once. Never reads the catalog,
    /// which may be unavailable; unchanged tenants are served meanwhile. Costs nothing without new changes.
    pub(crate) async fn catch_up_locally(&self, catalog: &Catalog) {
        if self.is_caught_up_locally(catalog) {
            return;
        }
        let _turn = self.own_turn.lock().await;
        // The previous holder of the lock may have applied them already.
        if self.is_caught_up_locally(catalog) {
            return;
        }
        let news = changes::local_changes_since(catalog, self.own.load(Ordering::Acquire));
        match news.tenants {
            Some(ids) => self.forget_tenants(&ids.into_iter().collect()).await,
            None => self.forget_all(),
        }
        if news.servers {
            self.pools.discard_postgres_pools().await;
        }
        // Stored last: a reader of the new number must find the caches invalidated.
        self.own.store(news.seen, Ordering::Release);
        self.news.notify_waiters();
    }

    /// Invalidates the caches for all changes since the last call.
    pub(crate) async fn catch_up(&self, catalog: &Catalog) -> Result<()> {
        let _turn = self.feed_turn.lock().await;
        self.apply_changes(catalog).await
    }

    fn is_caught_up_locally(&self, catalog: &Catalog) -> bool {
        changes::local_commit_count(catalog) <= self.own.load(Ordering::Acquire)
    }

    async fn apply_changes(&self, catalog: &Catalog) -> Result<()> {
        let began = Instant::now();
        let seq = self.seq.load(Ordering::Acquire);
        let news = changes::changes_since(&mut catalog.read().await?, seq).await?;
        let at = match news {
            FeedChanges::Tenants { seq: at, ids } if ids.is_empty() => at,
            FeedChanges::Tenants { seq: at, ids } => {
                let changed = ids.into_iter().collect();
                self.forget_tenants(&changed).await;
                self.drop_outdated(catalog, &changed).await?;
                at
            }
            FeedChanges::Everything { seq: at } => {
                self.forget_all();
                self.pools.discard_moved_pools().await?;
                at
            }
        };
        // Stored last: a reader of the new number must find the caches invalidated.
        self.seq.store(at, Ordering::Release);
        self.change_counter.confirm_reading(began);
        self.news.notify_waiters();
        Ok(())
    }

    async fn forget_tenants(&self, changed: &HashSet<TenantId>) {
        self.change_counter.count_change(changed);
        self.directory.forget_tenants(changed).await;
    }

    /// Drops the pools that no request will use again.
    async fn drop_outdated(&self, catalog: &Catalog, changed: &HashSet<TenantId>) -> Result<()> {
        let open = self.pools.tenants_among(changed);
        if open.is_empty() {
            return Ok(());
        }
        for record in tenants::get_many(&mut catalog.read().await?, &open).await? {
            self.pools.drop_older_pools(record.id, record.generation).await;
        }
        Ok(())
    }

    fn forget_all(&self) {
        self.change_counter.count_reset();
        self.directory.forget_all();
        self.principals.forget_all();
        self.token_principals.iter().for_each(PrincipalCache::forget_all);
        self.roles.forget_all();
        self.pools.forget_servers();
    }
}
