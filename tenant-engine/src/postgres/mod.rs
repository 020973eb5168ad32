//! PostgreSQL: one database per tenant on servers that hold many.
//!
//! [`PostgresServer`] knows how to enter a server (`dsn.rs`) and which logins its databases have (`logins.rs`);
//! `identity.rs` reads whose a database is; `error.rs` says what a failure means. `requests/` is the other half: the
//! connections of tenants' requests.
//!
//! The verbs have a file each. Under them: `site.rs` (what this process keeps about a server) and `work.rs` (a
//! connection whose every wait ends), `prepare.rs` (the roles of a server), `migrator.rs` (the login that migrates),
//! `rights.rs` and `functions.rs` (functions that tell of other databases), `audit.rs` (what differs on a server), `reassert.rs` (passwords and settings of logins), `layout.rs` (what every database has), `database.rs` and `sessions.rs` (databases and who is in them), `settings.rs` (what every session is told); for
//! migrations `script.rs`, `rules.rs`, `bare.rs`, `failure.rs` and `ledger.rs`; for dumps `tool.rs`, `archive.rs`,
//! `contents.rs`, `load.rs`, `complaints.rs`, `checks.rs`, `generated.rs`, `grants.rs`; `objects.rs` (what a copy has besides rows),
//! `locale.rs` (how it sorts), `undumpable.rs` and `source.rs` (what is refused).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::engine::{Connections, Engine, Migrated, Template};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Fingerprint;
use crate::found::{Found, Listing};
use crate::identity::{Expected, Identity};
use crate::inspection::{Depth, Inspection};
use crate::migration::MigrationSet;
use crate::placement::{EngineKind, Placement, parse_postgres};
use crate::pool::Pool;
use crate::server::{RoleAudit, Server, Survey};
use crate::snapshot::{Image, Restored, Snapshot};

use site::{Site, Sites};
use tool::Tools;
use work::Patience;

mod adopt;
mod archive;
mod audit;
mod bare;
mod checks;
mod complaints;
mod contents;
mod database;
mod databases;
mod drop;
mod dsn;
mod error;
mod failure;
mod fingerprint;
mod functions;
mod generated;
mod grants;
mod identity;
mod inspect;
mod layout;
mod ledger;
mod load;
mod locale;
mod logins;
mod migrate;
mod migrator;
mod objects;
mod prepare;
mod provision;
mod quarantine;
mod reassert;
pub mod requests;
mod restore;
mod rights;
mod rules;
mod script;
mod server;
mod sessions;
mod settings;
mod site;
mod snapshot;
mod source;
mod sql;
mod sqlstate;
mod stamp;
mod survey;
mod template;
mod tool;
mod undumpable;
mod work;

pub(crate) use archive::content_hash;

#[cfg(feature = "test-util")]
pub use requests::fixture;
pub use requests::{PostgresPool, PostgresSession, RequestOptions, Requests, ServerReport};
pub use server::PostgresServer;

/// Settings of the engine.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Where dumps too large for memory are written; must be on a disk with room.
    pub scratch: PathBuf,
    /// The directory of `pg_dump` and `pg_restore`; `None`: the newest in `/usr/lib/postgresql/*/bin`, else the search
    /// path.
    pub tools: Option<PathBuf>,
    /// How long a migration or another verb waits for a lock that an application holds; everybody who comes after
    /// waits behind it meanwhile.
    pub lock_timeout: Duration,
    /// How long one statement may run. Files marked `-- no-transaction` have hours.
    pub statement_timeout: Duration,
    /// Connections for requests that this process may hold to one server, whatever the server allows; `None`: no bound.
    pub connections_max: Option<usize>,
}

impl PostgresOptions {
    /// Two seconds for a lock, ten minutes for a statement.
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

/// The PostgreSQL engine. Clones share what is known about the servers.
#[derive(Debug, Clone)]
pub struct PostgresEngine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sites: Sites,
    requests: Requests,
    tools: Tools,
    options: PostgresOptions,
}

impl PostgresEngine {
    /// Opens nothing yet; servers come with the calls.
    #[must_use]
    pub fn new(options: PostgresOptions) -> Self {
        let tools = Tools::find(options.tools.clone());
        let requests = Requests::new(RequestOptions { connections_max: options.connections_max });
        Self { inner: Arc::new(Inner { sites: Sites::default(), requests, tools, options }) }
    }

