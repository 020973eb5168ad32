//! PostgreSQL: one database per tenant on servers that hold many.
//!
//! A folder imports only from folders to its left, and from the files beside this one; a test enforces it. The files
//! beside this one import from no folder.
//!
//! ```text
//! servers  ◀──  migrations  ◀──  dumps  ◀──  requests  ◀──  actions
//! ```
//!
//! - `servers/` knows how to connect to a server, and its roles, logins, rights and databases.
//! - `migrations/` applies the pending versions to one database.
//! - `dumps/` makes, checks and loads dumps, and says what a dump cannot hold.
//! - `requests/` has the connections of tenants' requests.
//! - `actions/` has a file for each method of [`Engine`].
//!
//! `identity.rs` reads the identity of a database; `error.rs` and `sqlstate.rs` translate errors; `sql.rs` writes
//! values as SQL; `migration_lock.rs` excludes two migrations of one database.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::engine::{ConnectionUsage, DatabaseTemplate, Engine, MigrationOutcome};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::DatabaseFingerprint;
use crate::identity::{ExpectedIdentity, Identity};
use crate::inspection::{Inspection, InspectionDepth};
use crate::listing::{ListedObject, ServerListing};
use crate::migration::{LedgerName, MigrationSet};
use crate::placement::{EngineKind, Placement, parse_postgres};
use crate::pool::Pool;
use crate::server::{DatabaseServer, RoleAudit, ServerSurvey};
use crate::snapshot::{RestoreOutcome, Snapshot, SnapshotImage};

use actions::{
    adopt, audit, databases, drop, fingerprint, inspect, migrate, preparation, provision, quarantine, restore,
    snapshot, stamp, survey, template,
};
use dumps::programs::PostgresTools;
use servers::admin_connection::WaitLimits;
use servers::claim;
use servers::server_state::{PostgresServerState, PostgresServerStates};

mod actions;
mod dumps;
mod error;
mod identity;
mod migration_lock;
mod migrations;
pub mod requests;
mod servers;
mod sql;
mod sqlstate;

pub(crate) use dumps::archive::content_hash;
pub(crate) use migrations::rules::migration_refusals;

pub use error::from_sqlx as from_driver;
#[cfg(feature = "test-util")]
pub use requests::fixture;
pub use requests::{PostgresLentTx, PostgresPool, PostgresSession, RequestConnections, RequestOptions, ServerReport};
pub use servers::claim::carried_claim;
pub use servers::server::PostgresServer;

/// Settings of the PostgreSQL engine.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Directory for dumps that are too large for memory; its disk must have free space.
    pub scratch: PathBuf,
    /// Directory of `pg_dump` and `pg_restore`. `None`: the newest in `/usr/lib/postgresql/*/bin`, otherwise those on
    /// the search path.
    pub tools: Option<PathBuf>,
    /// Longest wait of a migration or another engine operation for a lock that an application holds. Later sessions
    /// wait behind it in the meantime.
    pub lock_timeout: Duration,
    /// Longest time of one statement. Files marked `-- no-transaction` have hours.
    pub statement_timeout: Duration,
    /// Maximum connections for requests of this process to one server, whatever the server allows; `None`: no maximum.
    pub connections_max: Option<usize>,
}

impl PostgresOptions {
    /// Two seconds for a lock, ten minutes for a statement, and no maximum of connections.
    #[must_use]
    pub fn new(scratch: impl Into<PathBuf>) -> Self {
        Self {
            scratch: scratch.into(),
            tools: None,
            lock_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(600),
            connections_max: None,
        }
    }
}

/// The PostgreSQL engine. Clones share the state of the servers.
#[derive(Debug, Clone)]
pub struct PostgresEngine {
    inner: Arc<PostgresEngineInner>,
}

#[derive(Debug)]
struct PostgresEngineInner {
    sites: PostgresServerStates,
    requests: RequestConnections,
    tools: PostgresTools,
    options: PostgresOptions,
}

impl PostgresEngine {
    /// Opens no connection yet; servers are named in later calls.
    #[must_use]
    pub fn new(options: PostgresOptions) -> Self {
        let tools = PostgresTools::find_programs(options.tools.clone());
        let requests = RequestConnections::new(RequestOptions { connections_max: options.connections_max });
        Self {
            inner: Arc::new(PostgresEngineInner { sites: PostgresServerStates::default(), requests, tools, options }),
        }
    }

    /// The connections of requests, for metrics and reports.
    #[must_use]
    pub fn request_connections(&self) -> &RequestConnections {
        &self.inner.requests
    }

    /// Refuses new requests and closes their connections. Running engine operations continue to their end.
    pub async fn shut_down(&self) {
        self.inner.requests.shut_down().await;
    }

    fn postgres_tools(&self) -> &PostgresTools {
        &self.inner.tools
    }

    fn scratch_directory(&self) -> &Path {
        &self.inner.options.scratch
    }

