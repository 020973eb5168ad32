//! A fleet in a temporary directory.

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::db::{CatalogDsn, CatalogLocation};
use catalog::seal::FleetKey;
use catalog::tenants::{NewTenant, TenantUpdate};
use catalog::tokens::TokenScope;
use catalog::{Catalog, CatalogClock, Generation, ServerId, TenantId, TenantName, TenantRecord, TenantState};
use catalog::{servers, tenants, tokens};
use postgres_fixture::{Cluster, ROLE};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tenant_engine::sqlite::{SqliteEngine, SqliteOptions};
use tenant_engine::{
    Engine, ExpectedIdentity, Identity, IdentityState, MigrationSet, Placement, migration::MigrationFile,
};
use tenant_router::{AccessLevel, RequestView, Result, Role, Router, RouterBuilder, Tenant};

/// What every tenant's database has: the same keys everywhere, content that is the tenant's alone.
const SCHEMA: &str = "create table notes (id integer primary key, body text not null) strict;";

pub(crate) struct World {
    pub(crate) catalog: Catalog,
    pub(crate) engine: Arc<SqliteEngine>,
    server: ServerId,
    location: CatalogLocation,
    key: String,
    dir: TempDir,
    clock: CatalogClock,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_clock(clock()).await
    }

    /// A fleet whose clock the test moves.
    pub(crate) async fn with_clock(clock: CatalogClock) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let location = CatalogLocation::File(dir.path().join("catalog.db"));
        Self::with_catalog(dir, location, clock).await
    }

    /// A fleet whose catalog is in a database of this server.
    pub(crate) async fn on_postgres(cluster: &Cluster) -> Self {
        cluster.psql("postgres", &format!("create database catalog owner {ROLE}"));
        let dsn = CatalogDsn::from_text(&cluster.dsn("catalog")).unwrap();
        Self::with_catalog(tempfile::tempdir().unwrap(), CatalogLocation::Postgres(dsn), clock()).await
    }

    async fn with_catalog(dir: TempDir, location: CatalogLocation, clock: CatalogClock) -> Self {
        let key = FleetKey::generate().secret_text().expose_secret().to_owned();
        let catalog = Catalog::create(&location, FleetKey::from_text(&key).unwrap(), Arc::clone(&clock)).await.unwrap();
        let mut tx = catalog.write().await.unwrap();
        let root = dir.path().join("tenants");
        std::fs::create_dir(&root).unwrap();
        let base = root.to_str().unwrap();
        let server = servers::insert_server(&mut tx, servers::NewServer::in_directory("local", base)).await.unwrap().id;
        tx.commit().await.unwrap();
        let scratch = dir.path().join("scratch");
        let options = SqliteOptions::new(scratch);
        let engine = Arc::new(SqliteEngine::new(options).unwrap());
        Self { catalog, engine, server, location, key, dir, clock }
    }

    /// Another process's view of the same catalog.
    pub(crate) async fn other_catalog(&self) -> Catalog {
        Catalog::open(&self.location, FleetKey::from_text(&self.key).unwrap(), Arc::clone(&self.clock)).await.unwrap()
    }

    pub(crate) fn builder(&self) -> RouterBuilder {
        Router::builder(self.catalog.clone()).engine(self.engine.clone())
    }

    /// The router of another process.
    pub(crate) async fn other_router(&self) -> Router {
        Router::builder(self.other_catalog().await).engine(self.engine.clone()).build().await.unwrap()
    }

    pub(crate) async fn router(&self) -> Router {
        self.builder().build().await.unwrap()
    }

    /// An active tenant with notes 1 to 3, whose bodies only it has.
    pub(crate) async fn tenant(&self, name: &str) -> TenantId {
        let id = TenantId::generate();
        let new = NewTenant { id, name: slug(name), server_id: self.server, labels: BTreeMap::new(), plan: None };
        let mut tx = self.catalog.write().await.unwrap();
        tenants::insert_many(&mut tx, &[new]).await.unwrap();
        tx.commit().await.unwrap();
        self.fill(id, &format!("canary of {name}")).await;
        self.update_tenant(id, |update| update.state = Some(TenantState::Active)).await;
        id
    }

    /// Several tenants.
    pub(crate) async fn tenants(&self, names: &[&str]) -> Vec<TenantId> {
        let mut ids = Vec::new();
        for name in names {
            ids.push(self.tenant(name).await);
        }
        ids
    }

    /// Gives the tenant a new database with this canary in a placement of its own, as a restore does.
    pub(crate) async fn fill(&self, id: TenantId, canary: &str) {
        let record = self.record(id).await;
        let at = self.fresh_placement(&record).await;
        let next = self.identity(&record, record.generation.next(), IdentityState::Building);
        let file = MigrationFile { name: "0001_notes.sql".to_owned(), sql: SCHEMA.to_owned() };
        let template = self
            .engine
            .prepare_template(
                &tenant_engine::DatabaseServer::new_sqlite(self.dir.path()),
                &MigrationSet::from_files(&[file]).unwrap(),
            )
            .await
            .unwrap();
        self.engine.provision_database(&at, &template, &next).await.unwrap();
        let db = rusqlite::Connection::open(at.file_path()).unwrap();
        for note in 1..=3 {
            let body = format!("{canary}, note {note}");
            db.execute("insert into notes (id, body) values (?1, ?2)", rusqlite::params![note, body]).unwrap();
        }
        drop(db);
        let expected = ExpectedIdentity { states: vec![IdentityState::Building], ..expected(&next) };
        let active = Identity { state: IdentityState::Active, ..next };
        self.engine.stamp_identity(&at, &expected, &active).await.unwrap();
        let mut update = TenantUpdate::for_generation(id, record.generation);
        update.placement = Some(Some(at.catalog_reference().to_owned()));
        self.apply(update).await;
    }

    /// Changes a tenant's row as operations do: first the database gets the generation the row will have, then the row.
    pub(crate) async fn update_tenant(&self, id: TenantId, change: impl FnOnce(&mut TenantUpdate)) {
        self.stamp_ahead(id).await;
        self.update_record(id, change).await;
    }

    /// The first half of an update: the database is ahead of the catalog.
    pub(crate) async fn stamp_ahead(&self, id: TenantId) {
        let record = self.record(id).await;
        let now = self.identity(&record, record.generation, IdentityState::Active);
        let next = Identity { generation: record.generation.next(), ..now.clone() };
        self.engine.stamp_identity(&self.placement(&record).await, &expected(&now), &next).await.unwrap();
    }

    /// The second half.
    pub(crate) async fn update_record(&self, id: TenantId, change: impl FnOnce(&mut TenantUpdate)) {
        let mut update = TenantUpdate::for_generation(id, self.record(id).await.generation);
        change(&mut update);
        self.apply(update).await;
    }

    async fn apply(&self, update: TenantUpdate) {
        let mut tx = self.catalog.write().await.unwrap();
        assert!(tenants::update_many(&mut tx, &[update]).await.unwrap().is_empty(), "another process updated it");
        tx.commit().await.unwrap();
    }

    pub(crate) async fn record(&self, id: TenantId) -> TenantRecord {
        tenants::get(&mut self.catalog.read().await.unwrap(), id).await.unwrap().unwrap()
    }

    /// Where the tenant's database is now.
    pub(crate) async fn placement(&self, record: &TenantRecord) -> Placement {
        let server = servers::get(&mut self.catalog.read().await.unwrap(), record.server_id).await.unwrap().unwrap();
        tenant_engine::DatabaseServer::new_sqlite(server.base)
            .parse_placement(record.placement.as_deref().unwrap())
            .unwrap()
    }

    async fn fresh_placement(&self, record: &TenantRecord) -> Placement {
        let mut tx = self.catalog.write().await.unwrap();
        let epoch = tenants::next_epochs(&mut tx, &[record.id]).await.unwrap()[0].1;
        tx.commit().await.unwrap();
        Placement::new_sqlite(&self.dir.path().join("tenants"), record.id, record.generation.next(), epoch)
    }

    fn identity(&self, record: &TenantRecord, generation: Generation, state: IdentityState) -> Identity {
        let fleet = self.catalog.fleet_id();
        Identity { tenant: record.id, fleet, generation, state, op: None, stamped_at: self.catalog.now() }
    }

    /// The secret of a new token.
    pub(crate) async fn token(&self, scope: TokenScope) -> String {
        self.create_token(scope, None).await
    }

    /// The secret of a new token that ends at this time.
    pub(crate) async fn token_until(&self, scope: TokenScope, expires_at: i64) -> String {
        self.create_token(scope, Some(expires_at)).await
    }

    async fn create_token(&self, scope: TokenScope, expires_at: Option<i64>) -> String {
        let mut tx = self.catalog.write().await.unwrap();
        let (_, secret) = tokens::create_token(&mut tx, scope, None, expires_at).await.unwrap();
        tx.commit().await.unwrap();
        secret.expose_secret().to_owned()
    }

    /// A tenant of this name, opened by one of its managers.
    pub(crate) async fn open_as_manager<A: AccessLevel>(&self, name: &str) -> Tenant<A> {
        let found = tenants::by_name(&mut self.catalog.read().await.unwrap(), &slug(name)).await.unwrap().unwrap();
        open(&self.router().await, name, &self.token_for(found.id, Role::Manager).await).await.unwrap()
    }

    /// The secret of a token that opens one tenant.
    pub(crate) async fn token_for(&self, tenant: TenantId, role: Role) -> String {
        self.token(TokenScope::Tenant { tenant, role }).await
    }
}

