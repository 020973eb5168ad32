//! A fleet in a temporary directory, with a clock that tests move.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use catalog::backups::BackupRecord;
use catalog::operations::{OperationRecord, OperationState};
use catalog::servers::{self, NewServer};
use catalog::steps::{StepRecord, StepState};
use catalog::{CatalogClock, OperationId, ServerState, TenantRecord};
use control_plane::config::ProcessRole;
use control_plane::operations::{OperationParams, backup, create, delete, migrate, restore, restore_undo, verify};
use control_plane::plan::{PlanView, TenantSelection};
use control_plane::runner::submit::{AuditCaller, Submission, SubmitMode, SubmitOutcome};
use control_plane::{App, Config, Error};
use postgres_fixture::{Cluster, Settings};
use tempfile::TempDir;
use tenant_engine::migration::MigrationFile;
use tenant_engine::postgres::PostgresServer;
use tenant_engine::{AccessMode, AfterStatements, Engine, EngineKind, Rows, SessionLimits, SqlStatement, SqlValue};

use crate::faulty::{Faulty, Script};

/// Far beyond what any test takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) app: Arc<App>,
    pub(crate) dir: Arc<TempDir>,
    pub(crate) on: On,
    now: Arc<AtomicI64>,
}

/// What the tenants' databases run on.
#[derive(Clone)]
pub(crate) enum On {
    Sqlite,
    /// Two servers.
    Postgres(Arc<PostgresServers>),
}

/// The second server is started when a test needs it.
#[derive(Debug)]
pub(crate) struct PostgresServers {
    pub(crate) first: Cluster,
    other: OnceLock<Cluster>,
}

impl PostgresServers {
    pub(crate) fn other(&self) -> &Cluster {
        self.other.get_or_init(|| Cluster::with(&Settings { other: true, ..Self::settings() }))
    }

    /// The servers that run.
    pub(crate) fn started(&self) -> impl Iterator<Item = &Cluster> {
        std::iter::once(&self.first).chain(self.other.get())
    }

    fn settings() -> Settings {
        Settings { connections_max: 100, ..Settings::default() }
    }
}

impl On {
    /// Calls `act` for each PostgreSQL server that runs.
    fn for_each_server(&self, act: fn(&Cluster)) {
        if let Self::Postgres(servers) = self {
            servers.started().for_each(act);
        }
    }

    pub(crate) fn postgres() -> Self {
        let first = Cluster::with(&PostgresServers::settings());
        Self::Postgres(Arc::new(PostgresServers { first, other: OnceLock::new() }))
    }
}

/// A fleet that was prepared once and is used many times, each time in the state of its preparation.
pub(crate) struct PreparedFleet {
    dir: Arc<TempDir>,
    /// A copy of the directory.
    saved: TempDir,
    on: On,
    now: i64,
}

impl PreparedFleet {
    /// Closes the fleet and keeps its files.
    pub(crate) async fn save(world: World) -> Self {
        world.app.shut_down(Duration::from_secs(5)).await;
        let World { dir, on, now, .. } = world;
        let saved = tempfile::tempdir().unwrap();
        copy_files(dir.path(), saved.path());
        on.for_each_server(Cluster::save_state);
        Self { dir, saved, on, now: now.load(Ordering::SeqCst) }
    }

    /// Opens the fleet as it was saved. Nothing of an earlier use may still be running.
    pub(crate) async fn open(&self) -> World {
        // The directory stays: a fleet knows a copy of itself by it.
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
        }
        copy_files(self.saved.path(), self.dir.path());
        self.on.for_each_server(Cluster::load_state);
        World::at(Arc::clone(&self.dir), self.on.clone(), self.now).await
    }
}

