//! A server directory, an engine, and tenants to use them on.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tenant_engine::migration::MigrationFile;
use tenant_engine::sqlite::{SqliteEngine, SqliteOptions};
use tenant_engine::*;

/// A server directory and an engine on it.
pub(crate) struct Kit {
    pub(crate) engine: SqliteEngine,
    pub(crate) fleet: FleetId,
    pub(crate) root: Root,
    /// Not in a directory that is listed.
    pub(crate) scratch: Root,
}

/// Where the databases are.
pub(crate) enum Root {
    /// Gone with the value.
    Own(tempfile::TempDir),
    /// Somebody else's.
    Given(PathBuf),
}

impl Root {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Own(directory) => directory.path(),
            Self::Given(path) => path,
        }
    }
}

/// One tenant on it.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub(crate) at: Placement,
    pub(crate) identity: Identity,
}

impl Kit {
    pub(crate) fn new() -> Self {
        Self::on(Root::Own(tempfile::tempdir().unwrap()))
    }

    /// An engine on a directory that is there already.
    pub(crate) fn at(directory: &Path) -> Self {
        Self::on(Root::Given(directory.to_path_buf()))
    }

    fn on(root: Root) -> Self {
        let scratch = match &root {
            Root::Own(_) => Root::Own(tempfile::tempdir().unwrap()),
            Root::Given(path) => Root::Given(path.join("scratch")),
        };
        let options = SqliteOptions::new(scratch.path());
        Self { engine: SqliteEngine::new(options).unwrap(), fleet: FleetId::generate(), root, scratch }
    }

    /// Where its tenants live.
    pub(crate) fn server(&self) -> DatabaseServer {
        DatabaseServer::new_sqlite(self.root.path())
    }

    /// Every tenant on the server, by what their databases say.
    pub(crate) fn all(&self) -> Vec<Tenant> {
        let folders = std::fs::read_dir(self.root.path()).unwrap();
        let ids = folders.filter_map(|folder| folder.unwrap().file_name().to_str()?.parse().ok());
        let tenant = |id| TenantId::from_uuid(id);
        let mut found = Vec::new();
        for id in ids.map(tenant) {
            let at = Placement::new_sqlite(self.root.path(), id, Generation::FIRST, 1);
            if at.file_path().exists() {
                let identity = Identity { tenant: id, fleet: fleet_in(&at), ..self.tenant().identity };
                found.push(Tenant { at, identity });
            }
        }
        found
    }

    /// One of them.
    pub(crate) fn any(&self) -> Option<Tenant> {
        self.all().pop()
    }

    /// A tenant that does not exist yet.
    pub(crate) fn tenant(&self) -> Tenant {
        let tenant = TenantId::generate();
        Tenant {
            at: Placement::new_sqlite(self.root.path(), tenant, Generation::FIRST, 1),
            identity: Identity {
                tenant,
                fleet: self.fleet,
                generation: Generation::FIRST,
                state: IdentityState::Active,
                op: None,
                stamped_at: 1_000,
            },
        }
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
}

impl Tenant {
    pub(crate) fn expected(&self) -> ExpectedIdentity {
        let Identity { tenant, fleet, generation, state, .. } = self.identity;
        ExpectedIdentity { tenant, fleet, generation, states: vec![state] }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.at.file_path()
    }

    /// Another connection, as an application has one.
    pub(crate) fn open(&self) -> Connection {
        let db = Connection::open(self.path()).unwrap();
        db.pragma_update(None, "foreign_keys", true).unwrap();
        db
    }

    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.open().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// The names beside the database, its own included.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path().parent().unwrap())
            .map(|entries| entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }
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
        "create table tasks(id integer primary key, title text,\n  \
         project_id integer not null references projects(id) on delete cascade);",
    ),
];

/// [`BASE`] and more.
pub(crate) fn base_and(more: &[(&str, &str)]) -> MigrationSet {
    set(&[&BASE[..], more].concat())
}

fn fleet_in(at: &Placement) -> FleetId {
    let uri = format!("file:{}?immutable=1", at.file_path().display());
    let db = Connection::open(uri).unwrap();
    let fleet: String = db.query_row("select fleet_id from _fleet_identity", [], |row| row.get(0)).unwrap();
    fleet.parse().unwrap()
}