/// What `note` reads by default.
pub(crate) fn canary(name: &str, note: i64) -> String {
    format!("canary of {name}, note {note}")
}

/// A request to `/t/{tenant}/notes` with this token.
pub(crate) async fn open<A: AccessLevel>(router: &Router, tenant: &str, token: &str) -> Result<Tenant<A>> {
    let path = format!("/t/{tenant}/notes");
    router.open(&RequestView { credential: Some(token), path: &path, ..RequestView::default() }).await
}

/// The body of one note.
pub(crate) async fn note<A: AccessLevel>(tenant: &Tenant<A>, note: i64) -> Result<String> {
    let rows = tenant.query("select body from notes where id = ?1", [note]).await?;
    match &rows.rows[0][0] {
        tenant_engine::SqlValue::Text(body) => Ok(body.clone()),
        other => panic!("{other:?} is no note"),
    }
}

pub(crate) fn slug(name: &str) -> TenantName {
    TenantName::parse_slug(name).unwrap()
}

fn expected(identity: &Identity) -> ExpectedIdentity {
    ExpectedIdentity {
        tenant: identity.tenant,
        fleet: identity.fleet,
        generation: identity.generation,
        states: vec![identity.state],
    }
}

pub(crate) fn clock() -> catalog::CatalogClock {
    Arc::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_millis()).unwrap()
    })
}
