//! What steps reach: engines, backup store and the immutable parts of the catalog. Built once per process by `app.rs`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use catalog::{Catalog, Generation, ReleaseId, ServerId, ServerState, TenantRecord};
use tenant_engine::{
    DatabaseServer, DatabaseTemplate, Engine, EngineKind, FleetId, MigrationSet, MigrationSets, Placement,
};
use tokio::sync::Semaphore;

use super::fault_injection::FaultPoints;
use super::step::ClaimedStep;
use super::write_pauses::WritePauses;
use super::{CatalogEffect, ledger_name};
use crate::backup::BackupStore;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::tasks::CompletedWork;

/// Parsed migration sets in memory: the current one, the previous one, and a few that restores need.
const RELEASES_MAX: usize = 8;
/// Database images in memory or scratch at once, per core. Compression is bound to the processor.
const IMAGES_PER_CORE: usize = 2;
/// Upper limit of images on machines with many cores. Each image takes up to about 20 MB.
const IMAGES_MAX: usize = 16;

/// How long another process may use a server's old connection data after `server set` changed it.
const SERVER_AGE_MAX: Duration = Duration::from_secs(2);

/// Everything that a step can reach.
pub struct StepContext {
    /// The configuration of the process.
    pub config: Config,
    /// The catalog. Steps only read it; the recorder writes their effects.
    pub catalog: Catalog,
    /// The engines, one per kind of database.
    pub engines: HashMap<EngineKind, Arc<dyn Engine>>,
    /// The store that holds the backups.
    pub store: BackupStore,
    /// A permit for each database image that is held in memory or scratch.
    pub images: Arc<Semaphore>,
    /// Checks of backups that run on servers. Each drops its scratch database when it ends.
    pub proofs: CompletedWork,
    /// The absolute path of the directory for short-lived copies of databases.
    pub scratch: PathBuf,
    servers: Mutex<HashMap<ServerId, (DatabaseServer, Instant)>>,
    releases: Mutex<Vec<(ReleaseId, Arc<MigrationSets>)>>,
    pub(crate) pauses: WritePauses,
    halt: FaultPoints,
}

fn images_max() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores * IMAGES_PER_CORE).clamp(2, IMAGES_MAX)
}

impl std::fmt::Debug for StepContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepContext").field("catalog", &self.catalog).finish_non_exhaustive()
    }
}

impl StepContext {
    /// Builds the context. Called once per process.
    #[must_use]
    pub fn new(
        config: Config,
        catalog: Catalog,
        engines: HashMap<EngineKind, Arc<dyn Engine>>,
        store: BackupStore,
        scratch: PathBuf,
    ) -> Self {
        Self {
            config,
            catalog,
            engines,
            store,
            images: Arc::new(Semaphore::new(images_max())),
            proofs: CompletedWork::default(),
            scratch,
            servers: Mutex::default(),
            releases: Mutex::default(),
            pauses: WritePauses::default(),
            halt: FaultPoints::default(),
        }
    }

    /// The fleet that owns the databases.
    #[must_use]
    pub fn fleet_id(&self) -> FleetId {
        self.catalog.fleet_id()
    }

    /// The engine of this kind.
    ///
    /// # Errors
    /// `internal`: a newer program created the server, and this program has no such engine.
    pub fn engine_of_kind(&self, kind: EngineKind) -> Result<&Arc<dyn Engine>> {
        self.engines.get(&kind).ok_or_else(|| Error::internal(format!("this program has no engine for {kind}")))
    }

