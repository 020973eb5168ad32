//! A fleet inside this process: a control plane on a port of the loopback address, which the kernel chooses.
//!
//! Everything else goes through the admin API, as with a control plane elsewhere: migrations, the PostgreSQL server, and
//! later the sign-ups.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use control_plane::config::ProcessRole;
use control_plane::serve::{RunningServer, ServeOptions, find_running, start_server};
use control_plane::{App, Config};
use fleet_client::fleet_api::migrations::{MigrationRun, MigrationStatus};
use fleet_client::fleet_api::operations::OperationView;
use fleet_client::fleet_api::releases::{NewRelease, ReleaseFile, ReleaseView};
use fleet_client::fleet_api::selection::SelectionRequest;
use fleet_client::fleet_api::servers::{ConnectionChange, ServerToAdd, ServerView};
use fleet_client::{ApiRequest, FleetClient};
use secrecy::SecretString;

/// The migrations of both engines, as `fleetctl migrate run examples/tasks/migrations --all` reads them.
const MIGRATIONS: [(&str, &str); 4] = [
    ("sqlite/0001_tasks.sql", include_str!("../migrations/sqlite/0001_tasks.sql")),
    ("sqlite/0002_background.sql", include_str!("../migrations/sqlite/0002_background.sql")),
    ("postgres/0001_tasks.sql", include_str!("../migrations/postgres/0001_tasks.sql")),
    ("postgres/0002_background.sql", include_str!("../migrations/postgres/0002_background.sql")),
];
/// Longer than the migration of every organisation on one machine takes.
const MIGRATION_WAIT_MAX: Duration = Duration::from_secs(600);
/// How long background tasks may take to end after a failed start.
const SHUT_DOWN_MAX: Duration = Duration::from_secs(1);
/// The server that each fleet on one machine has: a directory of SQLite files.
const SQLITE_SERVER: &str = "local";
/// The name of the PostgreSQL server of the command line.
const POSTGRES_SERVER: &str = "postgres";

/// A running control plane and its client.
#[derive(Debug)]
pub(crate) struct LocalFleet {
    server: RunningServer,
    client: FleetClient,
    new_server: &'static str,
}

impl LocalFleet {
    /// Starts a control plane on the directory, and creates what the directory lacks.
    pub(crate) async fn start(data_dir: &Path, postgres: Option<&SecretString>) -> Result<Self> {
        let data_dir = std::path::absolute(data_dir)?;
        let server = start_control_plane(&data_dir).await;
        let server = server.with_context(|| format!("cannot start the fleet in {}", data_dir.display()))?;
        let token_file = data_dir.join("operator.token");
        let token = std::fs::read_to_string(&token_file);
        let token = token.with_context(|| format!("cannot read {}", token_file.display()))?;
        let client = FleetClient::new(&*server.server_endpoint().admin_url, token.trim())?;
        let mut fleet = Self { server, client, new_server: SQLITE_SERVER };
        match fleet.prepare_fleet(postgres).await {
            Ok(()) => Ok(fleet),
            Err(error) => {
                fleet.stop().await;
                Err(error)
            }
        }
    }

    /// A client of the control plane, with the role admin.
    pub(crate) fn client(&self) -> &FleetClient {
        &self.client
    }

    /// The database server for new organisations.
    pub(crate) fn new_server(&self) -> &str {
        self.new_server
    }

    /// Finishes running requests and operations.
    pub(crate) async fn stop(self) {
        self.server.stop_serving().await;
    }

    async fn prepare_fleet(&mut self, postgres: Option<&SecretString>) -> Result<()> {
        if let Some(address) = postgres {
            self.connect_postgres(address).await.context("cannot use the PostgreSQL server")?;
            self.new_server = POSTGRES_SERVER;
        }
        self.migrate_organisations().await.context("cannot migrate the organisations")
    }

    /// Migrates every organisation, and lets new ones start with the newest version.
    async fn migrate_organisations(&self) -> Result<()> {
        let file = |(name, sql): (&str, &str)| ReleaseFile { name: name.to_owned(), sql: sql.to_owned() };
        let files = MIGRATIONS.into_iter().map(file).collect();
        let new = NewRelease { files, ..NewRelease::default() };
        let release: ReleaseView = self.client.send(&ApiRequest::post("/v1/releases", &new)).await?;
        let status: MigrationStatus = self.client.send(&ApiRequest::get("/v1/migrations/status")).await?;
        if release.current && status.pending == 0 {
            return Ok(());
        }
        let selection = SelectionRequest { all: true, allow_empty: true, ..SelectionRequest::default() };
        let run = MigrationRun { release: Some(release.id), selection, ..MigrationRun::default() };
        let operation: OperationView = self.client.send(&ApiRequest::post("/v1/migrations", &run)).await?;
        self.client.wait_for_operation(&operation.id, MIGRATION_WAIT_MAX).await?;
        Ok(())
    }

    /// Adds the server, or changes its connection, because its password or address may be new.
    async fn connect_postgres(&self, address: &SecretString) -> Result<()> {
        let dsn = Some(address.clone().into());
        let change = ConnectionChange { dsn: dsn.clone(), ..ConnectionChange::default() };
        let entry = ApiRequest::post(format!("/v1/servers/{POSTGRES_SERVER}/entry"), &change);
        let changed = self.client.send::<ServerView>(&entry).await;
        if !matches!(&changed, Err(error) if error.code() == "not_found") {
            return Ok(changed.map(drop)?);
        }
        let (name, engine) = (POSTGRES_SERVER.to_owned(), "postgres".to_owned());
        let new = ServerToAdd { name, engine, dsn, ..ServerToAdd::default() };
        Ok(self.client.send::<ServerView>(&ApiRequest::post("/v1/servers", &new)).await.map(drop)?)
    }
}

async fn start_control_plane(data_dir: &Path) -> Result<RunningServer> {
    if let Some(other) = find_running(data_dir)? {
        bail!("the process {} serves it already", other.pid);
    }
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut config = Config::new(data_dir.to_owned(), ProcessRole::Serving);
    (config.listen, config.admin_listen) = (any_port, any_port);
    App::init_fleet(&config).await?;
    let app = App::open(config).await?;
    match start_server(Arc::clone(&app), ServeOptions::default()).await {
        Ok(server) => Ok(server),
        Err(error) => {
            app.shut_down(SHUT_DOWN_MAX).await;
            Err(error.into())
        }
    }
}
