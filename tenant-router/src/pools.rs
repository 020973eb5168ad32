//! Open databases: at most one pool per (tenant, generation), the least used closed first, one open in flight per key.
//!
//! Called by `router.rs` with a [`Grant`], which is the only way in; calls the engine. A pool is closed when its last
//! user is gone, by a task of its own: never under a request, never inside the cache's eviction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use catalog::{Catalog, FleetId, Generation, ServerId, TenantId, TenantRecord, servers};
use moka::future::Cache;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use tenant_engine::{AnswerBudget, Engine, EngineKind, Pool, Server};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::authorize::Grant;
use crate::error::{Error, ErrorKind, Result};
use crate::gate;
use crate::memo::{Epoch, Memo};
use crate::metrics::Meters;
use crate::slices::Slices;

/// How many servers are remembered; a fleet has few.
const SERVERS_MAX: u64 = 1_000;

/// How long what is known of a server is used; its place never changes, its password may.
const SERVER_AGE_MAX: Duration = Duration::from_secs(60);

/// What a pool is for.
pub(crate) type PoolKey = (TenantId, Generation);

/// One tenant's open database; closed when the last one who holds it lets go.
pub(crate) struct OpenPool {
    key: PoolKey,
    server: Server,
    pool: Pool,
    shared: Arc<Shared>,
}

impl OpenPool {
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn key(&self) -> PoolKey {
        self.key
    }
}

impl Drop for OpenPool {
    fn drop(&mut self) {
        self.shared.retire(self.key, self.pool.clone());
    }
}

/// What outlives the cache: who still holds which pool, and who closes them.
struct Shared {
    held: Mutex<BTreeMap<PoolKey, Weak<OpenPool>>>,
    closing: TaskTracker,
    runtime: Handle,
    meters: Arc<Meters>,
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, BTreeMap<PoolKey, Weak<OpenPool>>> {
        // The map is whole after every statement, so a panic elsewhere does not spoil it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retire(&self, key: PoolKey, pool: Pool) {
        let mut held = self.held();
        // A new pool may have taken the place of a discarded one.
        if held.get(&key).is_some_and(|pool| pool.strong_count() == 0) {
            held.remove(&key);
        }
        drop(held);
        self.meters.pools_closed.increment(1);
        self.closing.spawn_on(async move { pool.close().await }, &self.runtime);
    }
}

/// The open databases of this process.
pub(crate) struct Pools {
    open: Cache<PoolKey, Arc<OpenPool>>,
    shared: Arc<Shared>,
    engines: HashMap<EngineKind, Arc<dyn Engine>>,
    servers: Memo<ServerId, Option<Server>>,
    slices: Arc<Slices>,
    catalog: Catalog,
    fleet: FleetId,
    answers: AnswerBudget,
}

/// What the pools may take.
pub(crate) struct Sizes {
    /// Open pools that nobody uses.
    pub(crate) pools_max: u64,
    /// Memory for answers.
    pub(crate) answers: AnswerBudget,
}

