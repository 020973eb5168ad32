//! A control plane on a temporary directory, driven as `fleetctl` drives it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use catalog::operations::OperationState;
use control_plane::config::Role;
use control_plane::operations::{Params, create, migrate};
use control_plane::plan::Selection;
use control_plane::runner::submit::{Caller, Mode, Submission, Submitted};
use control_plane::{App, Config};
use tempfile::TempDir;
use tenant_engine::migration::File;

/// Named whole numbers from the command line.
pub type Setup = HashMap<&'static str, usize>;

/// Reads `--name N` for each of the names, with their defaults.
///
/// # Errors
/// When an argument is none of them or no number.
pub fn arguments(defaults: &[(&'static str, usize)]) -> Result<Setup> {
    let mut setup: Setup = defaults.iter().copied().collect();
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let name = defaults.iter().map(|(name, _)| *name).find(|name| flag.strip_prefix("--") == Some(name));
        let Some(name) = name else { bail!("{flag} is none of {defaults:?}") };
        let value = given.next().with_context(|| format!("{flag} needs a number"))?;
        setup.insert(name, value.parse().with_context(|| format!("{flag} {value}"))?);
    }
    Ok(setup)
}

/// The middle one.
///
/// # Panics
/// When there is none.
pub fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// How many times as long the median of `theirs` takes as that of `ours`.
pub fn ratio(theirs: &mut [Duration], ours: &mut [Duration]) -> f64 {
    median(theirs).as_secs_f64() / median(ours).as_secs_f64()
}

/// A fleet that is gone when dropped.
#[derive(Debug)]
pub struct Fleet {
    app: Arc<App>,
    dir: TempDir,
}

impl Fleet {
    /// A new fleet without tenants.
    ///
    /// # Errors
    /// Those of the control plane.
    pub async fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = Config::new(dir.path().canonicalize()?, Role::Embedded);
        App::init(&config).await?;
        Ok(Self { app: App::open(config).await?, dir })
    }

    /// Creates `count` tenants, numbered from `first`, and waits for them.
    ///
    /// # Errors
    /// Those of the control plane; when a tenant was not made.
    pub async fn create(&self, first: usize, count: usize) -> Result<()> {
        let tenants = (first..first + count)
            .map(|n| create::NewTenant { name: format!("tenant-{n:06}"), labels: Default::default() })
            .collect();
        let params = create::Params { tenants, ..Default::default() };
        self.run(Params::Create(params), Selection::default()).await
    }

    /// Brings every tenant to the head of these files, and new ones too.
    ///
    /// # Errors
    /// Those of the control plane; when a tenant failed.
    pub async fn migrate(&self, files: Vec<File>) -> Result<()> {
        self.migrate_looking(files, migrate::Look::Hint).await
    }

    /// The same, opening every database instead of trusting the catalog.
    ///
    /// # Errors
    /// Those of the control plane; when a tenant failed.
    pub async fn migrate_verify(&self, files: Vec<File>) -> Result<()> {
        self.migrate_looking(files, migrate::Look::Every).await
    }

    async fn migrate_looking(&self, files: Vec<File>, look: migrate::Look) -> Result<()> {
        let params = migrate::Params { release: migrate::Release::Files(files), target: None, look };
        self.run(Params::Migrate(params), Selection::all()).await
    }

    async fn run(&self, params: Params, targets: Selection) -> Result<()> {
        let caller = Caller { actor: "bench".to_owned(), request_id: None, once: None };
        let submitted = self.app.submit(&caller, Submission::new(params, targets), Mode::Run).await?;
        let Submitted::Started(operation) = submitted else { bail!("it was only planned") };
        let ended = self.app.wait(operation.id, Duration::from_secs(3_600)).await?;
        ensure!(ended.state == OperationState::Succeeded, "{:?}: {:?}", ended.state, ended.error);
        Ok(())
    }

    /// One tenant's database file, to be copied.
    ///
    /// # Errors
    /// When there is none.
    pub fn any_database(&self) -> Result<PathBuf> {
        let tenants = self.dir.path().join("tenants");
        let folder = std::fs::read_dir(tenants)?.next().context("there is a tenant")??;
        let mut files = std::fs::read_dir(folder.path())?.map_while(Result::ok).map(|e| e.path());
        files.find(|f| f.extension().is_some_and(|e| e == "db")).context("it has a database")
    }

    /// Ends the control plane.
    pub async fn close(self) {
        self.app.shutdown(Duration::from_secs(10)).await;
    }
}
