//! [`TestFleet`]: a throw-away fleet for an application's own tests. It has a real catalog and real databases in a
//! temporary directory, or on a PostgreSQL server that the test names.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use catalog::db::CatalogLocation;
use catalog::home::{CATALOG_FILE, KEY_FILE};
use catalog::members::{self, Role};
use catalog::plans::{self, PlanLimits};
use catalog::seal::FleetKey;
use catalog::servers::{self, NewServer};
use catalog::tenants::{self, NewTenant, TenantUpdate};
use catalog::tokens::{self, TokenScope};
use catalog::{Catalog, Generation, ServerId, TenantId, TenantName, TenantState, WriteTx, external_accounts};
use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;
use tenant_engine::migration::MigrationFile;
use tenant_engine::{
    DatabaseServer, DatabaseTemplate, Engine, ExpectedIdentity, Identity, IdentityState, MigrationSet, Placement,
};

use crate::builder::RouterBuilder;
use crate::error::{Error, ErrorKind, Result};
use crate::fleet::{self, Fleet};
use crate::router::Router;

/// The schema of every tenant of a [`TestFleet`].
#[derive(Debug, Clone)]
pub enum TestSchema {
    /// The text of one migration.
    Sql(String),
    /// A directory of migrations, as `fleetctl migrate` reads it.
    Directory(PathBuf),
}

impl From<&str> for TestSchema {
    fn from(sql: &str) -> Self {
        Self::Sql(sql.to_owned())
    }
}

impl From<&Path> for TestSchema {
    fn from(directory: &Path) -> Self {
        Self::Directory(directory.to_owned())
    }
}

impl TestSchema {
    fn read_set(self) -> Result<MigrationSet> {
        let set = match self {
            Self::Sql(sql) => MigrationSet::from_files(&[MigrationFile { name: "0001_schema.sql".to_owned(), sql }]),
            Self::Directory(directory) => MigrationSet::read_directory(&directory).map(|(set, _)| set),
        };
        set.map_err(test_error)
    }
}

/// A fleet that ends with the value.
///
/// ```
/// # use tenant_router::test_fleet::TestFleet;
/// # use tenant_router::{Role, Router};
/// # async fn test() -> Result<(), tenant_router::Error> {
/// let fleet = TestFleet::start("create table tasks (title text not null)", ["acme", "globex"]).await?;
/// let router: &Router = fleet.router();
/// let token: String = fleet.token("acme", Role::Writer).await?;
/// # Ok(()) }
/// ```
pub struct TestFleet {
    router: Router,
    catalog: Catalog,
    engine: Arc<dyn Engine>,
    server: DatabaseServer,
    server_id: ServerId,
    template: Arc<DatabaseTemplate>,
    tenants: HashMap<String, (TenantId, Placement)>,
    directory: TempDir,
}

impl TestFleet {
    /// A fleet with these tenants on SQLite.
    ///
    /// # Errors
    /// `migration_invalid` and `migration_failed` for the schema; those of the catalog and the engine.
    #[cfg(feature = "sqlite")]
    pub async fn start<'a>(schema: impl Into<TestSchema>, tenants: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        use tenant_engine::sqlite::{SqliteEngine, SqliteOptions};