    /// A server's connection data for its engine, cached for two seconds.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn load_server(&self, id: ServerId) -> Result<DatabaseServer> {
        if let Some((known, read)) = lock_mutex(&self.servers).get(&id)
            && read.elapsed() < SERVER_AGE_MAX
        {
            return Ok(known.clone());
        }
        let mut tx = self.catalog.read().await?;
        let found = catalog::servers::get(&mut tx, id).await?;
        let found = found.ok_or_else(|| Error::internal(format!("{id} is not in the catalog")))?;
        let server = catalog::servers::reach_server(&mut tx, &found).await?;
        lock_mutex(&self.servers).insert(id, (server.clone(), Instant::now()));
        Ok(server)
    }

    /// One server of each engine that takes tenants. Without any server, the scratch directory of this process.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn one_of_each_engine(&self) -> Result<Vec<DatabaseServer>> {
        let mut tx = self.catalog.read().await?;
        let mut found: Vec<DatabaseServer> = Vec::new();
        for (server, _) in catalog::servers::list_servers(&mut tx).await? {
            let known = found.iter().any(|known| known.engine_kind() == server.engine);
            match server.engine {
                _ if known || server.state != ServerState::Active => {}
                EngineKind::Sqlite => found.push(DatabaseServer::new_sqlite(&self.scratch)),
                EngineKind::Postgres => found.push(catalog::servers::reach_server(&mut tx, &server).await?),
            }
        }
        if found.is_empty() {
            found.push(DatabaseServer::new_sqlite(&self.scratch));
        }
        Ok(found)
    }

    /// Forgets a cached server, because its connection string was changed. The next use reads it again.
    pub fn forget_server(&self, id: ServerId) {
        lock_mutex(&self.servers).remove(&id);
    }

    /// The engine of the tenant's server, and the placement of the tenant's database.
    ///
    /// # Errors
    /// `database_missing` when the tenant has no database.
    pub async fn current_database(&self, tenant: &TenantRecord) -> Result<(&Arc<dyn Engine>, Placement)> {
        let reference = tenant
            .placement
            .as_deref()
            .ok_or_else(|| Error::new(ErrorKind::DatabaseMissing, format!("{} has no database now", tenant.name)))?;
        self.resolve_placement(tenant.server_id, reference).await
    }

    /// An effect that records the database's size: `measured` bytes, or the size that the engine reports now. `None` if
    /// it cannot be read: no step fails because of it.
    pub(crate) async fn size_effect(&self, tenant: &TenantRecord, measured: Option<u64>) -> Option<CatalogEffect> {
        let bytes = match measured {
            Some(bytes) => bytes,
            None => {
                let (engine, at) = self.current_database(tenant).await.ok()?;
                engine.database_size(&at).await.ok()?
            }
        };
        Some(CatalogEffect::Size { tenant: tenant.id, size_bytes: i64::try_from(bytes).ok()? })
    }

    /// The engine of a server, and the placement there that the catalog calls `reference`.
    ///
    /// # Errors
    /// `internal` when `reference` is not a valid placement.
    pub async fn resolve_placement(&self, server: ServerId, reference: &str) -> Result<(&Arc<dyn Engine>, Placement)> {
        let server = self.load_server(server).await?;
        let at = server
            .parse_placement(reference)
            .map_err(|error| Error::internal("the catalog names an invalid placement").with_source(error))?;
        Ok((self.engine_of_kind(server.engine_kind())?, at))
    }

    /// A placement that was never used: the claim increased the tenant's placement number before this step began.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn fresh_placement(
        &self,
        step: &ClaimedStep,
        generation: Generation,
    ) -> Result<(&Arc<dyn Engine>, Placement)> {
        self.fresh_placement_on(step.tenant.server_id, step, generation).await
    }

    /// A placement that was never used, on a server other than the tenant's.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn fresh_placement_on(
        &self,
        server: ServerId,
        step: &ClaimedStep,
        generation: Generation,
    ) -> Result<(&Arc<dyn Engine>, Placement)> {
        self.require_live(step).await?;
        let server = self.load_server(server).await?;
        let at = server.fresh_placement(step.tenant.id, generation, step.tenant.placement_epoch);
        Ok((self.engine_of_kind(server.engine_kind())?, at))
    }

    /// Refuses to create a database after the step's lease has run out. The worker that took the step over has already
    /// looked for leftovers, so nobody would find this one. The catalog is asked only when the lease may have run out.
    async fn require_live(&self, step: &ClaimedStep) -> Result<()> {
        // A clock that went backwards does not show how long this worker slept, so the catalog is asked as well.
        if (step.now..step.lease_until).contains(&self.catalog.now()) {
            return Ok(());
        }
        let claim = (step.op.id, step.tenant.id, step.claim);
        match catalog::steps::check_live_claims(&mut self.catalog.read().await?, &[claim]).await?.as_slice() {
            [true] => Ok(()),
            _ => Err(Error::new(ErrorKind::Conflict, "another worker holds the step now")),
        }
    }

    /// The migration sets of a release.
    ///
    /// # Errors
    /// `not_found`, and those of the catalog.
    pub async fn release_sets(&self, id: ReleaseId) -> Result<Arc<MigrationSets>> {
        if let Some((_, set)) = lock_mutex(&self.releases).iter().find(|(known, _)| *known == id) {
            return Ok(Arc::clone(set));
        }
        let mut tx = self.catalog.read().await?;
        if catalog::releases::get(&mut tx, id).await?.is_none() {
            return Err(
                Error::new(ErrorKind::NotFound, format!("there is no release {id}")).try_next("fleetctl release list")
            );
        }
        let files = catalog::releases::release_files(&mut tx, id).await?;
        let set = Arc::new(MigrationSets::from_files(&files)?);
        let mut known = lock_mutex(&self.releases);
        if known.len() >= RELEASES_MAX {
            known.remove(0);
        }
        known.push((id, Arc::clone(&set)));
        Ok(set)
    }

    /// The template on this server that new tenants of a release are copied from. `None`: an empty database.
    ///
    /// # Errors
    /// Those of [`StepContext::release_sets`] and of the engine.
    pub async fn release_template(&self, on: ServerId, release: Option<ReleaseId>) -> Result<Arc<DatabaseTemplate>> {
        let server = self.load_server(on).await?;
        let engine = server.engine_kind();
        let set = match release {
            Some(id) => self.release_sets(id).await?.for_engine(engine)?.clone(),
            None => MigrationSet::empty_in(ledger_name::of_fleet(&self.catalog, engine).await?),
        };
        Ok(self.engine_of_kind(engine)?.prepare_template(&server, &set).await?)
    }

    /// A fault point between two actions, where a test may stop this process as a crash would.
    pub async fn fault_point(&self, name: &'static str) {
        self.halt.pass_point(name).await;
    }

    /// Waits while a test has stopped this process. A stopped process claims and renews nothing.
    pub(crate) async fn wait_while_halted(&self) {
        self.halt.wait_while_halted().await;
    }

    /// Stops all work at the `count`-th fault point from now.
    #[cfg(feature = "test-util")]
    pub fn halt_after(&self, count: usize) {
        self.halt.halt_after(count);
    }

    /// Stops all work at the next pass of this fault point.
    #[cfg(feature = "test-util")]
    pub fn halt_at(&self, name: &'static str) {
        self.halt.halt_at_pass(name, 1);
    }

    /// Stops all work at the `pass`-th pass of this fault point from now.
    #[cfg(feature = "test-util")]
    pub fn halt_at_pass(&self, name: &'static str, pass: usize) {
        self.halt.halt_at_pass(name, pass);
    }

    /// Continues stopped work where it stopped, as in a process that was paused and not killed.
    #[cfg(feature = "test-util")]
    pub fn resume_halted(&self) {
        self.halt.resume_halted();
    }

    /// All fault points passed since the last call of [`StepContext::halt_after`], in order.
    #[cfg(feature = "test-util")]
    pub fn passed_points(&self) -> Vec<&'static str> {
        self.halt.passed_points()
    }

    /// The fault point where [`StepContext::halt_after`] stopped the work. Waits until it has stopped.
    #[cfg(feature = "test-util")]
    pub async fn wait_until_halted(&self) -> &'static str {
        self.halt.wait_until_halted().await
    }
}

pub(super) fn lock_mutex<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
