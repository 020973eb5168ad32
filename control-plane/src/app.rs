//! The composition root: everything one process needs, built once, also by tests.

mod bases;
mod place;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use catalog::backups::BackupRecord;
use catalog::operations::OperationRecord;
use catalog::tokens::{OperatorRole, TokenScope};
use catalog::{Catalog, Clock, OperationId, TenantRecord, TenantState, WriteTx};
use tenant_engine::disk::DiskReserve;
use tenant_engine::postgres::{PostgresEngine, PostgresOptions};
use tenant_engine::sqlite::{SqliteEngine, SqliteOptions};
use tenant_engine::{Engine, EngineKind};
use tenant_router::{Naming, Router};

use crate::background;
use crate::backup::Store;
use crate::config::{Config, Role};
use crate::descriptors::DescriptorPlan;
use crate::error::{Error, Result};
use crate::home::Home;
pub use crate::home::Initialised;
use crate::operations::Fleet;
use crate::plan::Selection;
use crate::runner::Runner;
use crate::runner::control::Control;
use crate::runner::submit::{Caller, Mode, Submission, Submitted};
use crate::tasks::Tasks;

/// The server that every fleet on one machine has: a directory beside the catalog.
const LOCAL_SERVER: &str = "local";

/// How far the clocks of processes may differ: a quarter of a lease.
const SKEW_MS_MAX: i64 = 5_000;

/// One process's control plane.
#[derive(Debug)]
pub struct App {
    /// As given.
    pub config: Config,
    /// What exists.
    pub catalog: Catalog,
    /// One per kind of database.
    pub engines: HashMap<EngineKind, Arc<dyn Engine>>,
    /// Takes tenants' requests, and operators' reads, to their databases.
    pub router: Router,
    /// What the steps of operations reach.
    pub fleet: Arc<Fleet>,
    /// What each part of the process may hold open.
    pub descriptors: DescriptorPlan,
    runner: Arc<Runner>,
    tasks: Tasks,
    sqlite: SqliteEngine,
    postgres: PostgresEngine,
}

impl App {
    /// Makes a new fleet in the data directory (keys, catalog, the server `local`, an operator token), or finds the one
    /// that is there and makes what is missing of these. With a catalog on Postgres, a second data directory joins the
    /// fleet that is there, with that fleet's key; no server is made, because another machine could not reach it.
    ///
    /// # Errors
    /// `data_dir_unusable`, `network_file_system`, `catalog_missing`, `catalog_moved`, `two_catalogs`, `wrong_key`, and
    /// those of the catalog.
    pub async fn init(config: &Config) -> Result<Initialised> {
        Self::init_with(config, crate::clock::system()).await
    }

    /// [`App::init`] with another clock.
    ///
    /// # Errors
    /// As [`App::init`].
    pub async fn init_with(config: &Config, clock: Clock) -> Result<Initialised> {
        let home = Home::make(config)?;
        let done = if home.look_for_catalog().await? { Initialised::Found } else { Initialised::Created };
        let (key, origin) = home.key_or_new(config, done)?;
        let created = Catalog::create(home.catalog(), key, clock).await;
        let catalog = created.map_err(|error| home.blame(home.take_back(origin, error.into())))?;
        let prepared = async {
            place::settle(&catalog, &home).await?;
            settle(&catalog, &home).await?;
            bases::prepare(&catalog, config).await
        };
        let prepared = prepared.await;
        catalog.close().await;
        prepared.map(|_| done)
    }

    /// Opens the fleet in the data directory and starts the runner (and, when serving, the background tasks).
    ///
    /// # Errors
    /// `not_initialised`, `catalog_missing`, `catalog_moved`, `two_catalogs`, `wrong_key`, `catalog_newer`, `backup_store_unusable`, `network_file_system`, `data_dir_copied`, and those of the catalog.
    pub async fn open(config: Config) -> Result<Arc<Self>> {
        Self::open_with(config, crate::clock::system()).await
    }

    /// [`App::open`] with another clock.
    ///
    /// # Errors
    /// As [`App::open`].
    pub async fn open_with(config: Config, clock: Clock) -> Result<Arc<Self>> {
        Self::open_through(config, clock, |engine| engine).await
    }

    /// The same with engines as `wrap` makes of them: a test lets them fail.
    #[cfg(feature = "test-util")]
    pub async fn open_wrapped(
        config: Config,
        clock: Clock,
        wrap: impl Fn(Arc<dyn Engine>) -> Arc<dyn Engine>,
    ) -> Result<Arc<Self>> {
        Self::open_through(config, clock, wrap).await
    }

