//! Follows the catalog's change feed and makes the caches forget. Safety does not depend on it: it bounds how long
//! something old is believed, and frees what nobody will ask for again.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use catalog::changes::{self, Changes};
use catalog::{Catalog, TenantId, tenants};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::membership::Roles;
use crate::memo::Epoch;
use crate::metrics::Meters;
use crate::pools::Pools;
use crate::principal::Principals;
use crate::resolve::Directory;

/// How long one wait for news may last; what other processes write is heard of sooner.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// How long to rest after the feed could not be read.
const REST: Duration = Duration::from_millis(500);

/// Everything that is remembered.
pub(crate) struct Caches {
    pub(crate) epoch: Epoch,
    pub(crate) principals: Principals,
    pub(crate) roles: Roles,
    pub(crate) directory: Directory,
    pub(crate) pools: Pools,
    pub(crate) meters: Arc<Meters>,
    /// Woken after every change was taken in.
    pub(crate) news: Notify,
    /// Up to where the feed was taken in.
    pub(crate) seq: AtomicI64,
    /// Held while taking in: one at a time, in order.
    pub(crate) taking_in: Mutex<()>,
    /// How many of this process's own commits were taken in.
    pub(crate) own: AtomicU64,
    /// The same for those. Never held while the catalog is asked.
    pub(crate) obeying: Mutex<()>,
}

/// Takes changes in until told to stop.
pub(crate) async fn follow(caches: Arc<Caches>, catalog: Catalog, stop: CancellationToken) {
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        let seq = caches.seq.load(Ordering::Acquire);
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = changes::wait(&catalog, seq, WAIT_MAX) => heard,
        };
        let taken_in = match heard {
            Ok(()) => caches.catch_up(&catalog).await,
            Err(error) => Err(error.into()),
        };
        match taken_in {
            Ok(()) => failures = 0,
            Err(error) => {
                failures = failures.saturating_add(1);
                caches.meters.feed_failures.increment(1);
                // Once per outage: the counter tells how long it lasts.
                if failures == 1 {
                    let source = std::error::Error::source(&error).map(tracing::field::display);
                    tracing::warn!(%error, source, "the change feed cannot be read; trying again");
                }
                tokio::time::sleep(REST).await;
            }
        }
    }
}

impl Caches {
    /// Forgets what this process itself changed, so that it obeys itself at once. Never asks the catalog: it may be away,
    /// and whoever did not change is served meanwhile. Costs nothing when there is nothing new.
    pub(crate) async fn catch_up_with_ourselves(&self, catalog: &Catalog) {
        if self.obeys(catalog) {
            return;
        }
        let _turn = self.obeying.lock().await;
        // Whoever had the turn before may have done it.
        if self.obeys(catalog) {
            return;
        }
        let news = changes::own_since(catalog, self.own.load(Ordering::Acquire));
        match news.tenants {
            Some(ids) => self.forget(&ids.into_iter().collect()).await,
            None => self.forget_all(),
        }
        if news.servers {
            self.pools.leave_servers().await;
        }
        // Last: who sees the new number must find everything forgotten.
        self.own.store(news.seen, Ordering::Release);
        self.news.notify_waiters();
    }

    /// Forgets everything that changed since the last time.
    pub(crate) async fn catch_up(&self, catalog: &Catalog) -> Result<()> {
        let _turn = self.taking_in.lock().await;
        self.take_in(catalog).await
    }

    fn obeys(&self, catalog: &Catalog) -> bool {
        changes::own(catalog) <= self.own.load(Ordering::Acquire)
    }

    async fn take_in(&self, catalog: &Catalog) -> Result<()> {
        let seq = self.seq.load(Ordering::Acquire);
        let news = changes::since(&mut catalog.read().await?, seq).await?;
        let at = match news {
            Changes::Tenants { seq: at, ids } if ids.is_empty() => at,
            Changes::Tenants { seq: at, ids } => {
                let changed = ids.into_iter().collect();
                self.forget(&changed).await;
                self.drop_outdated(catalog, &changed).await?;
                at
            }
            Changes::Everything { seq: at } => {
                self.forget_all();
                self.pools.leave_old_places().await?;
                at
            }
        };
        // Last: who sees the new number must find everything forgotten.
        self.seq.store(at, Ordering::Release);
        self.news.notify_waiters();
        Ok(())
    }

    async fn forget(&self, changed: &HashSet<TenantId>) {
        self.epoch.advance(changed);
        self.directory.forget(changed).await;
    }

    /// Frees the pools that nobody will ask for again.
    async fn drop_outdated(&self, catalog: &Catalog, changed: &HashSet<TenantId>) -> Result<()> {
        let open = self.pools.tenants_among(changed);
        if open.is_empty() {
            return Ok(());
        }
        for record in tenants::get_many(&mut catalog.read().await?, &open).await? {
            self.pools.drop_older(record.id, record.generation).await;
        }
        Ok(())
    }

    fn forget_all(&self) {
        self.epoch.advance_all();
        self.directory.forget_all();
        self.principals.forget_all();
        self.roles.forget_all();
        self.pools.forget_servers();
    }
}
