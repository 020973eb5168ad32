//! A fleet in a temporary directory, made by the command line as an operator would.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{fleetctl, workspace_root};

/// A directory with an initialised fleet; removed when dropped.
#[derive(Debug)]
pub struct Fleet {
    dir: TempDir,
}

impl Fleet {
    /// An empty directory, for a fleet that was made elsewhere.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { dir: TempDir::new().expect("a temporary directory") }
    }

    /// `fleetctl init` in an empty directory.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn init() -> Self {
        let fleet = Self { dir: TempDir::new().expect("a temporary directory") };
        fleet.ok(&["init"]);
        fleet
    }

    /// The same with its catalog in an empty database on Postgres.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn init_on(catalog: &str) -> Self {
        let fleet = Self { dir: TempDir::new().expect("a temporary directory") };
        set_catalog(fleet.dir(), catalog);
        fleet.ok(&["init"]);
        fleet
    }

    /// [`Fleet::init`], with the example schema as current release and these tenants.
    ///
    /// # Panics
    /// When a command fails.
    #[must_use]
    pub fn with_tenants(names: &[&str]) -> Self {
        let fleet = Self::init();
        fleet.fill(names);
        fleet
    }

    /// Makes the example schema the current release, and these tenants.
    ///
    /// # Panics
    /// When a command fails.
    pub fn fill(&self, names: &[&str]) {
        self.ok(&["migrate", "run", &example_migrations(), "--all"]);
        self.ok(&[&["tenant", "create"], names].concat());
    }

    /// Adds a directory of this name, beside the fleet's own, as a server.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn add_directory(&self, name: &str) {
        let base = self.dir().join(name);
        std::fs::create_dir(&base).expect("the directory is ours");
        self.ok(&["server", "add", name, "--base", &base.to_string_lossy()]);
    }

    /// The directory commands run in; the data is in `fleet-data` below it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a command, whatever comes of it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        fleetctl(self.dir()).args(args).output().expect("fleetctl starts")
    }

    /// Runs a command that must succeed and returns its stdout, trimmed.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{args:?}: {}\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout).trim().to_owned()
    }

    /// Runs a command that must succeed with `-o json`.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    #[must_use]
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?} printed no JSON ({e}): {text}"))
    }

    /// A token of one tenant.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn token(&self, tenant: &str, role: &str) -> String {
        self.ok(&["token", "create", "--tenant", tenant, "--role", role, "-o", "name"])
    }
}

/// Tells commands in this directory, by its `fleet.toml`, where the catalog is.
///
/// # Panics
/// When the files cannot be written.
pub fn set_catalog(dir: &Path, dsn: &str) {
    std::fs::write(dir.join("catalog.url"), dsn).expect("the directory is ours");
    std::fs::write(dir.join("fleet.toml"), "catalog_url_file = 'catalog.url'\n").expect("the directory is ours");
}

/// The example application's migrations.
#[must_use]
pub fn example_migrations() -> String {
    workspace_root().join("migrations/example/sqlite").to_string_lossy().into_owned()
}
