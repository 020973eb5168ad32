//! A fleet whose tenants live on a throw-away PostgreSQL server, made by the command line as an operator would.

use std::path::PathBuf;

use postgres_fixture::{Cluster, Settings};
use serde_json::Value;

use crate::fleet::Fleet;
use crate::program::workspace_root;

/// The name of the server in the fleet.
pub const SERVER: &str = "pg1";

/// A fleet and the server it uses.
#[derive(Debug)]
pub struct PostgresFleet {
    /// The fleet; its directory server takes no tenants.
    pub fleet: Fleet,
    /// The server.
    pub cluster: Cluster,
}

impl PostgresFleet {
    /// `init`, `server add`, and the example schema for both engines as current release.
    ///
    /// # Panics
    /// When a command fails.
    #[must_use]
    pub fn init() -> Self {
        Self::with(&Settings::default())
    }

    /// The same on a server with these settings.
    ///
    /// # Panics
    /// When a command fails.
    #[must_use]
    pub fn with(settings: &Settings) -> Self {
        let this = Self { fleet: Fleet::init(), cluster: Cluster::with(settings) };
        let dsn = this.dsn_file("pg1.dsn", &this.cluster.dsn("postgres"));
        this.fleet.ok(&["server", "add", SERVER, "--engine", "postgres", "--dsn-file", &dsn]);
        this.fleet.ok(&["migrate", "run", &example_folders(), "--all"]);
        this
    }

    /// The same with these tenants on the server.
    ///
    /// # Panics
    /// When a command fails.
    #[must_use]
    pub fn with_tenants(names: &[&str]) -> Self {
        let this = Self::init();
        this.fleet.ok(&[&["tenant", "create", "--server", SERVER], names].concat());
        this
    }

    /// Starts another server and adds it to the fleet by this name.
    ///
    /// # Panics
    /// When a command fails.
    #[must_use]
    pub fn add_other(&self, name: &str) -> Cluster {
        let other = Cluster::with(&Settings { other: true, ..Settings::default() });
        let dsn = self.dsn_file(&format!("{name}.dsn"), &other.dsn("postgres"));
        self.fleet.ok(&["server", "add", name, "--engine", "postgres", "--dsn-file", &dsn]);
        other
    }

    /// Writes a connection string into a file of the fleet's directory and returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn dsn_file(&self, name: &str, dsn: &str) -> String {
        let path: PathBuf = self.fleet.dir().join(name);
        std::fs::write(&path, dsn).expect("the directory is ours");
        path.to_string_lossy().into_owned()
    }

    /// The databases of tenants that are on the server now, in the order of their names.
    #[must_use]
    pub fn databases(&self) -> Vec<String> {
        let sql = "select datname from pg_database where datname like 't\\_%' order by datname";
        self.cluster.psql("postgres", sql).lines().map(str::to_owned).collect()
    }

    /// The one database of a tenant that its id names, when there is exactly one.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[must_use]
    pub fn database(&self, tenant: &str) -> String {
        let found: Value = self.fleet.json(&["tenant", "get", tenant]);
        let id = found["id"].as_str().expect("a tenant has an id").trim_start_matches("tnt_").to_owned();
        let all = self.databases();
        let own: Vec<_> = all.iter().filter(|name| name.contains(&id)).collect();
        assert_eq!(own.len(), 1, "{tenant} has {own:?}");
        own[0].clone()
    }
}

/// The example application's migrations for both engines.
#[must_use]
pub fn example_folders() -> String {
    workspace_root().join("migrations/example").to_string_lossy().into_owned()
}
