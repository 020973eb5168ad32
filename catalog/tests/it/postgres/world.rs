//! Where the suite's catalogs are: each in a database of its own, on a server that the tests of a process share.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use catalog::db::{CatalogDsn, CatalogLocation};
use postgres_fixture::{Cluster, ROLE, Settings, bin};

/// Ends with its last test: a static would leave its directory behind.
static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A place for one catalog.
pub(crate) struct World {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) database: String,
    pub(crate) directory: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut shared = SHARED.lock().unwrap();
        let cluster = shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Cluster::start());
            *shared = Arc::downgrade(&cluster);
            cluster
        });
        Self::on(cluster)
    }

    /// On a server of its own, which the test may stop.
    pub(crate) fn alone(settings: &Settings) -> Self {
        Self::on(Arc::new(Cluster::with(settings)))
    }

    pub(crate) fn on(cluster: Arc<Cluster>) -> Self {
        let database = format!("catalog_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        cluster.psql("postgres", &format!("create database {database} owner {ROLE}"));
        Self { cluster, database, directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn location(&self) -> CatalogLocation {
        CatalogLocation::Postgres(CatalogDsn::from_text(&self.cluster.dsn(&self.database)).unwrap())
    }

    /// Runs SQL beside the catalog, as somebody with a database tool would.
    #[expect(clippy::unused_async, reason = "as the other world's")]
    pub(crate) async fn tool(&self, sql: &'static str) {
        self.psql(&format!("set role {ROLE}; {sql}"));
    }

    /// Runs SQL as the superuser and returns what it printed.
    pub(crate) fn psql(&self, sql: &str) -> String {
        self.cluster.psql(&self.database, sql)
    }

    /// Everything that is stored, as bytes.
    pub(crate) fn stored(&self) -> Vec<u8> {
        self.program("pg_dump", &["--inserts"])
    }

    /// A catalog made of a snapshot.
    pub(crate) fn restored(&self, snapshot: &std::path::Path) -> Self {
        let world = Self::on(self.cluster.clone());
        world.program(
            "pg_restore",
            &[
                "--exit-on-error",
                "--no-owner",
                "--clean",
                "--if-exists",
                "--dbname",
                &world.database,
                snapshot.to_str().unwrap(),
            ],
        );
        world
    }

    fn program(&self, name: &str, arguments: &[&str]) -> Vec<u8> {
        let mut command = std::process::Command::new(bin(name));
        command.args(arguments).env("PGHOST", "127.0.0.1").env("PGPORT", self.cluster.port().to_string());
        command.env("PGUSER", ROLE).env("PGPASSWORD", postgres_fixture::PASSWORD).env("PGDATABASE", &self.database);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}
