//! The composition root: builds everything that one process needs, once. Tests use it too.

mod bases;
mod place;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use catalog::backups::BackupRecord;
use catalog::tokens::{OperatorRole, TokenScope};
use catalog::{Catalog, CatalogClock, WriteTx};
use tenant_engine::disk::DiskReserve;
use tenant_engine::postgres::{PostgresEngine, PostgresOptions};
use tenant_engine::sqlite::{SqliteEngine, SqliteOptions};
use tenant_engine::{Engine, EngineKind};
use tenant_router::jwt::JwtVerifier;
use tenant_router::{Naming, Router};

use crate::background;
use crate::backup::BackupStore;
use crate::config::{Config, ProcessRole};
use crate::data_dir::DataDirectory;
pub use crate::data_dir::InitOutcome;
use crate::descriptors::DescriptorPlan;
use crate::domains::lookup::{DnsLookup, TxtLookup};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::StepContext;
use crate::operations;
use crate::runner::Runner;
use crate::tasks::ProcessTasks;
use crate::webhooks::client::WebhookClient;
pub(crate) use place::{
    DirectoryState, bring_inside, identity_unfinished, inspect_place, note_place, record_place as settle_place,
    refuse_copy,
};

/// The name of the server that every fleet on one machine has: a directory beside the catalog.
const LOCAL_SERVER: &str = "local";

/// How far the clocks of processes may differ, milliseconds: a quarter of a lease.
const SKEW_MS_MAX: i64 = 5_000;

/// One process's control plane.
#[derive(Debug)]
pub struct App {
    /// The configuration as given.
    pub config: Config,
    /// The fleet's catalog.
    pub catalog: Catalog,
    /// The engines, one per kind of database.
    pub engines: HashMap<EngineKind, Arc<dyn Engine>>,
    /// Routes requests of tenants, and reads of operators, to the databases.
    pub router: Router,
    /// The context of operations' steps.
    pub context: Arc<StepContext>,
    /// The number of file descriptors that each part of the process may hold.
    pub descriptors: DescriptorPlan,
    /// Plans, runs and controls operations, and selects tenants.
    pub runner: Arc<Runner>,
    /// Looks up the records that prove control of custom domains.
    pub dns: Arc<dyn TxtLookup>,
    /// Sends events to webhooks.
    pub webhooks: Arc<WebhookClient>,
    /// The name of this process in the catalog, for what it claims there. Its successor releases that.
    pub process_name: String,
    tasks: ProcessTasks,
    sqlite: SqliteEngine,
    postgres: PostgresEngine,
}

impl App {
    /// Creates a new fleet in the data directory: keys, catalog, the server `local`, and an operator token. If there is
    /// a fleet already, it creates only the missing parts. With a catalog on PostgreSQL, a second data directory joins
    /// the existing fleet, with that fleet's key. It gets no server, because other machines could not reach it.
    ///
    /// # Errors
    /// `data_dir_unusable`, `network_file_system`, `catalog_missing`, `catalog_moved`, `two_catalogs`, `wrong_key`, and
    /// those of the catalog.
    pub async fn init_fleet(config: &Config) -> Result<InitOutcome> {
        Self::init_with(config, crate::clock::system_clock()).await
    }

    /// [`App::init_fleet`] with another clock.
    ///
    /// # Errors
    /// As [`App::init_fleet`].
    pub async fn init_with(config: &Config, clock: CatalogClock) -> Result<InitOutcome> {
        let home = DataDirectory::create_directories(config)?;
        let done = if home.find_catalog().await? { InitOutcome::Found } else { InitOutcome::Created };
        let (key, origin) = home.fleet_key_or_new(config, done)?;
        let created = Catalog::create(home.catalog_location(), key, clock).await;
        let catalog = created.map_err(|error| home.explain_open_error(home.take_back(origin, error.into())))?;
        let prepared = async {
            place::record_place(&catalog, &home).await?;
            complete_init(&catalog, &home).await?;
            bases::prepare_bases(&catalog, config).await
        };
        let prepared = prepared.await;
        catalog.close().await;
        prepared.map(|_| done)
    }

    /// Opens the fleet in the data directory and starts the runner. A serving process also starts the background tasks.
    ///
    /// # Errors
    /// `not_initialised`, `catalog_missing`, `catalog_moved`, `two_catalogs`, `wrong_key`, `catalog_newer`,
    /// `backup_store_unusable`, `network_file_system`, `data_dir_copied`, and those of the catalog.
    pub async fn open(config: Config) -> Result<Arc<Self>> {
        Self::open_with(config, crate::clock::system_clock()).await
    }

