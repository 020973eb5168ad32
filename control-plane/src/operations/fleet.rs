//! What the steps reach: the engines, the backup store, and the parts of the catalog that never change. Built once per
//! process by `app.rs`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use catalog::{Catalog, Generation, ReleaseId, ServerId, ServerState, TenantRecord};
use tenant_engine::{
    Depth, Engine, EngineKind, ErrorKind, Expected, FleetId, Identity, IdentityState, MigrationSets, Placement, Server,
    Template,
};
use tokio::sync::Semaphore;

use super::Effect;
use super::pauses::Pauses;
use super::step::{LEASE_MS, Step};
use crate::backup::Store;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::tasks::CompletedWork;

/// Migration sets kept parsed: the current one, the one before, and a few that restores need.
const RELEASES_MAX: usize = 8;
/// Database images in memory or scratch at once, for each core: compressing is the work, so more would not be faster.
const IMAGES_PER_CORE: usize = 2;
/// Each takes up to some twenty megabytes, so that on many cores they are not more than this.
const IMAGES_MAX: usize = 16;

/// How long another process may go on with how a server was entered before `server set` changed it.
const SERVER_AGE_MAX: Duration = Duration::from_secs(2);

/// Everything a step can reach.
pub struct Fleet {
    /// Of the process.
    pub config: Config,
    /// Read by steps, written by the recorder only.
    pub catalog: Catalog,
    /// One per kind of database.
    pub engines: HashMap<EngineKind, Arc<dyn Engine>>,
    /// Where backups are.
    pub store: Store,
    /// Taken by whoever holds a whole database.
    pub images: Arc<Semaphore>,
    /// Proofs of backups on servers: each drops its scratch database at its end.
    pub proofs: CompletedWork,
    /// Where databases are kept for a moment; absolute.
    pub scratch: PathBuf,
    servers: Mutex<HashMap<ServerId, (Server, Instant)>>,
    releases: Mutex<Vec<(ReleaseId, Arc<MigrationSets>)>>,
    pub(super) pauses: Pauses,
    halt: halt::Halt,
}

fn images_max() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores * IMAGES_PER_CORE).clamp(2, IMAGES_MAX)
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("catalog", &self.catalog).finish_non_exhaustive()
    }
}

