//! A server, an engine, and tenants to use them on.

use std::path::Path;
use std::sync::Arc;

use postgres_fixture::{Cluster, Settings};
use tenant_engine::migration::MigrationFile;
use tenant_engine::postgres::{PostgresEngine, PostgresOptions, PostgresServer};
use tenant_engine::*;

/// A server of its own and an engine on it.
pub(crate) struct Kit {
    pub(crate) engine: PostgresEngine,
    pub(crate) cluster: Cluster,
    pub(crate) postgres: Arc<PostgresServer>,
    pub(crate) fleet: FleetId,
    pub(crate) scratch: tempfile::TempDir,
}

/// One tenant on it.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub(crate) at: Placement,
    pub(crate) identity: Identity,
}

impl Kit {
    pub(crate) fn new() -> Self {
        Self::with(&Settings::default())
    }

    pub(crate) fn with(settings: &Settings) -> Self {
        let cluster = Cluster::with(settings);
        let scratch = tempfile::tempdir().unwrap();
        let postgres = Arc::new(PostgresServer::new(&cluster.dsn("postgres").into()).unwrap());
        Self { engine: engine(scratch.path()), cluster, postgres, fleet: FleetId::generate(), scratch }
    }

    pub(crate) fn server(&self) -> DatabaseServer {
        DatabaseServer::Postgres(Arc::clone(&self.postgres))
    }

    /// A tenant that does not exist yet.
    pub(crate) fn tenant(&self) -> Tenant {
        let tenant = TenantId::generate();
        self.placed(Identity {
            tenant,
            fleet: self.fleet,
            generation: Generation::FIRST,
            state: IdentityState::Active,
            op: None,
            stamped_at: 1_000,
        })
    }

    pub(crate) fn placed(&self, identity: Identity) -> Tenant {
        Tenant { at: self.server().fresh_placement(identity.tenant, identity.generation, 1), identity }
    }

    /// A tenant at the head of `set`.
    pub(crate) async fn provisioned(&self, set: &MigrationSet) -> Tenant {
        let tenant = self.tenant();
        let template = self.engine.prepare_template(&self.server(), set).await.unwrap();
        self.engine.provision_database(&tenant.at, &template, &tenant.identity).await.unwrap();
        tenant
    }

    pub(crate) async fn migrate(&self, tenant: &Tenant, set: &MigrationSet) -> Result<MigrationOutcome> {
        self.engine.migrate_database(&tenant.at, &tenant.expected(), set, None).await
    }

    /// Asks the tenant's database as the superuser.
    pub(crate) fn ask(&self, tenant: &Tenant, sql: &str) -> String {
        self.cluster.psql(tenant.database(), sql)
    }
}

impl Tenant {
    pub(crate) fn expected(&self) -> ExpectedIdentity {
        let Identity { tenant, fleet, generation, state, .. } = self.identity;
        ExpectedIdentity { tenant, fleet, generation, states: vec![state] }
    }

    pub(crate) fn database(&self) -> &str {
        self.at.catalog_reference()
    }

    pub(crate) fn login(&self, access: AccessMode) -> String {
        format!("{}_{}", self.database(), if access == AccessMode::Read { "r" } else { "w" })
    }

    pub(crate) fn at_generation(&self, generation: i64, state: IdentityState) -> Self {
        let identity = Identity { generation: Generation(generation), state, ..self.identity.clone() };
        Self { identity, ..self.clone() }
    }
}

/// An engine with this scratch directory.
pub(crate) fn engine(scratch: &Path) -> PostgresEngine {
    PostgresEngine::new(PostgresOptions::new(scratch))
}

/// A set of (file name, text).
pub(crate) fn set(files: &[(&str, &str)]) -> MigrationSet {
    let file = |(name, sql): &(&str, &str)| MigrationFile { name: (*name).to_owned(), sql: (*sql).to_owned() };
    MigrationSet::from_files(&files.iter().map(file).collect::<Vec<_>>()).unwrap()
}

/// Projects and their tasks, in two versions.
pub(crate) const BASE: [(&str, &str); 2] = [
    ("0001_projects.sql", "create table projects(id integer primary key, name text not null);"),
    (
        "0002_tasks.sql",
        "create table tasks(id serial primary key, title text,\n  \
         project_id integer not null references projects(id) on delete cascade);",
    ),
];

/// [`BASE`] and more.
pub(crate) fn base_and(more: &[(&str, &str)]) -> MigrationSet {
    set(&[&BASE[..], more].concat())
}
