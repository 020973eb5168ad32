//! Open databases: at most one pool per (tenant, generation). The least recently used pool is closed first, and each
//! key has at most one open in flight.
//!
//! Called by `router.rs` with a [`Grant`], which is required; calls the engine. A pool is closed by its own task when
//! its last user is gone. It is never closed inside a request or the cache's eviction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use catalog::{Catalog, FleetId, Generation, ServerId, TenantId, TenantRecord, servers};
use moka::future::Cache;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use tenant_engine::{AnswerBudget, DatabaseServer, Engine, EngineKind, Pool};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::authorize::Grant;
use crate::connection_shares::ConnectionShares;
use crate::error::{Error, ErrorKind, Result};
use crate::gate;
use crate::metrics::RouterMetrics;
use crate::single_flight_cache::{ChangeCounter, InvalidationSource, SingleFlightCache};

/// How many servers are cached; a fleet has few.
const SERVERS_MAX: u64 = 1_000;

/// How long a server's record is used. Its location never changes, but its password may.
const SERVER_AGE_MAX: Duration = Duration::from_secs(60);

/// The tenant and generation that a pool serves.
pub(crate) type PoolKey = (TenantId, Generation);

/// One tenant's open database. It is closed when its last user releases it.
pub(crate) struct OpenPool {
    key: PoolKey,
    server: DatabaseServer,
    pool: Pool,
    shared: Arc<PoolRegistry>,
}

impl OpenPool {
    pub(crate) fn engine_pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn pool_key(&self) -> PoolKey {
        self.key
    }
}

impl Drop for OpenPool {
    fn drop(&mut self) {
        self.shared.retire_pool(self.key, self.pool.clone());
    }
}

/// State that outlives cache entries: the users of each pool, and the closing of pools.
struct PoolRegistry {
    held: Mutex<BTreeMap<PoolKey, Weak<OpenPool>>>,
    closing: TaskTracker,
    runtime: Handle,
    meters: Arc<RouterMetrics>,
}

impl PoolRegistry {
    fn lock_held(&self) -> MutexGuard<'_, BTreeMap<PoolKey, Weak<OpenPool>>> {
        // The map is consistent after every statement, so another thread's panic cannot have damaged it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retire_pool(&self, key: PoolKey, pool: Pool) {
        let mut held = self.lock_held();
        // A new pool may have replaced a discarded one.
        if held.get(&key).is_some_and(|pool| pool.strong_count() == 0) {
            held.remove(&key);
        }
        drop(held);
        self.meters.pools_closed.increment(1);
        self.closing.spawn_on(async move { pool.close().await }, &self.runtime);
    }
}

/// The open databases of this process.
pub(crate) struct PoolCache {
    open: Cache<PoolKey, Arc<OpenPool>>,
    shared: Arc<PoolRegistry>,
    engines: HashMap<EngineKind, Arc<dyn Engine>>,
    servers: SingleFlightCache<ServerId, Option<DatabaseServer>>,
    slices: Arc<ConnectionShares>,
    catalog: Catalog,
    fleet: FleetId,
    answers: AnswerBudget,
}

/// Limits of the pool cache.
pub(crate) struct PoolLimits {
    /// Number of open pools without users.
    pub(crate) pools_max: u64,
    /// Memory for answers that are being read or sent.
    pub(crate) answers: AnswerBudget,
}