    /// The connections of requests, for whoever watches them.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.inner.requests
    }

    /// Refuses new requests and closes their connections; verbs that run go on to their end.
    pub async fn shutdown(&self) {
        self.inner.requests.shutdown().await;
    }

    fn tools(&self) -> &Tools {
        &self.inner.tools
    }

    fn scratch(&self) -> &Path {
        &self.inner.options.scratch
    }

    fn patience(&self) -> Patience {
        let PostgresOptions { lock_timeout: lock, statement_timeout: statement, .. } = self.inner.options;
        Patience { lock, statement }
    }

    fn site_of(&self, server: &Server) -> Result<Arc<Site>> {
        match server {
            Server::Postgres(server) => Ok(self.inner.sites.of(server, self.patience())),
            Server::Sqlite { .. } => Err(another_engines("server")),
        }
    }

    /// The server of a placement, and the name of its database: never anything but what this program makes from ids.
    fn site<'a>(&self, at: &'a Placement) -> Result<(Arc<Site>, &'a str)> {
        let (server, database) = at.database().ok_or_else(|| another_engines("placement"))?;
        parse_postgres(server, database)
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()).with_source(error))?;
        Ok((self.inner.sites.of(server, self.patience()), database))
    }
}

fn another_engines(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("this {what} is another engine's"))
}

#[async_trait]
impl Engine for PostgresEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Postgres
    }
    async fn survey(&self, server: &Server) -> Result<Survey> {
        survey::survey(self, server).await
    }
    async fn preparation(&self, on: &Server) -> Result<Option<String>> {
        rights::preparation(self, on).await.map(Some)
    }
    async fn audit(&self, on: &Server) -> Result<RoleAudit> {
        audit::audit(self, on).await
    }
    async fn template(&self, on: &Server, set: &MigrationSet) -> Result<Arc<Template>> {
        template::template(self, on, set).await
    }
    async fn provision(&self, at: &Placement, template: &Template, identity: &Identity) -> Result<()> {
        provision::provision(self, at, template, identity).await
    }
    async fn connect(&self, at: &Placement, expected: &Expected) -> Result<Pool> {
        self.inner.requests.connect(at, expected).await.map(Pool::Postgres)
    }
    async fn migrate(
        &self,
        at: &Placement,
        expected: &Expected,
        set: &MigrationSet,
        target: Option<i64>,
    ) -> Result<Migrated> {
        migrate::migrate(self, at, expected, set, target).await
    }
    async fn snapshot(&self, at: &Placement, expected: &Expected) -> Result<Snapshot> {
        snapshot::snapshot(self, at, expected).await
    }
    async fn restore(
        &self,
        at: &Placement,
        image: Image,
        source: crate::TenantId,
        identity: &Identity,
    ) -> Result<Restored> {
        restore::restore(self, at, image, source, identity).await
    }
    async fn adopt(&self, at: &Placement, source: &SecretString, identity: &Identity) -> Result<Restored> {
        adopt::adopt(self, at, source, identity).await
    }
    async fn stamp(&self, at: &Placement, expected: &Expected, identity: &Identity) -> Result<()> {
        stamp::stamp(self, at, expected, identity).await
    }
    async fn freeze(&self, at: &Placement, expected: &Expected, identity: &Identity) -> Result<()> {
        stamp::freeze(self, at, expected, identity).await
    }
    async fn drop_database(&self, at: &Placement, expected: Option<&Expected>) -> Result<()> {
        drop::drop_database(self, at, expected).await
    }
    async fn databases(&self, on: &Server, of: Option<crate::TenantId>) -> Result<Listing> {
        databases::databases(self, on, of).await
    }
    async fn quarantine(&self, on: &Server, found: &Found, expected: Option<&Expected>, label: &str) -> Result<String> {
        quarantine::quarantine(self, on, found, expected, label).await
    }
    async fn size(&self, at: &Placement) -> Result<u64> {
        inspect::size(self, at).await
    }

    async fn inspect(&self, at: &Placement, expected: Option<&Expected>, depth: Depth) -> Result<Inspection> {
        inspect::inspect(self, at, expected, depth).await
    }
    async fn fingerprint(&self, at: &Placement, expected: &Expected) -> Result<Fingerprint> {
        fingerprint::fingerprint(self, at, expected).await
    }
    fn connections(&self, server: &Server) -> Option<Connections> {
        match server {
            Server::Postgres(server) => self.inner.requests.connections(server),
            Server::Sqlite { .. } => None,
        }
    }
    fn set_connections_max(&self, server: &Server, connections: u64) {
        if let Server::Postgres(server) = server {
            self.inner.requests.set_slice(server, usize::try_from(connections).unwrap_or(usize::MAX));
        }
    }
}
