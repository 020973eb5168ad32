//! A throw-away server with tenants, and PgBouncer in front of it.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postgres_fixture::{Cluster, PASSWORD, ROLE, Settings};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tempfile::TempDir;
use tenant_engine::postgres::{PostgresServer, RequestConnections, RequestOptions, ServerReport, fixture};
use tenant_engine::{ExpectedIdentity, FleetId, Generation, IdentityState, Placement, Pool, TenantId};

use crate::tenants::ROWS;

/// Where Debian puts it.
const PGBOUNCER: &str = "/usr/sbin/pgbouncer";
/// How long it may take to listen.
const START_MAX: Duration = Duration::from_secs(10);

/// A server with databases of [`ROWS`] items each. `fsync` is off, on all sides alike.
#[derive(Debug)]
pub struct Server {
    /// The running server.
    pub cluster: Cluster,
    /// What the engine knows of it.
    pub server: Arc<PostgresServer>,
    /// The tenants' databases.
    pub tenants: Vec<(Placement, ExpectedIdentity)>,
}

impl Server {
    /// With so many tenants.
    ///
    /// # Errors
    /// The server's.
    pub async fn start(connections_max: u32, tenants: usize) -> Result<Self> {
        let cluster = Cluster::with(&Settings { connections_max, ..Settings::default() });
        let server = Arc::new(PostgresServer::new(&cluster.dsn("postgres").into())?);
        let tenants: Vec<_> = (0..tenants).map(|_| tenant(&server)).collect();
        let (at, expected) = tenants.first().context("at least one tenant")?;
        let schema = format!(
            "create table item(id bigint primary key, title text not null);
             insert into item select i, 'item number ' || i from generate_series(1, {ROWS}) i;
             analyze item"
        );
        fixture::create_fixture(at, expected, &schema).await?;
        fixture::copy_fixture(at, &tenants[1..]).await?;
        Ok(Self { cluster, server, tenants })
    }

    /// Our pools, of at most so many connections together.
    ///
    /// # Errors
    /// The engine's.
    pub async fn pools(&self, budget: usize) -> Result<(RequestConnections, Vec<Pool>)> {
        let requests = RequestConnections::new(RequestOptions::default());
        requests.set_slice(&self.server, budget);
        let mut pools = Vec::new();
        for (at, expected) in &self.tenants {
            pools.push(Pool::Postgres(requests.open_pool(at, expected).await?));
        }
        Ok((requests, pools))
    }

    /// A tenant's database as sqlx connects to it.
    #[must_use]
    pub fn options(&self, tenant: usize) -> PgConnectOptions {
        options(self.cluster.port(), self.tenants[tenant].0.catalog_reference())
    }
}

fn tenant(server: &Arc<PostgresServer>) -> (Placement, ExpectedIdentity) {
    let tenant = TenantId::generate();
    let (fleet, generation) = (FleetId::generate(), Generation::FIRST);
    let expected = ExpectedIdentity { tenant, fleet, generation, states: vec![IdentityState::Active] };
    (Placement::new_postgres(server, tenant, generation, 1), expected)
}

fn options(port: u16, database: &str) -> PgConnectOptions {
    let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port);
    options.username(ROLE).password(PASSWORD).database(database).disable_statement_logging()
}

/// The only server of these requests.
///
/// # Panics
/// When none was reached.
#[must_use]
pub fn report(requests: &RequestConnections) -> ServerReport {
    requests.server_reports().pop().expect("the server was reached")
}

/// PgBouncer in transaction mode, one user for all databases; ended when dropped.
#[derive(Debug)]
pub struct PgBouncer {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl PgBouncer {
    /// In front of a server, with so many connections to it.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start(server: &Server, connections_max: usize) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("fleet-pgbouncer-").tempdir()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let ini = dir.path().join("pgbouncer.ini");
        let users = dir.path().join("users.txt");
        fs::write(&users, format!("\"{ROLE}\" \"{PASSWORD}\"\n"))?;
        fs::write(&ini, settings(server.cluster.port(), port, &users, connections_max)?)?;
        // It refuses root as PostgreSQL does; its files must be readable for the other user.
        run(Command::new("chown").arg("-R").arg("postgres:postgres").arg(dir.path()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
        command.arg(PGBOUNCER).arg("-q").arg(&ini).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let bouncer = Self { child: command.spawn().context(PGBOUNCER)?, port, _dir: dir };
        let deadline = Instant::now() + START_MAX;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < deadline, "PgBouncer does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(bouncer)
    }

    /// A client's connection to a tenant's database.
    ///
    /// # Errors
    /// PgBouncer's.
    pub async fn connect(&self, server: &Server, tenant: usize) -> Result<PgConnection> {
        Ok(options(self.port, server.tenants[tenant].0.catalog_reference()).connect().await?)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(server: u16, port: u16, users: &Path, connections_max: usize) -> Result<String> {
    // No user in the line: each database would have one of its own then, and a limit of its own.
    let mut ini = format!("[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\n");
    for (name, value) in [
        ("listen_addr", "127.0.0.1".to_owned()),
        ("listen_port", port.to_string()),
        ("unix_socket_dir", String::new()),
        ("auth_type", "trust".to_owned()),
        ("auth_file", users.display().to_string()),
        ("pool_mode", "transaction".to_owned()),
        ("max_client_conn", "10000".to_owned()),
        // One tenant may use the whole budget; the budget is over all of them, as the user is the same.
        ("default_pool_size", connections_max.to_string()),
        ("max_user_connections", connections_max.to_string()),
        ("ignore_startup_parameters", "extra_float_digits".to_owned()),
        ("query_wait_timeout", "60".to_owned()),
    ] {
        writeln!(ini, "{name} = {value}")?;
    }
    Ok(ini)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "{command:?}");
    Ok(())
}