impl PoolCache {
    /// Keeps at most `sizes.pools_max` unused pools. Must run inside a Tokio runtime.
    pub(crate) fn new(
        catalog: Catalog,
        engines: HashMap<EngineKind, Arc<dyn Engine>>,
        sizes: PoolLimits,
        counter: &ChangeCounter,
        meters: Arc<RouterMetrics>,
    ) -> Self {
        let evicted = meters.dropped_evicted.clone();
        let open = Cache::builder()
            .max_capacity(sizes.pools_max)
            // With the default policy, a frequently used tenant could keep a returning tenant out of the cache.
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evicted.increment(1);
                }
            })
            .build();
        let shared =
            PoolRegistry { held: Mutex::default(), closing: TaskTracker::new(), runtime: Handle::current(), meters };
        Self {
            open,
            shared: Arc::new(shared),
            engines,
            servers: SingleFlightCache::new(counter, SERVERS_MAX, SERVER_AGE_MAX, InvalidationSource::ByTimeAlone),
            slices: Arc::new(ConnectionShares::new(catalog.clone())),
            fleet: catalog.fleet_id(),
            catalog,
            answers: sizes.answers,
        }
    }

    /// The pool of the granted tenant, opened if necessary.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when the database is not the one that the record names.
    pub(crate) async fn pool_for(&self, grant: &Grant) -> Result<Arc<OpenPool>> {
        let record = grant.record();
        let key = (record.id, record.generation);
        if let Some(pool) = self.open.get(&key).await {
            return Ok(pool);
        }
        let pool = self.open.try_get_with(key, self.obtain_pool(key, record)).await;
        pool.map_err(|error| Error::share_error(&error))
    }

    /// The size of a pool's database in bytes, which the engine asks its server for. `None` when it cannot be measured.
    pub(crate) async fn database_size(&self, record: &TenantRecord, pool: &OpenPool) -> Option<u64> {
        let engine = self.engines.get(&pool.server.engine_kind())?;
        let placement = pool.server.parse_placement(record.placement.as_deref()?).ok()?;
        let size = engine.database_size(&placement).await;
        size.inspect_err(|error| tracing::warn!(tenant = %record.id, %error, "a database could not be measured")).ok()
    }

    /// Drops a pool whose database is not the expected one. Its other users notice this at their next statement.
    pub(crate) async fn discard_pool(&self, pool: &Arc<OpenPool>) {
        let key = pool.pool_key();
        let known =
            self.shared.lock_held().get(&key).is_some_and(|held| std::ptr::eq(held.as_ptr(), Arc::as_ptr(pool)));
        if known {
            self.shared.lock_held().remove(&key);
            self.open.invalidate(&key).await;
            self.shared.meters.dropped_fenced.increment(1);
        }
    }

    /// The tenants of this set that have a pool.
    pub(crate) fn tenants_among(&self, tenants: &HashSet<TenantId>) -> Vec<TenantId> {
        self.shared.lock_held().keys().map(|key| key.0).filter(|id| tenants.contains(id)).collect()
    }

    /// Drops the tenant's pools with a generation older than `current`.
    pub(crate) async fn drop_older_pools(&self, tenant: TenantId, current: Generation) {
        let from = (tenant, Generation(i64::MIN));
        let old: Vec<_> = self.shared.lock_held().range(from..(tenant, current)).map(|(key, _)| *key).collect();
        for key in old {
            if let Some(pool) = self.open.remove(&key).await {
                // The cache itself drops pools later, and a removed database would keep its disk space until then.
                pool.engine_pool().close_idle();
                self.shared.meters.dropped_outdated.increment(1);
            }
        }
    }

    /// Forgets the records of servers; open pools stay.
    pub(crate) fn forget_servers(&self) {
        self.servers.forget_all();
    }

    /// Drops every pool on a PostgreSQL server. Some have moved, and this does not check which.
    pub(crate) async fn discard_postgres_pools(&self) {
        let held: Vec<_> = self.shared.lock_held().values().filter_map(Weak::upgrade).collect();
        for pool in held.iter().filter(|pool| matches!(pool.server, DatabaseServer::Postgres(_))) {
            self.discard_pool(pool).await;
        }
    }

    /// Reads every server again, and drops the pools of servers that have moved.
    ///
    /// # Errors
    /// `CatalogUnavailable` when the catalog cannot be read.
    pub(crate) async fn discard_moved_pools(&self) -> Result<()> {
        let held: Vec<_> = self.shared.lock_held().values().filter_map(Weak::upgrade).collect();
        for pool in held.iter().filter(|pool| matches!(pool.server, DatabaseServer::Postgres(_))) {
            if !self.is_server_unchanged(pool).await? {
                self.discard_pool(pool).await;
            }
        }
        Ok(())
    }

    async fn is_server_unchanged(&self, pool: &OpenPool) -> Result<bool> {
        let mut tx = self.catalog.read().await?;
        let Some(tenant) = catalog::tenants::get(&mut tx, pool.key.0).await? else { return Ok(true) };
        let Some(server) = servers::get(&mut tx, tenant.server_id).await? else { return Ok(true) };
        Ok(servers::reach_server(&mut tx, &server).await? == pool.server)
    }

    /// This process's connection shares, for the task that renews them.
    pub(crate) fn connection_shares(&self) -> Arc<ConnectionShares> {
        Arc::clone(&self.slices)
    }

    /// Drops every pool and waits until each is closed.
    pub(crate) async fn close_all(&self) {
        self.open.invalidate_all();
        self.open.run_pending_tasks().await;
        self.shared.closing.close();
        self.shared.closing.wait().await;
    }

    /// The pool that is still in use although the cache dropped it, or a new one.
    async fn obtain_pool(&self, key: PoolKey, record: &TenantRecord) -> Result<Arc<OpenPool>> {
        let held = self.shared.lock_held().get(&key).and_then(Weak::upgrade);
        if let Some(pool) = held {
            return Ok(pool);
        }
        let (server, pool) = self.open_engine_pool(record).await?;
        let pool = Arc::new(OpenPool { key, server, pool, shared: Arc::clone(&self.shared) });
        self.shared.lock_held().insert(key, Arc::downgrade(&pool));
        self.shared.meters.pools_opened.increment(1);
        self.drop_older_pools(key.0, key.1).await;
        Ok(pool)
    }

    async fn open_engine_pool(&self, record: &TenantRecord) -> Result<(DatabaseServer, Pool)> {
        let server = self.servers.get_or_look_up(record.server_id, || self.read_server(record.server_id)).await?;
        // A record that serves has a server and a placement. Without them, an operation is changing the tenant now.
        let (Some(server), Some(reference)) = (server, record.placement.as_deref()) else {
            return Err(ErrorKind::Fenced.into());
        };
        let placement = server
            .parse_placement(reference)
            .map_err(|error| Error::new(ErrorKind::Misconfigured).with_source(error))?;
        let engine = self.engines.get(&server.engine_kind()).ok_or(ErrorKind::Misconfigured)?;
        self.slices.register_server(record.server_id, &server, engine);
        let pool = engine.open_pool(&placement, &gate::expected_identity(record, self.fleet)).await?;
        Ok((server, pool.with_answer_share(self.answers.new_share())))
    }

    async fn read_server(&self, id: ServerId) -> Result<Option<DatabaseServer>> {
        let mut tx = self.catalog.read().await?;
        match servers::get(&mut tx, id).await? {
            Some(server) => Ok(Some(servers::reach_server(&mut tx, &server).await?)),
            None => Ok(None),
        }
    }
}