        let directory = new_directory()?;
        let base = directory.path().join("tenants");
        std::fs::create_dir(&base).map_err(test_error)?;
        let engine = SqliteEngine::new(SqliteOptions::new(directory.path().join("engine"))).map_err(test_error)?;
        let shown = base.to_string_lossy().into_owned();
        let new = NewServer::in_directory("test", &shown);
        let parts = TestServerParts { engine: Arc::new(engine), server: DatabaseServer::new_sqlite(&base), new };
        Self::start_on(directory, parts, schema.into(), tenants).await
    }

    /// A fleet with these tenants on a PostgreSQL server, which is named by the connection string of a role that may create
    /// databases and roles. End it with [`TestFleet::remove`]: the databases stay on the server otherwise.
    ///
    /// # Errors
    /// As [`TestFleet::start`].
    #[cfg(feature = "postgres")]
    pub async fn start_on_postgres<'a>(
        dsn: &str,
        schema: impl Into<TestSchema>,
        tenants: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self> {
        use tenant_engine::EngineKind;
        use tenant_engine::postgres::{PostgresEngine, PostgresOptions, PostgresServer};

        let directory = new_directory()?;
        let server = Arc::new(PostgresServer::new(&SecretString::from(dsn)).map_err(test_error)?);
        let (base, secret) = (server.host_and_port().to_owned(), server.secret_text());
        let new = NewServer::in_directory("test", &base);
        let new = NewServer { engine: EngineKind::Postgres, secret: Some(&secret), ..new };
        let engine = Arc::new(PostgresEngine::new(PostgresOptions::new(directory.path().join("engine"))));
        let parts = TestServerParts { engine, server: DatabaseServer::Postgres(server), new };
        Self::start_on(directory, parts, schema.into(), tenants).await
    }

    async fn start_on<'a>(
        directory: TempDir,
        parts: TestServerParts<'_>,
        schema: TestSchema,
        tenants: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self> {
        let TestServerParts { engine, server, new } = parts;
        let catalog = create_catalog(directory.path()).await?;
        let mut tx = catalog.write().await?;
        let server_id = servers::insert_server(&mut tx, new).await?.id;
        tx.commit().await?;
        let template = engine.prepare_template(&server, &schema.read_set()?).await.map_err(test_error)?;
        let router = Fleet::at(directory.path().to_string_lossy()).router().await?.build().await?;
        let none = HashMap::new();
        let mut fleet = Self { router, catalog, engine, server, server_id, template, tenants: none, directory };
        for name in tenants {
            fleet.add_tenant(name).await?;
        }
        Ok(fleet)
    }

    /// A router with the default settings.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Settings for another router on the same fleet, as the application makes it.
    ///
    /// # Errors
    /// As [`Fleet::router`].
    pub async fn router_builder(&self) -> Result<RouterBuilder> {
        Fleet::at(self.directory.path().to_string_lossy()).router().await
    }

    /// The fleet's data directory, for `fleetctl --data-dir` or [`Fleet::at`].
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.directory.path()
    }

    /// Creates a tenant with an empty database of the fleet's schema.
    ///
    /// # Errors
    /// `tenant_name_invalid`, `already_exists`; those of the catalog and the engine.
    pub async fn add_tenant(&mut self, name: &str) -> Result<TenantId> {
        let (id, slug) = (TenantId::generate(), parse_name(name)?);
        let generation = Generation::FIRST.next();
        let at = self.server.fresh_placement(id, generation, 1);
        let (fleet, state) = (self.catalog.fleet_id(), IdentityState::Active);
        let identity = Identity { tenant: id, fleet, generation, state, op: None, stamped_at: self.catalog.now() };
        self.engine.provision_database(&at, &self.template, &identity).await?;
        let mut tx = self.catalog.write().await?;
        let new = NewTenant { id, name: slug, server_id: self.server_id, labels: BTreeMap::new(), plan: None };
        tenants::insert_many(&mut tx, &[new]).await?;
        activate_tenant(&mut tx, id, &at).await?;
        tx.commit().await?;
        self.tenants.insert(name.to_owned(), (id, at));
        self.router.catch_up().await?;
        Ok(id)
    }

    /// The id of a tenant of this fleet.
    ///
    /// # Errors
    /// `not_found`.
    pub fn tenant_id(&self, name: &str) -> Result<TenantId> {
        self.tenants.get(name).map(|(id, _)| *id).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// A new token that opens one tenant.
    ///
    /// # Errors
    /// `not_found`; those of the catalog.
    pub async fn token(&self, tenant: &str, role: Role) -> Result<String> {
        self.create_token(TokenScope::Tenant { tenant: self.tenant_id(tenant)?, role }).await
    }

    /// A new token of a user. The user's memberships decide which tenants it opens.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn member_token(&self, principal: &str) -> Result<String> {
        self.create_token(TokenScope::Member { principal: principal.to_owned() }).await
    }

    /// Makes a user a member of a tenant, or changes its role.
    ///
    /// # Errors
    /// `not_found`; those of the catalog.
    pub async fn set_member(&self, tenant: &str, principal: &str, role: Role) -> Result<()> {
        let id = self.tenant_id(tenant)?;
        let mut tx = self.catalog.write().await?;
        members::set_member(&mut tx, id, principal, role).await?;
        tx.commit().await?;
        self.router.catch_up().await
    }

    /// Gives a tenant a plan of its own with these limits, as `fleetctl plan` and `fleetctl tenant set` do.
    ///
    /// # Errors
    /// `not_found`; those of the catalog.
    pub async fn set_limits(&self, tenant: &str, limits: &PlanLimits) -> Result<()> {
        let (id, name) = (self.tenant_id(tenant)?, parse_name(&format!("plan-{tenant}"))?);
        let mut tx = self.catalog.write().await?;
        match plans::get(&mut tx, name.as_str()).await? {
            Some(_) => drop(plans::set_limits(&mut tx, name.as_str(), limits).await?),
            None => drop(plans::add_plan(&mut tx, &name, limits).await?),
        }
        plans::set_tenant_plan(&mut tx, id, Some(name.as_str())).await?;
        tx.commit().await?;
        self.router.catch_up().await
    }

    /// Links an account of another service to a tenant, as `fleetctl tenant account link` does. The secret signs the account's
    /// webhooks; `None`: the application has one secret for all accounts.
    ///
    /// # Errors
    /// `not_found`; those of the catalog, also for an account of another tenant.
    pub async fn link_account(&self, tenant: &str, provider: &str, account: &str, secret: Option<&str>) -> Result<()> {
        let (id, secret) = (self.tenant_id(tenant)?, secret.map(SecretString::from));
        let mut tx = self.catalog.write().await?;
        external_accounts::link_account(&mut tx, id, (provider, account), secret.as_ref()).await?;
        tx.commit().await?;
        self.router.catch_up().await
    }

    /// Closes the fleet and removes its databases, also from a PostgreSQL server.
    ///
    /// # Errors
    /// Those of the engine; the other databases are removed.
    pub async fn remove(self) -> Result<()> {
        self.router.shutdown().await;
        let mut outcome = Ok(());
        for (tenant, at) in self.tenants.into_values() {
            let (fleet, generation) = (self.catalog.fleet_id(), Generation::FIRST.next());
            let expected = ExpectedIdentity { tenant, fleet, generation, states: vec![IdentityState::Active] };
            outcome = outcome.and(self.engine.drop_database(&at, Some(&expected)).await);
        }
        self.catalog.close().await;
        Ok(outcome?)
    }

    async fn create_token(&self, scope: TokenScope) -> Result<String> {
        let mut tx = self.catalog.write().await?;
        let (_, secret) = tokens::create_token(&mut tx, scope, Some("made for a test"), None).await?;
        tx.commit().await?;
        self.router.catch_up().await?;
        Ok(secret.expose_secret().to_owned())
    }
}