    fn wait_limits(&self) -> WaitLimits {
        let PostgresOptions { lock_timeout: lock, statement_timeout: statement, .. } = self.inner.options;
        WaitLimits { lock, statement }
    }

    fn state_of_server(&self, server: &DatabaseServer) -> Result<Arc<PostgresServerState>> {
        match server {
            DatabaseServer::Postgres(server) => Ok(self.inner.sites.for_server(server, self.wait_limits())),
            DatabaseServer::Sqlite { .. } => Err(another_engines("server")),
        }
    }

    /// The server and the database name of a placement. The name is always one that this program makes from ids.
    fn locate_placement<'a>(&self, at: &'a Placement) -> Result<(Arc<PostgresServerState>, &'a str)> {
        let (server, database) = at.postgres_database().ok_or_else(|| another_engines("placement"))?;
        parse_postgres(server, database)
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()).with_source(error))?;
        Ok((self.inner.sites.for_server(server, self.wait_limits()), database))
    }
}

fn another_engines(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("this {what} belongs to another engine"))
}

#[async_trait]
impl Engine for PostgresEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Postgres
    }
    async fn survey_server(&self, server: &DatabaseServer) -> Result<ServerSurvey> {
        survey::survey_server(self, server).await
    }
    async fn preparation_script(&self, on: &DatabaseServer) -> Result<Option<String>> {
        preparation::preparation_script(self, on).await.map(Some)
    }
    async fn audit_roles(&self, on: &DatabaseServer) -> Result<RoleAudit> {
        audit::audit_roles(self, on).await
    }
    async fn prepare_template(&self, on: &DatabaseServer, set: &MigrationSet) -> Result<Arc<DatabaseTemplate>> {
        template::prepare_template(self, on, set).await
    }
    async fn provision_database(&self, at: &Placement, template: &DatabaseTemplate, identity: &Identity) -> Result<()> {
        provision::provision_database(self, at, template, identity).await
    }
    async fn open_pool(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<Pool> {
        claim::require_for_requests(&self.locate_placement(at)?.0).await?;
        self.inner.requests.open_pool(at, expected).await.map(Pool::Postgres)
    }
    async fn migrate_database(
        &self,
        at: &Placement,
        expected: &ExpectedIdentity,
        set: &MigrationSet,
        target: Option<i64>,
    ) -> Result<MigrationOutcome> {
        migrate::migrate_database(self, at, expected, set, target).await
    }
    async fn take_snapshot(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<Snapshot> {
        snapshot::take_snapshot(self, at, expected).await
    }
    async fn restore_database(
        &self,
        at: &Placement,
        image: SnapshotImage,
        source: crate::TenantId,
        identity: &Identity,
    ) -> Result<RestoreOutcome> {
        restore::restore_database(self, at, image, source, identity).await
    }
    async fn adopt_database(
        &self,
        at: &Placement,
        source: &SecretString,
        identity: &Identity,
        ledger: &LedgerName,
    ) -> Result<RestoreOutcome> {
        adopt::adopt_database(self, at, source, (identity, ledger)).await
    }
    async fn stamp_identity(&self, at: &Placement, expected: &ExpectedIdentity, identity: &Identity) -> Result<()> {
        stamp::stamp_identity(self, at, expected, identity).await
    }
    async fn freeze_database(&self, at: &Placement, expected: &ExpectedIdentity, identity: &Identity) -> Result<()> {
        stamp::freeze_database(self, at, expected, identity).await
    }
    async fn drop_database(&self, at: &Placement, expected: Option<&ExpectedIdentity>) -> Result<()> {
        drop::drop_database(self, at, expected).await
    }
    async fn list_databases(&self, on: &DatabaseServer, of: Option<crate::TenantId>) -> Result<ServerListing> {
        databases::list_databases(self, on, of).await
    }
    async fn quarantine_object(
        &self,
        on: &DatabaseServer,
        found: &ListedObject,
        expected: Option<&ExpectedIdentity>,
        label: &str,
    ) -> Result<String> {
        quarantine::quarantine_object(self, on, found, expected, label).await
    }
    async fn database_size(&self, at: &Placement) -> Result<u64> {
        inspect::database_size(self, at).await
    }

    async fn inspect_database(
        &self,
        at: &Placement,
        expected: Option<&ExpectedIdentity>,
        depth: InspectionDepth,
    ) -> Result<Inspection> {
        inspect::inspect_database(self, at, expected, depth).await
    }
    async fn compute_fingerprint(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<DatabaseFingerprint> {
        fingerprint::compute_fingerprint(self, at, expected).await
    }
    fn connection_usage(&self, server: &DatabaseServer) -> Option<ConnectionUsage> {
        match server {
            DatabaseServer::Postgres(server) => self.inner.requests.connection_usage(server),
            DatabaseServer::Sqlite { .. } => None,
        }
    }
    fn set_connections_max(&self, server: &DatabaseServer, connections: u64) {
        if let DatabaseServer::Postgres(server) = server {
            self.inner.requests.set_slice(server, usize::try_from(connections).unwrap_or(usize::MAX));
        }
    }
}