impl Pools {
    /// Keeps at most `sizes.pools_max` that nobody uses. Must run inside a Tokio runtime.
    pub(crate) fn new(
        catalog: Catalog,
        engines: HashMap<EngineKind, Arc<dyn Engine>>,
        sizes: Sizes,
        epoch: &Epoch,
        meters: Arc<Meters>,
    ) -> Self {
        let evicted = meters.dropped_evicted.clone();
        let open = Cache::builder()
            .max_capacity(sizes.pools_max)
            // The default policy would rather refuse a tenant that comes back than let go of a frequent one.
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evicted.increment(1);
                }
            })
            .build();
        let shared = Shared { held: Mutex::default(), closing: TaskTracker::new(), runtime: Handle::current(), meters };
        Self {
            open,
            shared: Arc::new(shared),
            engines,
            servers: Memo::new(epoch, SERVERS_MAX, SERVER_AGE_MAX),
            slices: Arc::new(Slices::new(catalog.clone())),
            fleet: catalog.fleet_id(),
            catalog,
            answers: sizes.answers,
        }
    }

    /// The pool of the granted tenant, opened if need be.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when the database is not the one that the record promises.
    pub(crate) async fn of(&self, grant: &Grant) -> Result<Arc<OpenPool>> {
        let record = grant.record();
        let key = (record.id, record.generation);
        if let Some(pool) = self.open.get(&key).await {
            return Ok(pool);
        }
        let pool = self.open.try_get_with(key, self.obtain(key, record)).await;
        pool.map_err(|error| Error::shared(&error))
    }

    /// Lets go of a pool whose database is not the expected one; whoever still holds it finds that out too.
    pub(crate) async fn discard(&self, pool: &Arc<OpenPool>) {
        let key = pool.key();
        let known = self.shared.held().get(&key).is_some_and(|held| std::ptr::eq(held.as_ptr(), Arc::as_ptr(pool)));
        if known {
            self.shared.held().remove(&key);
            self.open.invalidate(&key).await;
            self.shared.meters.dropped_fenced.increment(1);
        }
    }

    /// Those of these tenants that have a pool.
    pub(crate) fn tenants_among(&self, tenants: &HashSet<TenantId>) -> Vec<TenantId> {
        self.shared.held().keys().map(|key| key.0).filter(|id| tenants.contains(id)).collect()
    }

    /// Lets go of the pools of a tenant that are older than `current`.
    pub(crate) async fn drop_older(&self, tenant: TenantId, current: Generation) {
        let from = (tenant, Generation(i64::MIN));
        let old: Vec<_> = self.shared.held().range(from..(tenant, current)).map(|(key, _)| *key).collect();
        for key in old {
            if let Some(pool) = self.open.remove(&key).await {
                // The cache itself lets go later, and a removed database would keep its room until then.
                pool.pool().close_idle();
                self.shared.meters.dropped_outdated.increment(1);
            }
        }
    }

    /// Forgets where servers are; open pools stay.
    pub(crate) fn forget_servers(&self) {
        self.servers.forget_all();
    }

    /// Lets go of every pool on a server of databases: some are somewhere else now, and which ones is not asked.
    pub(crate) async fn leave_servers(&self) {
        let held: Vec<_> = self.shared.held().values().filter_map(Weak::upgrade).collect();
        for pool in held.iter().filter(|pool| matches!(pool.server, Server::Postgres(_))) {
            self.discard(pool).await;
        }
    }

    /// Looks again at every server, and lets go of the pools of those that are somewhere else now.
    ///
    /// # Errors
    /// `CatalogUnavailable`.
    pub(crate) async fn leave_old_places(&self) -> Result<()> {
        let held: Vec<_> = self.shared.held().values().filter_map(Weak::upgrade).collect();
        for pool in held.iter().filter(|pool| matches!(pool.server, Server::Postgres(_))) {
            if !self.is_where_it_was(pool).await? {
                self.discard(pool).await;
            }
        }
        Ok(())
    }

    async fn is_where_it_was(&self, pool: &OpenPool) -> Result<bool> {
        let mut tx = self.catalog.read().await?;
        let Some(tenant) = catalog::tenants::get(&mut tx, pool.key.0).await? else { return Ok(true) };
        let Some(server) = servers::get(&mut tx, tenant.server_id).await? else { return Ok(true) };
        Ok(servers::reach(&mut tx, &server).await? == pool.server)
    }

    /// This process's shares of the servers' connections, for whoever keeps them.
    pub(crate) fn slices(&self) -> Arc<Slices> {
        Arc::clone(&self.slices)
    }

    /// Lets go of every pool and waits until each is closed.
    pub(crate) async fn close(&self) {
        self.open.invalidate_all();
        self.open.run_pending_tasks().await;
        self.shared.closing.close();
        self.shared.closing.wait().await;
    }

    /// The pool somebody still holds although the cache let go of it, or a new one.
    async fn obtain(&self, key: PoolKey, record: &TenantRecord) -> Result<Arc<OpenPool>> {
        let held = self.shared.held().get(&key).and_then(Weak::upgrade);
        if let Some(pool) = held {
            return Ok(pool);
        }
        let (server, pool) = self.connect(record).await?;
        let pool = Arc::new(OpenPool { key, server, pool, shared: Arc::clone(&self.shared) });
        self.shared.held().insert(key, Arc::downgrade(&pool));
        self.shared.meters.pools_opened.increment(1);
        self.drop_older(key.0, key.1).await;
        Ok(pool)
    }

    async fn connect(&self, record: &TenantRecord) -> Result<(Server, Pool)> {
        let server = self.servers.get_or(record.server_id, || self.read_server(record.server_id)).await?;
        // A record that serves has a server and a placement; without, it is being changed right now.
        let (Some(server), Some(reference)) = (server, record.placement.as_deref()) else {
            return Err(ErrorKind::Fenced.into());
        };
        let placement =
            server.placement(reference).map_err(|error| Error::new(ErrorKind::Misconfigured).with_source(error))?;
        let engine = self.engines.get(&server.engine()).ok_or(ErrorKind::Misconfigured)?;
        self.slices.meet(record.server_id, &server, engine);
        let pool = engine.connect(&placement, &gate::expected(record, self.fleet)).await?;
        Ok((server, pool.counting(self.answers.share())))
    }

    async fn read_server(&self, id: ServerId) -> Result<Option<Server>> {
        let mut tx = self.catalog.read().await?;
        match servers::get(&mut tx, id).await? {
            Some(server) => Ok(Some(servers::reach(&mut tx, &server).await?)),
            None => Ok(None),
        }
    }
}