fn copy_files(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success());
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(On::Sqlite).await
    }

    pub(crate) async fn on(on: On) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let now = Arc::new(AtomicI64::new(1_764_000_000_000));
        App::init_with(&config(&dir), clock(&now)).await.unwrap();
        let app = App::open_with(config(&dir), clock(&now)).await.unwrap();
        let world = Self { app, dir, on, now };
        world.add_first().await;
        world
    }

    /// The server that tenants are made on.
    async fn add_first(&self) {
        if let On::Postgres(servers) = &self.on {
            self.add_postgres("first", &servers.first).await;
            self.set_state("local", ServerState::Cordoned).await;
        }
    }

    /// A fleet whose engines fail as a script says.
    pub(crate) async fn faulty(script: &Arc<Script>, on: On) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let now = Arc::new(AtomicI64::new(1_764_000_000_000));
        App::init_with(&config(&dir), clock(&now)).await.unwrap();
        let wrap = |inner| Arc::new(Faulty { inner, script: Arc::clone(script) }) as Arc<dyn Engine>;
        let app = App::open_wrapped(config(&dir), clock(&now), wrap).await.unwrap();
        let world = Self { app, dir, on, now };
        world.add_first().await;
        world
    }

    /// A fleet that is there already, in this directory.
    pub(crate) async fn opened(dir: TempDir) -> Self {
        Self::at(Arc::new(dir), On::Sqlite, 1_864_000_000_000).await
    }

    async fn at(dir: Arc<TempDir>, on: On, now: i64) -> Self {
        let now = Arc::new(AtomicI64::new(now));
        let app = App::open_with(config(&dir), clock(&now)).await.unwrap();
        Self { app, dir, on, now }
    }

    /// Another server of the same engine.
    pub(crate) async fn add_other(&self) {
        match &self.on {
            On::Postgres(servers) => self.add_postgres("other", servers.other()).await,
            On::Sqlite => {
                let base = self.data().join("other");
                std::fs::create_dir(&base).unwrap();
                self.add(NewServer::in_directory("other", base.to_str().unwrap())).await;
            }
        }
    }

    async fn add_postgres(&self, name: &str, cluster: &Cluster) {
        let server = PostgresServer::new(&cluster.dsn("postgres").into()).unwrap();
        let (base, secret) = (server.host_and_port().to_owned(), server.secret_text());
        let new = NewServer::in_directory(name, &base);
        self.add(NewServer { engine: EngineKind::Postgres, secret: Some(&secret), ..new }).await;
    }

    async fn add(&self, new: NewServer<'_>) {
        let mut tx = self.app.catalog.write().await.unwrap();
        servers::insert_server(&mut tx, new).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) async fn set_state(&self, server: &str, state: ServerState) {
        let mut tx = self.app.catalog.write().await.unwrap();
        let found = servers::by_name(&mut tx, server).await.unwrap().unwrap();
        servers::set_state(&mut tx, found.id, state).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// What a dead process leaves: nothing was closed, its leases have run out, and another opens the directory.
    pub(crate) async fn crash(self) -> Self {
        self.reopen(|_| {}).await
    }

    /// The same, with a change of the files in between.
    pub(crate) async fn reopen(self, change: impl FnOnce(&Path)) -> Self {
        let Self { app, dir, on, now } = self;
        app.simulate_kill().await;
        now.fetch_add(61_000, Ordering::SeqCst);
        change(dir.path());
        let next = App::open_with(config(&dir), clock(&now)).await.unwrap();
        // Not closed, as a dead process closes nothing; the files are all that counts.
        std::mem::forget(app);
        Self { app: next, dir, on, now }
    }

    /// Another process on the same directory, on the same machine.
    pub(crate) async fn another(&self, role: ProcessRole) -> Arc<App> {
        App::open_with(Config::new(self.data(), role), clock(&self.now)).await.unwrap()
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.now.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// The clock steps back, as when it was ahead and is set right.
    pub(crate) fn turn_back(&self, by: Duration) {
        self.now.fetch_sub(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Another process on the same directory, whose clock is ahead of this one's.
    pub(crate) async fn ahead(&self, by: Duration) -> Arc<App> {
        let (now, by) = (clock(&self.now), i64::try_from(by.as_millis()).unwrap());
        App::open_with(Config::new(self.data(), ProcessRole::Embedded), Arc::new(move || now() + by)).await.unwrap()
    }

    pub(crate) fn now(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap()
    }

    pub(crate) async fn start(&self, submission: Submission) -> Result<OperationRecord, Error> {
        match self.app.runner.submit_operation(&caller(), submission, SubmitMode::Run).await? {
            SubmitOutcome::Started(record) => Ok(record),
            SubmitOutcome::Planned(plan) => panic!("only planned: {plan:?}"),
        }
    }

    pub(crate) async fn plan(&self, params: OperationParams, targets: TenantSelection) -> Result<PlanView, Error> {
        match self.app.runner.submit_operation(&caller(), Submission::new(params, targets), SubmitMode::Plan).await? {
            SubmitOutcome::Planned(plan) => Ok(plan),
            SubmitOutcome::Started(record) => panic!("started {record:?}"),
        }
    }

    /// Runs an operation to its end.
    pub(crate) async fn run(
        &self,
        params: OperationParams,
        targets: TenantSelection,
    ) -> Result<OperationRecord, Error> {
        let started = self.start(Submission::new(params, targets)).await?;
        Ok(self.finish(started.id).await)
    }

    /// The same, when it must succeed.
    pub(crate) async fn succeed(&self, params: OperationParams, targets: TenantSelection) -> OperationRecord {
        let ended = self.run(params, targets).await.unwrap();
        assert_eq!(ended.state, OperationState::Succeeded, "{:?}", self.steps(ended.id, &[]).await);
        ended
    }

    pub(crate) async fn finish(&self, op: OperationId) -> OperationRecord {
        let ended = self.app.runner.wait_for_operation(op, PATIENCE).await.unwrap();
        assert!(ended.finished_at.is_some(), "{ended:?} {:?}", self.steps(op, &[]).await);
        ended
    }

    pub(crate) async fn steps(&self, op: OperationId, states: &[StepState]) -> Vec<(StepRecord, String)> {
        let mut tx = self.app.catalog.read().await.unwrap();
        catalog::steps::list_steps(&mut tx, op, states, None, 10_000).await.unwrap()
    }

    pub(crate) async fn create(&self, names: &[&str]) {
        self.succeed(creating(names), TenantSelection::default()).await;
    }

    pub(crate) async fn migrate(&self, files: &[(&str, &str)]) -> OperationRecord {
        self.succeed(migrating(files), TenantSelection::all_tenants()).await
    }

    pub(crate) async fn backup(&self, name: &str) -> BackupRecord {
        self.succeed(backing_up(), TenantSelection::one_tenant(name)).await;
        self.newest(name).await.unwrap()
    }

    pub(crate) async fn newest(&self, name: &str) -> Option<BackupRecord> {
        let tenant = self.tenant(name).await;
        catalog::backups::newest_backup(&mut self.app.catalog.read().await.unwrap(), tenant.id, None).await.unwrap()
    }

    /// Where an object of the local backup store lies.
    pub(crate) fn object(&self, key: &str) -> PathBuf {
        self.data().join("backups").join(key)
    }

    /// The code of the only step's failure.
    pub(crate) async fn failure(&self, record: &OperationRecord) -> String {
        let steps = self.steps(record.id, &[StepState::Failed]).await;
        assert_eq!(steps.len(), 1, "{steps:?}");
        steps[0].0.error_code.clone().unwrap()
    }

    pub(crate) async fn tenant(&self, name: &str) -> TenantRecord {
        let name = catalog::TenantName::parse_slug(name).unwrap();
        let mut tx = self.app.catalog.read().await.unwrap();
        catalog::tenants::by_name(&mut tx, &name).await.unwrap().unwrap()
    }

    pub(crate) async fn file(&self, name: &str) -> PathBuf {
        self.data().join("tenants").join(self.tenant(name).await.placement.unwrap())
    }

    /// One statement in a tenant's current database, by the engine, as the router would run it.
    pub(crate) async fn sql(&self, name: &str, sql: &str) -> Rows {
        self.try_sql(name, sql).await.unwrap()
    }

    pub(crate) async fn try_sql(&self, name: &str, sql: &str) -> Result<Rows, Error> {
        let tenant = self.tenant(name).await;
        let (engine, at) = self.app.context.current_database(&tenant).await?;
        let expected = tenant_engine::ExpectedIdentity {
            tenant: tenant.id,
            fleet: self.app.catalog.fleet_id(),
            generation: tenant.generation,
            states: match tenant.block_writes {
                None => vec![tenant_engine::IdentityState::Active],
                Some(_) => vec![tenant_engine::IdentityState::Frozen],
            },
        };
        let pool = engine.open_pool(&at, &expected).await?;
        let statement = SqlStatement { sql: sql.to_owned(), params: Vec::new() };
        let access = if sql.starts_with("select") { AccessMode::Read } else { AccessMode::Write };
        let rows = pool
            .new_session(access, SessionLimits::default())
            .run_statements(vec![statement], AfterStatements::Commit)
            .await;
        pool.close().await;
        Ok(rows?.pop().unwrap())
    }

    /// The only value of the only row.
    pub(crate) async fn int(&self, name: &str, sql: &str) -> i64 {
        match self.sql(name, sql).await.rows.as_slice() {
            [row] => match row.as_slice() {
                [SqlValue::Integer(number)] => *number,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn caller() -> AuditCaller {
    AuditCaller { actor: "test".to_owned(), request_id: None, once: None }
}

pub(crate) fn creating(names: &[&str]) -> OperationParams {
    let new = |name: &&str| create::TenantSpec { name: (*name).to_owned(), labels: Default::default() };
    OperationParams::Create(create::CreateParams { tenants: names.iter().map(new).collect(), ..Default::default() })
}

pub(crate) fn backing_up() -> OperationParams {
    OperationParams::Backup(backup::BackupParams {})
}

pub(crate) fn restoring(to: restore::RestorePoint) -> OperationParams {
    OperationParams::Restore(restore::RestoreParams {
        to,
        as_name: None,
        schema: restore::RestoredSchema::Backup,
        resolved: None,
    })
}

pub(crate) fn undoing() -> OperationParams {
    OperationParams::RestoreUndo(restore_undo::RestoreUndoParams::default())
}

pub(crate) fn verifying() -> OperationParams {
    OperationParams::Verify(verify::VerifyParams::default())
}

pub(crate) fn deleting() -> OperationParams {
    OperationParams::Delete(delete::DeleteParams::default())
}

pub(crate) fn files(files: &[(&str, &str)]) -> Vec<MigrationFile> {
    files.iter().map(|(name, sql)| MigrationFile { name: (*name).to_owned(), sql: (*sql).to_owned() }).collect()
}

pub(crate) fn migrating(set: &[(&str, &str)]) -> OperationParams {
    OperationParams::Migrate(migrate::MigrateParams::to_head(migrate::ReleaseSource::Files(files(set))))
}

pub(crate) const TASKS: (&str, &str) =
    ("0001_tasks.sql", "create table tasks (id integer primary key, title text not null);\n");
pub(crate) const DONE: (&str, &str) =
    ("0002_done.sql", "alter table tasks add column done integer not null default 0;\n");

fn config(dir: &TempDir) -> Config {
    Config::new(dir.path().canonicalize().unwrap(), ProcessRole::Embedded)
}

fn clock(now: &Arc<AtomicI64>) -> CatalogClock {
    let now = Arc::clone(now);
    // Every reading is later than the one before: nothing may depend on two events having one time.
    Arc::new(move || now.fetch_add(1, Ordering::SeqCst))
}