    /// [`App::open`] with another clock.
    ///
    /// # Errors
    /// As [`App::open`].
    pub async fn open_with(config: Config, clock: CatalogClock) -> Result<Arc<Self>> {
        Self::open_through(config, clock, |engine| engine).await
    }

    /// [`App::open_with`], with each engine replaced by the result of `wrap`. Tests use it to make engines fail.
    #[cfg(feature = "test-util")]
    pub async fn open_wrapped(
        config: Config,
        clock: CatalogClock,
        wrap: impl Fn(Arc<dyn Engine>) -> Arc<dyn Engine>,
    ) -> Result<Arc<Self>> {
        Self::open_through(config, clock, wrap).await
    }

    async fn open_through(
        config: Config,
        clock: CatalogClock,
        wrap: impl Fn(Arc<dyn Engine>) -> Arc<dyn Engine>,
    ) -> Result<Arc<Self>> {
        // Before engines and router: they look up their counters once, when they are built.
        if config.role == ProcessRole::Serving {
            crate::metrics::install_recorder();
        }
        let home = DataDirectory::open_existing(&config)?;
        refuse_network_disk(&config)?;
        home.require_catalog().await?;
        let scratch = home.scratch_dir()?;
        let url = config.backup_url.clone().unwrap_or_else(|| home.backups_url());
        let store = BackupStore::open_url(&url, &config.backup_options, &scratch)?;
        let descriptors = DescriptorPlan::of_this_process();
        let sqlite = SqliteEngine::new(SqliteOptions {
            connections_max: Some(descriptors.databases),
            memory_bytes_max: config.sqlite_memory_bytes_max,
            ..SqliteOptions::new(&scratch)
        })?;
        // If catalog and tenants share a disk, the tenants' reserve helps to open the catalog, too.
        DiskReserve::of_base(&home.tenants_dir()).make_room();
        let opened = Catalog::open(home.catalog_location(), home.fleet_key(&config)?, clock).await;
        let catalog = opened.map_err(|error| home.explain_open_error(error.into()))?;
        refuse_skew(&catalog).await?;
        place::record_place(&catalog, &home).await?;
        let postgres_servers = bases::prepare_bases(&catalog, &config).await?;
        let postgres = PostgresEngine::new(PostgresOptions {
            tools: config.postgres_tools.clone(),
            connections_max: Some(descriptors.sockets_for_each(postgres_servers)),
            ..PostgresOptions::new(&scratch)
        });
        let all: [Arc<dyn Engine>; 2] = [wrap(Arc::new(sqlite.clone())), wrap(Arc::new(postgres.clone()))];
        let router = build_router(&config, &catalog, &all).await?;
        let engines: HashMap<EngineKind, Arc<dyn Engine>> =
            all.into_iter().map(|engine| (engine.kind(), engine)).collect();
        let context = Arc::new(StepContext::new(config.clone(), catalog.clone(), engines.clone(), store, scratch));
        let tasks = ProcessTasks::default();
        let dns: Arc<dyn TxtLookup> = Arc::new(DnsLookup::new(config.dns_server));
        let process_name = uuid::Uuid::now_v7().simple().to_string();
        let webhooks = Arc::new(WebhookClient::new(Arc::new(DnsLookup::new(config.dns_server))));
        let runner =
            Runner::start_runner(Arc::clone(&context), operations::registry(), tasks.clone(), descriptors.steps);
        if config.role == ProcessRole::Serving {
            background::start_tasks(&context, &runner, &dns, &tasks);
            background::webhooks::start_worker(&catalog, &webhooks, &process_name, &tasks);
        } else {
            close_leftovers(&context, &runner).await;
        }
        Ok(Arc::new(Self {
            config,
            catalog,
            engines,
            router,
            context,
            descriptors,
            runner,
            dns,
            webhooks,
            process_name,
            tasks,
            sqlite,
            postgres,
        }))
    }

    /// The manifest of a backup as the backup store holds it, if it is trusted.
    ///
    /// # Errors
    /// `backup_damaged`, `wrong_tenant_backup`, `backup_not_authentic`, `backup_newer`, `backup_store_unavailable`.
    pub async fn backup_manifest(&self, backup: &BackupRecord) -> Result<serde_json::Value> {
        let manifest = crate::replacement::backup_trust::trusted_manifest(&self.context, backup).await?;
        serde_json::to_value(manifest)
            .map_err(|error| Error::internal("a manifest is not valid JSON").with_source(error))
    }

    /// The principal of this process, for the person who started it; see
    /// [`InProcess`](crate::auth::operator::InProcess).
    #[must_use]
    pub fn in_process_principal(&self, actor: &str) -> crate::auth::operator::InProcess {
        crate::auth::operator::InProcess::new(actor)
    }