impl std::fmt::Debug for TestFleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestFleet").field("tenants", &self.tenants.len()).finish_non_exhaustive()
    }
}

/// The engine of a test fleet, and its only server.
struct TestServerParts<'a> {
    engine: Arc<dyn Engine>,
    server: DatabaseServer,
    new: NewServer<'a>,
}

fn new_directory() -> Result<TempDir> {
    tempfile::Builder::new().prefix("fleet-test-").tempdir().map_err(test_error)
}

/// Writes catalog and key, as `fleetctl init` does.
async fn create_catalog(directory: &Path) -> Result<Catalog> {
    use std::io::Write as _;

    let key = FleetKey::generate();
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(directory.join(KEY_FILE));
    let text = key.secret_text();
    file.and_then(|mut file| file.write_all(text.expose_secret().as_bytes())).map_err(test_error)?;
    let location = CatalogLocation::File(directory.join(CATALOG_FILE));
    Ok(Catalog::create(&location, key, Arc::new(fleet::milliseconds_since_1970)).await?)
}

fn parse_name(name: &str) -> Result<TenantName> {
    TenantName::parse_slug(name).map_err(|error| Error::new(ErrorKind::TenantNameInvalid).with_source(error))
}

async fn activate_tenant(tx: &mut WriteTx, id: TenantId, at: &Placement) -> Result<()> {
    let mut update = TenantUpdate::for_generation(id, Generation::FIRST);
    update.state = Some(TenantState::Active);
    update.placement = Some(Some(at.catalog_reference().to_owned()));
    match tenants::update_many(tx, &[update]).await?.is_empty() {
        true => Ok(()),
        false => Err(test_error("the new tenant is at another generation")),
    }
}

/// The fault of a test or of its machine, with the cause as its text.
fn test_error(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Misconfigured).with_source(cause)
}