impl Fleet {
    /// Everything a step can reach.
    #[must_use]
    pub fn new(
        config: Config,
        catalog: Catalog,
        engines: HashMap<EngineKind, Arc<dyn Engine>>,
        store: Store,
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
            pauses: Pauses::default(),
            halt: halt::Halt::default(),
        }
    }

    /// Whose databases these are.
    #[must_use]
    pub fn id(&self) -> FleetId {
        self.catalog.fleet_id()
    }

    /// The engine of this kind.
    ///
    /// # Errors
    /// `internal`: a later program made the server.
    pub fn engine(&self, kind: EngineKind) -> Result<&Arc<dyn Engine>> {
        self.engines.get(&kind).ok_or_else(|| Error::internal(format!("this program has no engine for {kind}")))
    }

    /// A server as its engine reaches it; remembered for two seconds.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn server(&self, id: ServerId) -> Result<Server> {
        if let Some((known, read)) = lock(&self.servers).get(&id)
            && read.elapsed() < SERVER_AGE_MAX
        {
            return Ok(known.clone());
        }
        let mut tx = self.catalog.read().await?;
        let found = catalog::servers::get(&mut tx, id).await?;
        let found = found.ok_or_else(|| Error::internal(format!("{id} is not in the catalog")))?;
        let server = catalog::servers::reach(&mut tx, &found).await?;
        lock(&self.servers).insert(id, (server.clone(), Instant::now()));
        Ok(server)
    }

    /// One server of each engine that takes tenants; without any, the scratch space of this process.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn one_of_each_engine(&self) -> Result<Vec<Server>> {
        let mut tx = self.catalog.read().await?;
        let mut found: Vec<Server> = Vec::new();
        for (server, _) in catalog::servers::list(&mut tx).await? {
            let known = found.iter().any(|known| known.engine() == server.engine);
            match server.engine {
                _ if known || server.state != ServerState::Active => {}
                EngineKind::Sqlite => found.push(Server::sqlite(&self.scratch)),
                EngineKind::Postgres => found.push(catalog::servers::reach(&mut tx, &server).await?),
            }
        }
        if found.is_empty() {
            found.push(Server::sqlite(&self.scratch));
        }
        Ok(found)
    }

    /// Reads a server anew the next time: its connection string was changed.
    pub fn forget_server(&self, id: ServerId) {
        lock(&self.servers).remove(&id);
    }

    /// The engine of a tenant's server, and where the tenant's database is.
    ///
    /// # Errors
    /// `database_missing` when the tenant has none.
    pub async fn current(&self, tenant: &TenantRecord) -> Result<(&Arc<dyn Engine>, Placement)> {
        let reference = tenant
            .placement
            .as_deref()
            .ok_or_else(|| Error::new(409, "database_missing", format!("{} has no database now", tenant.name)))?;
        self.at(tenant.server_id, reference).await
    }

    /// How large the tenant's database is, for the catalog. No work fails because this cannot be told.
    pub(super) async fn measured(&self, tenant: &TenantRecord) -> Option<Effect> {
        let (engine, at) = self.current(tenant).await.ok()?;
        let size_bytes = i64::try_from(engine.size(&at).await.ok()?).ok()?;
        Some(Effect::Size { tenant: tenant.id, size_bytes })
    }

    /// The engine of a server, and the placement there that the catalog calls `reference`.
    ///
    /// # Errors
    /// `internal` when the reference is not one.
    pub async fn at(&self, server: ServerId, reference: &str) -> Result<(&Arc<dyn Engine>, Placement)> {
        let server = self.server(server).await?;
        let at = server
            .placement(reference)
            .map_err(|error| Error::internal("the catalog names no valid placement").with_source(error))?;
        Ok((self.engine(server.engine())?, at))
    }

    /// A placement nobody has used: the claim counted the tenant's number up, in the catalog, before this step began.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn fresh(&self, step: &Step, generation: Generation) -> Result<(&Arc<dyn Engine>, Placement)> {
        self.fresh_on(step.tenant.server_id, step, generation).await
    }

    /// The same on another server than the tenant's.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn fresh_on(
        &self,
        server: ServerId,
        step: &Step,
        generation: Generation,
    ) -> Result<(&Arc<dyn Engine>, Placement)> {
        self.require_live(step).await?;
        let server = self.server(server).await?;
        let at = server.fresh(step.tenant.id, generation, step.tenant.placement_epoch);
        Ok((self.engine(server.engine())?, at))
    }

    /// A worker that slept past its lease would make a database that nobody knows: the one who took the step over has
    /// looked for leftovers already. Asked only when that may be.
    async fn require_live(&self, step: &Step) -> Result<()> {
        if self.catalog.now() < step.now + LEASE_MS {
            return Ok(());
        }
        let claim = (step.op.id, step.tenant.id, step.claim);
        match catalog::steps::live(&mut self.catalog.read().await?, &[claim]).await?.as_slice() {
            [true] => Ok(()),
            _ => Err(Error::new(409, "conflict", "the step is another worker's by now")),
        }
    }

    /// Removes what earlier claims of this step may have left: their numbers are this step's own, and the catalog names
    /// none of them. One that was stamped to serve stays, and is returned: a catalog that was set back to an earlier
    /// moment may not know that it has served since.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn drop_leftovers(&self, step: &Step, generation: Generation) -> Result<Option<Placement>> {
        self.drop_leftovers_on(step.tenant.server_id, step, generation).await
    }

    /// The same on another server than the tenant's.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn drop_leftovers_on(
        &self,
        server: ServerId,
        step: &Step,
        generation: Generation,
    ) -> Result<Option<Placement>> {
        let server = self.server(server).await?;
        let engine = self.engine(server.engine())?;
        let mut serves = None;
        let last = step.tenant.placement_epoch;
        for number in (last - step.claim + 1).max(1)..last {
            let at = server.fresh(step.tenant.id, generation, number);
            let is_current = step.tenant.placement.as_deref() == Some(at.reference());
            if !is_current && !drop_unserved(engine, &at, step.tenant.generation).await? {
                serves = Some(at);
            }
        }
        Ok(serves)
    }

    /// Removes whatever was made for a tenant that never left `provisioning`, unless it serves by what it says itself: then
    /// a catalog that was set back only knows of its making.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn drop_unfinished(&self, tenant: &TenantRecord) -> Result<()> {
        let server = self.server(tenant.server_id).await?;
        for number in 1..=tenant.placement_epoch {
            let at = server.fresh(tenant.id, tenant.generation.next(), number);
            drop_unserved(self.engine(server.engine())?, &at, tenant.generation).await?;
        }
        Ok(())
    }

    /// The migration sets of a release.
    ///
    /// # Errors
    /// `not_found`, and those of the catalog.
    pub async fn release(&self, id: ReleaseId) -> Result<Arc<MigrationSets>> {
        if let Some((_, set)) = lock(&self.releases).iter().find(|(known, _)| *known == id) {
            return Ok(Arc::clone(set));
        }
        let mut tx = self.catalog.read().await?;
        if catalog::releases::get(&mut tx, id).await?.is_none() {
            return Err(
                Error::new(404, "not_found", format!("there is no release {id}")).try_next("fleetctl release list")
            );
        }
        let files = catalog::releases::files(&mut tx, id).await?;
        let set = Arc::new(MigrationSets::from_files(&files)?);
        let mut known = lock(&self.releases);
        if known.len() >= RELEASES_MAX {
            known.remove(0);
        }
        known.push((id, Arc::clone(&set)));
        Ok(set)
    }

    /// What new tenants of a release start from on this server; `None`: an empty database.
    ///
    /// # Errors
    /// Those of [`Fleet::release`] and of the engine.
    pub async fn template(&self, on: ServerId, release: Option<ReleaseId>) -> Result<Arc<Template>> {
        let server = self.server(on).await?;
        let sets = match release {
            Some(id) => self.release(id).await?,
            None => Arc::new(MigrationSets::empty()),
        };
        let engine = server.engine();
        Ok(self.engine(engine)?.template(&server, sets.of(engine)?).await?)
    }

    /// A place between two actions where a test may end this process's work as a crash would.
    pub async fn point(&self, name: &'static str) {
        self.halt.pass(name).await;
    }

    /// Waits while a test has stopped this process: one that is stopped claims and renews nothing.
    pub(crate) async fn awake(&self) {
        self.halt.awake().await;
    }

    /// Ends all work at the `count`-th point from now.
    #[cfg(feature = "test-util")]
    pub fn halt_after(&self, count: usize) {
        self.halt.after(count);
    }

    /// Ends all work when it next comes to this point.
    #[cfg(feature = "test-util")]
    pub fn halt_at(&self, name: &'static str) {
        self.halt.at(name);
    }

    /// Lets what has stopped go on where it was: a process that was stopped, and not ended.
    #[cfg(feature = "test-util")]
    pub fn go_on(&self) {
        self.halt.go_on();
    }

    /// Every point passed since the last call of [`Fleet::halt_after`], in order.
    #[cfg(feature = "test-util")]
    pub fn points(&self) -> Vec<&'static str> {
        self.halt.passed()
    }

    /// The point where [`Fleet::halt_after`] ended the work; waits for it.
    #[cfg(feature = "test-util")]
    pub async fn halted(&self) -> &'static str {
        self.halt.reached().await
    }
}