    async fn open_through(
        config: Config,
        clock: Clock,
        wrap: impl Fn(Arc<dyn Engine>) -> Arc<dyn Engine>,
    ) -> Result<Arc<Self>> {
        // Before engines and router: their counters are looked up once, when they are built.
        if config.role == Role::Serving {
            crate::metrics::install();
        }
        let home = Home::at(&config)?;
        match Home::require_local(&config) {
            // A command that runs alone may be the one that reports this, or moves tenants away.
            Err(error) if config.role != Role::Serving => tracing::warn!(%error, "the data directory is not safe"),
            checked => checked?,
        }
        home.must_have_catalog().await?;
        let scratch = home.scratch()?;
        let url = config.backup_url.clone().unwrap_or_else(|| home.backups());
        let store = Store::open(&url, &config.backup_options, &scratch)?;
        let descriptors = DescriptorPlan::of_this_process();
        let sqlite = SqliteEngine::new(SqliteOptions {
            connections_max: Some(descriptors.databases),
            memory_bytes_max: config.sqlite_memory_bytes_max,
            ..SqliteOptions::new(&scratch)
        })?;
        // Where the catalog shares the disk of its tenants, their reserve helps to open it, too.
        DiskReserve::of_base(&home.tenants()).make_room();
        let opened = Catalog::open(home.catalog(), home.key(&config)?, clock).await;
        let catalog = opened.map_err(|error| home.blame(error.into()))?;
        refuse_skew(&catalog).await?;
        place::settle(&catalog, &home).await?;
        let postgres_servers = bases::prepare(&catalog, &config).await?;
        let postgres = PostgresEngine::new(PostgresOptions {
            tools: config.postgres_tools.clone(),
            connections_max: Some(descriptors.sockets_for_each(postgres_servers)),
            ..PostgresOptions::new(&scratch)
        });
        let all: [Arc<dyn Engine>; 2] = [wrap(Arc::new(sqlite.clone())), wrap(Arc::new(postgres.clone()))];
        let router = router(&config, &catalog, &all).await?;
        let engines: HashMap<EngineKind, Arc<dyn Engine>> =
            all.into_iter().map(|engine| (engine.kind(), engine)).collect();
        let fleet = Arc::new(Fleet::new(config.clone(), catalog.clone(), engines.clone(), store, scratch));
        let tasks = Tasks::default();
        let runner = Runner::start(Arc::clone(&fleet), tasks.clone(), descriptors.steps);
        if config.role == Role::Serving {
            background::start(&fleet, &runner, &tasks);
        } else if let Err(error) = background::reconcile::run(&fleet).await {
            // A fleet that no process serves has nobody else to look. What cannot be written now is found the next time.
            tracing::debug!(code = %error.code, %error, "what a dead process left was not looked at");
        }
        Ok(Arc::new(Self { config, catalog, engines, router, fleet, descriptors, runner, tasks, sqlite, postgres }))
    }

    /// Plans, and in [`Mode::Run`] writes operation, steps and event (and, for create, tenants and names) in one
    /// transaction and wakes the runner; an embedded process runs what it submits.
    ///
    /// # Errors
    /// `invalid`, `selection_empty`, `not_found`, `already_exists`, `protected`, `count_mismatch`, `backup_not_found`,
    /// and those of the catalog; nothing was written then.
    pub async fn submit(&self, caller: &Caller, submission: Submission, mode: Mode) -> Result<Submitted> {
        if self.tasks.stopping().is_cancelled() {
            return Err(Error::new(503, "shutting_down", "this process is shutting down").transient());
        }
        self.runner.submit(caller, submission, mode).await
    }

    /// Pauses, resumes, retries, cancels or abandons an operation, with an event.
    ///
    /// # Errors
    /// `not_found`; `conflict` when the operation is not in a state that allows it.
    pub async fn control(
        &self,
        caller: &Caller,
        op: OperationId,
        what: Control,
        reason: Option<&str>,
    ) -> Result<OperationRecord> {
        self.runner.control(caller, op, what, reason).await
    }

    /// The active tenants of a selection, with labels, in the order of their ids.
    ///
    /// # Errors
    /// `selection_empty`, `not_found` naming unknown names, and those of the catalog.
    pub async fn select(&self, selection: &Selection) -> Result<Vec<TenantRecord>> {
        self.runner.select(selection).await
    }

    /// The tenants of a selection that are in one of these states.
    ///
    /// # Errors
    /// As [`App::select`].
    pub async fn select_in(&self, selection: &Selection, states: &[TenantState]) -> Result<Vec<TenantRecord>> {
        self.runner.select_in(selection, states).await
    }

    /// Makes this process run that operation, whoever submitted it. A serving process runs all of them anyway.
    pub fn run_only(&self, op: OperationId) {
        self.runner.run_only(op);
    }

    /// Runs the operation here ([`App::run_only`]) and returns its record when it has ended (or is paused), or as it is
    /// after `timeout`.
    ///
    /// # Errors
    /// `not_found`, and those of the catalog.
    pub async fn wait(&self, op: OperationId, timeout: Duration) -> Result<OperationRecord> {
        self.runner.wait(op, timeout).await
    }