    /// Whether the SQLite engine cannot take requests; see [`tenant_engine::sqlite::SqliteEngine::is_stuck`].
    #[must_use]
    pub(crate) fn sqlite_stuck(&self) -> bool {
        self.sqlite.is_stuck()
    }

    /// Ends as a killed process does, as seen from outside: nothing is finished, released or closed.
    #[cfg(feature = "test-util")]
    pub async fn simulate_kill(&self) {
        self.tasks.abort_tasks().await;
    }

    /// Refuses new work, gives running steps up to `drain` to finish, releases leases and closes everything.
    pub async fn shut_down(&self, drain: Duration) {
        let left = self.tasks.stop_tasks(drain).await;
        if left > 0 {
            self.runner.expect_exit().await;
            tracing::warn!(tasks = left, "stopped waiting for running steps; their leases will expire");
        }
        self.context.proofs.wait_all_ended(CLOSE_PATIENCE).await;
        // A statement that never ends keeps its connection open. The process ends without it.
        if tokio::time::timeout(CLOSE_PATIENCE, self.router.shutdown()).await.is_err() {
            tracing::warn!("stopped waiting for connections that are stuck in a statement");
        }
        self.sqlite.shut_down().await;
        self.postgres.shut_down().await;
        self.catalog.close().await;
    }
}

/// How long closing the tenants' connections may take at the end: longer than a request's statement may run.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// Refuses to serve SQLite files on a network file system. A command that runs alone may report this problem, or move
/// tenants away.
fn refuse_network_disk(config: &Config) -> Result<()> {
    match DataDirectory::require_local(config) {
        Err(error) if config.role != ProcessRole::Serving => {
            tracing::warn!(%error, "the data directory is not safe");
            Ok(())
        }
        checked => checked,
    }
}

/// Refuses to start with a wrong clock. Such a process would end other processes' leases and drop what they still
/// retain.
async fn refuse_skew(catalog: &Catalog) -> Result<()> {
    let skew_ms = catalog::check::skew_ms(catalog).await?;
    if skew_ms.abs() <= SKEW_MS_MAX {
        return Ok(());
    }
    let detail = format!("this machine's clock differs from the catalog's by {} s", skew_ms / 1_000);
    Err(Error::new(ErrorKind::ClockSkew, detail).try_next("set the clock (ntp), then start again"))
}

/// In a fleet without a serving process, only commands look for leftovers. A failed write is repeated at the next start.
async fn close_leftovers(context: &StepContext, runner: &Runner) {
    if let Err(error) = background::reconcile::close_abandoned(context, runner).await {
        tracing::debug!(code = %error.code(), %error, "leftovers of a dead process were not checked");
    }
}

/// Creates the parts of a fleet that a crash of an earlier `init` may have left out.
async fn complete_init(catalog: &Catalog, home: &DataDirectory) -> Result<()> {
    let mut tx = catalog.write().await?;
    if !home.is_elsewhere() && catalog::servers::by_name(&mut tx, LOCAL_SERVER).await?.is_none() {
        let base = home.tenants_dir().to_string_lossy().into_owned();
        let local = catalog::servers::NewServer::in_directory(LOCAL_SERVER, &base);
        catalog::servers::insert_server(&mut tx, local).await?;
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
    let (_, secret) = catalog::tokens::create_token(tx, scope, Some("made by init"), None).await?;
    Ok(secret)
}

async fn build_router(config: &Config, catalog: &Catalog, engines: &[Arc<dyn Engine>]) -> Result<Router> {
    let builder =
        engines.iter().fold(Router::builder(catalog.clone()), |builder, engine| builder.engine(Arc::clone(engine)));
    let builder = match config.jwt_issuers.as_slice() {
        [] => builder,
        issuers => builder.jwt(JwtVerifier::new(issuers.to_vec()).map_err(|error| {
            Error::new(ErrorKind::JwtInvalid, "the issuers of tokens are not valid").with_source(error)
        })?),
    };
    builder
        .naming(data_naming(config))
        .replacement_wait_max(Duration::from_millis(config.hold_ms))
        .limits(config.limits)
        .build()
        .await
        .map_err(|error| {
            Error::new(ErrorKind::RouterStart(error.kind()), "the router could not be started").with_source(error)
        })
}

/// How requests of the data API name their tenants.
fn data_naming(config: &Config) -> Naming {
    let naming = Naming::default().path_prefix(config.data_path.prefix());
    let naming = match &config.domain {
        Some(domain) => naming.domain(domain.clone()),
        None => naming,
    };
    match &config.own_hosts {
        Some(own) => naming.custom_domains(own.clone()),
        None => naming,
    }
}