/// Drops a database unless it says itself that it serves, or that it was retired; false for one that serves, or has served
/// since `known`.
async fn drop_unserved(engine: &Arc<dyn Engine>, at: &Placement, known: Generation) -> Result<bool> {
    let expected = match engine.inspect(at, None, Depth::Ledger).await {
        Ok(found) => match found.identity.state {
            IdentityState::Active | IdentityState::Frozen if is_sound(engine, at).await? => return Ok(false),
            // Half of it was on the disk when the power went.
            IdentityState::Active | IdentityState::Frozen => None,
            // Kept, by this catalog or by a later one.
            IdentityState::Moved | IdentityState::Tombstone => return Ok(found.identity.generation <= known),
            IdentityState::Building => {
                let Identity { tenant, fleet, generation, state, .. } = found.identity;
                Some(Expected { tenant, fleet, generation, states: vec![state] })
            }
        },
        // Not there, half written, or without an identity.
        Err(error) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Corrupt | ErrorKind::WrongTenant) => None,
        Err(error) => return Err(error.into()),
    };
    engine.drop_database(at, expected.as_ref()).await?;
    Ok(true)
}

async fn is_sound(engine: &Arc<dyn Engine>, at: &Placement) -> Result<bool> {
    match engine.inspect(at, None, Depth::Full).await {
        Ok(found) => Ok(found.problems.is_empty()),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does nothing outside tests.
#[cfg(not(feature = "test-util"))]
mod halt {
    #[derive(Debug, Default)]
    pub(super) struct Halt {}

    impl Halt {
        #[expect(clippy::unused_async, reason = "the other form waits")]
        pub(super) async fn pass(&self, _name: &'static str) {}

        #[expect(clippy::unused_async, reason = "the other form waits")]
        pub(super) async fn awake(&self) {}
    }
}

/// Stops every task of a process at a chosen point: what a crash looks like from the files, and, when it goes on later,
/// a process that was stopped for a while.
#[cfg(feature = "test-util")]
mod halt {
    use std::sync::Mutex;

    use tokio::sync::watch;

    /// Where to stop.
    #[derive(Debug)]
    enum Stop {
        Never,
        /// After so many points.
        After(usize),
        At(&'static str),
        /// It has stopped.
        Now,
    }

    #[derive(Debug)]
    pub(super) struct Halt {
        stop: Mutex<Stop>,
        passed: Mutex<Vec<&'static str>>,
        reached: watch::Sender<Option<&'static str>>,
        resumed: watch::Sender<()>,
    }

    impl Default for Halt {
        fn default() -> Self {
            Self {
                stop: Mutex::new(Stop::Never),
                passed: Mutex::default(),
                reached: watch::channel(None).0,
                resumed: watch::channel(()).0,
            }
        }
    }

    impl Halt {
        pub(super) fn after(&self, count: usize) {
            *super::lock(&self.stop) = Stop::After(count);
            super::lock(&self.passed).clear();
        }

        pub(super) fn at(&self, name: &'static str) {
            *super::lock(&self.stop) = Stop::At(name);
        }

        pub(super) fn passed(&self) -> Vec<&'static str> {
            super::lock(&self.passed).clone()
        }

        pub(super) async fn pass(&self, name: &'static str) {
            super::lock(&self.passed).push(name);
            let mut resumed = self.resumed.subscribe();
            if self.stops(name) {
                self.reached.send_if_modified(|at| at.is_none().then(|| *at = Some(name)).is_some());
                // The sender lives as long as this does.
                let _ = resumed.changed().await;
            }
        }

        pub(super) async fn awake(&self) {
            let mut resumed = self.resumed.subscribe();
            if matches!(*super::lock(&self.stop), Stop::Now) {
                let _ = resumed.changed().await;
            }
        }

        pub(super) fn go_on(&self) {
            *super::lock(&self.stop) = Stop::Never;
            self.resumed.send_replace(());
        }

        fn stops(&self, name: &'static str) -> bool {
            let mut stop = super::lock(&self.stop);
            if let Stop::After(left) = &mut *stop {
                *left = left.saturating_sub(1);
            }
            let now = match &*stop {
                Stop::Never => false,
                Stop::After(left) => *left == 0,
                Stop::At(at) => *at == name,
                Stop::Now => true,
            };
            if now {
                *stop = Stop::Now;
            }
            now
        }

        pub(super) async fn reached(&self) -> &'static str {
            let mut watch = self.reached.subscribe();
            loop {
                if let Some(name) = *watch.borrow_and_update() {
                    return name;
                }
                if watch.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}