    /// The manifest of a backup, as it lies in the backup store; only one that is believed.
    ///
    /// # Errors
    /// `backup_damaged`, `wrong_tenant_backup`, `backup_not_authentic`, `backup_newer`, `backup_store_unavailable`.
    pub async fn backup_manifest(&self, backup: &BackupRecord) -> Result<serde_json::Value> {
        let manifest = crate::operations::backup_manifest(&self.fleet, backup).await?;
        serde_json::to_value(manifest).map_err(|error| Error::internal("a manifest is no JSON").with_source(error))
    }

    /// True while steps are claimed and run.
    #[must_use]
    pub fn runner_alive(&self) -> bool {
        self.runner.alive()
    }

    /// The principal of this very process, for the human who started it; see
    /// [`InProcess`](crate::auth::operator::InProcess).
    #[must_use]
    pub fn in_process_principal(&self, actor: &str) -> crate::auth::operator::InProcess {
        crate::auth::operator::InProcess::new(actor)
    }

    /// Whether the SQLite engine can take requests; see [`tenant_engine::sqlite::SqliteEngine::is_stuck`].
    #[must_use]
    pub(crate) fn sqlite_stuck(&self) -> bool {
        self.sqlite.is_stuck()
    }

    /// Ends as a killed process does, as far as that can be seen from outside: nothing is finished, freed or closed.
    #[cfg(feature = "test-util")]
    pub async fn kill(&self) {
        self.tasks.abort().await;
    }

    /// Refuses new work, gives running steps up to `drain` to finish, frees leases and closes everything.
    pub async fn shutdown(&self, drain: Duration) {
        let left = self.tasks.stop(drain).await;
        if left > 0 {
            self.runner.expect_exit().await;
            tracing::warn!(tasks = left, "stopped waiting for running steps; their leases run out");
        }
        self.fleet.proofs.wait(CLOSE_PATIENCE).await;
        // A statement that never ends keeps its connection open; the process ends without it.
        if tokio::time::timeout(CLOSE_PATIENCE, self.router.shutdown()).await.is_err() {
            tracing::warn!("stopped waiting for connections that are stuck in a statement");
        }
        self.sqlite.shutdown().await;
        self.postgres.shutdown().await;
        self.catalog.close().await;
    }
}

/// How long tenants' connections may take to close at the end: longer than a request's statement may run.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// Of several processes, one whose clock is off would end the others' leases and drop what they still keep.
async fn refuse_skew(catalog: &Catalog) -> Result<()> {
    let skew_ms = catalog::check::skew_ms(catalog).await?;
    if skew_ms.abs() <= SKEW_MS_MAX {
        return Ok(());
    }
    let detail = format!("this machine's clock is {} s away from the catalog's", skew_ms / 1_000);
    Err(Error::new(500, "clock_skew", detail).try_next("set the clock (ntp), then start again"))
}

/// Makes what every fleet has and a crash of an earlier `init` may have left out.
async fn settle(catalog: &Catalog, home: &Home) -> Result<()> {
    let mut tx = catalog.write().await?;
    if !home.is_elsewhere() && catalog::servers::by_name(&mut tx, LOCAL_SERVER).await?.is_none() {
        let base = home.tenants().to_string_lossy().into_owned();
        let local = catalog::servers::NewServer::directory(LOCAL_SERVER, &base);
        catalog::servers::insert(&mut tx, local).await?;
    }
    let token = match home.operator_token().exists() {
        true => None,
        false => Some(first_token(&mut tx).await?),
    };
    tx.commit().await?;
    // After the commit: a token in the file that the catalog does not know would be worse than none.
    match token {
        Some(secret) => home.write_secret(&home.operator_token(), &secret),
        None => Ok(()),
    }
}

async fn first_token(tx: &mut WriteTx) -> Result<secrecy::SecretString> {
    let scope = TokenScope::Operator { role: OperatorRole::Admin };
    let (_, secret) = catalog::tokens::create(tx, scope, Some("made by init"), None).await?;
    Ok(secret)
}

async fn router(config: &Config, catalog: &Catalog, engines: &[Arc<dyn Engine>]) -> Result<Router> {
    let naming = match &config.domain {
        Some(domain) => Naming::default().domain(domain.clone()),
        None => Naming::default(),
    };
    let builder =
        engines.iter().fold(Router::builder(catalog.clone()), |builder, engine| builder.engine(Arc::clone(engine)));
    builder
        .naming(naming)
        .hold(Duration::from_millis(config.hold_ms))
        .limits(config.limits)
        .build()
        .await
        .map_err(|error| Error::new(500, error.kind().code(), "the router could not be started").with_source(error))
}
