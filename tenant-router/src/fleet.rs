//! [`Fleet`]: opens a fleet for an application, from its data directory or from the address of its catalog.
//!
//! Calls the catalog and the engines, and gives them to [`RouterBuilder`]. It changes nothing of the process: no umask, no
//! limit, no signal, no environment variable.

use std::fs::DirBuilder;
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use catalog::db::{CatalogDsn, CatalogLocation};
use catalog::home::{
    CATALOG_FILE, CATALOG_URL_VARIABLE, DATA_DIR_VARIABLE, KEY_FILE, KEY_VARIABLE, MOVED_FILE, SCRATCH_DIR,
};
use catalog::seal::FleetKey;
use catalog::{Catalog, ErrorKind as CatalogError};
use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;

use crate::builder::RouterBuilder;
use crate::engines;
use crate::error::{Error, ErrorKind, Result};
use crate::router::Router;

/// Maximum size of a key file. A key has 44 characters.
const KEY_BYTES_MAX: u64 = 4_096;

/// How far the clocks of processes may differ: a quarter of a lease.
const SKEW_MAX: Duration = Duration::from_secs(5);

/// Where a fleet is, for an application that opens it.
///
/// ```no_run
/// # use tenant_router::{Error, Fleet, Naming, Router};
/// # async fn open() -> Result<(), Error> {
/// let router = Fleet::open("./fleet").await?;
/// // With settings:
/// let naming = Naming::default().domain("example.com");
/// let router = Fleet::at("./fleet").router().await?.naming(naming).build().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Fleet {
    data_dir: Option<PathBuf>,
    catalog_url: Option<SecretString>,
    key: Option<SecretString>,
}

impl Fleet {
    /// Opens the fleet at a data directory, or at the address of its catalog, with the default settings.
    ///
    /// # Errors
    /// As [`Fleet::router`].
    pub async fn open(location: impl AsRef<str>) -> Result<Router> {
        Self::at(location).router().await?.build().await
    }

    /// The fleet at a data directory that `fleetctl init` made, or at the address of a catalog: `postgres://…`. Opens
    /// nothing yet. The key is read from the data directory, or from `FLEET_KEY` if the location is an address.
    #[must_use]
    pub fn at(location: impl AsRef<str>) -> Self {
        let location = location.as_ref();
        match location.starts_with("postgres://") || location.starts_with("postgresql://") {
            true => Self { data_dir: None, catalog_url: Some(location.to_owned().into()), key: None },
            false => Self::in_directory(location),
        }
    }

    /// The fleet in a data directory, whatever the text of its path. Opens nothing yet.
    #[must_use]
    pub fn in_directory(path: impl Into<PathBuf>) -> Self {
        Self { data_dir: Some(path.into()), catalog_url: None, key: None }
    }

    /// The fleet that the environment names, as for `fleetctl`: `FLEET_DATA_DIR`, `FLEET_CATALOG_URL`, `FLEET_KEY`.
    ///
    /// # Errors
    /// `not_initialised` when neither a directory nor an address is set.
    pub fn from_environment() -> Result<Self> {
        let data_dir = read_variable(DATA_DIR_VARIABLE).map(PathBuf::from);
        let catalog_url = read_variable(CATALOG_URL_VARIABLE).map(SecretString::from);
        if data_dir.is_none() && catalog_url.is_none() {
            let text =
                format!("no fleet is named: set {DATA_DIR_VARIABLE}, or {CATALOG_URL_VARIABLE} and {KEY_VARIABLE}");
            return Err(not_opened(CatalogError::NotInitialised, text));
        }
        Ok(Self { data_dir, catalog_url, key: read_variable(KEY_VARIABLE).map(SecretString::from) })
    }

    /// The address of a catalog on PostgreSQL, for a data directory whose catalog was moved there.
    #[must_use]
    pub fn catalog_url(self, url: impl Into<SecretString>) -> Self {
        Self { catalog_url: Some(url.into()), ..self }
    }

    /// The fleet's key, instead of the file in the data directory or `FLEET_KEY`.
    #[must_use]
    pub fn key(self, key: impl Into<SecretString>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Opens the catalog, and starts the engines that this program was built with.
    ///
    /// # Errors
    /// `not_initialised` when there is no fleet, `wrong_key`, `catalog_moved`, `catalog_newer`, `catalog_unavailable` and
    /// the other errors of the catalog; `internal` when the clock is wrong or an engine cannot start.
    pub async fn router(self) -> Result<RouterBuilder> {
        let location = self.catalog_location()?;
        let key = self.fleet_key()?;
        let scratch = self.scratch_dir()?;
        let catalog = Catalog::open(&location, key, Arc::new(milliseconds_since_1970)).await.map_err(catalog_error)?;
        require_clock(&catalog).await?;
        let builder = engines::add_engines(Router::builder(catalog), scratch.path())?;
        Ok(builder.keep_until_closed(scratch))
    }

    fn catalog_location(&self) -> Result<CatalogLocation> {
        if let Some(url) = &self.catalog_url {
            return Ok(CatalogLocation::Postgres(CatalogDsn::from_text(url.expose_secret()).map_err(catalog_error)?));
        }
        // One of the two is always set.
        let directory = self.data_dir.as_deref().unwrap_or(Path::new("."));
        if directory.join(MOVED_FILE).exists() {
            let text = format!(
                "the catalog of the fleet in {} was moved; {MOVED_FILE} contains its new location: name it with \
                 catalog_url, or set {CATALOG_URL_VARIABLE} and use Fleet::from_environment",
                directory.display()
            );
            return Err(not_opened(CatalogError::Moved, text));
        }
        let file = directory.join(CATALOG_FILE);
        if !file.exists() {
            let shown = directory.display();
            let text = format!("there is no fleet in {shown}: create one with `fleetctl init --data-dir {shown}`");
            return Err(not_opened(CatalogError::NotInitialised, text));
        }
        Ok(CatalogLocation::File(file))
    }

    fn fleet_key(&self) -> Result<FleetKey> {
        if let Some(key) = &self.key {
            return FleetKey::from_text(key.expose_secret()).map_err(catalog_error);
        }
        let file = self.data_dir.as_deref().map(|directory| directory.join(KEY_FILE));
        let text = match &file {
            Some(file) => read_key(file).map_err(|error| {
                let text = format!("the key {} cannot be read: {error}", file.display());
                not_opened(CatalogError::WrongKey, text)
            })?,
            None => read_variable(KEY_VARIABLE).map(SecretString::from).ok_or_else(|| {
                let text = format!("the fleet's key is missing: set {KEY_VARIABLE}, or give it with Fleet::key");
                not_opened(CatalogError::WrongKey, text)
            })?,
        };
        FleetKey::from_text(text.expose_secret()).map_err(catalog_error)
    }

    /// The data directory's folder for temporary files; without a data directory, a folder that ends with the router.
    fn scratch_dir(&self) -> Result<ScratchDirectory> {
        let made = match &self.data_dir {
            Some(directory) => {
                let path = directory.join(SCRATCH_DIR);
                DirBuilder::new().recursive(true).mode(0o700).create(&path).map(|()| ScratchDirectory::Kept(path))
            }
            None => tempfile::Builder::new().prefix("fleet-").tempdir().map(ScratchDirectory::Temporary),
        };
        made.map_err(|error| {
            Error::new(ErrorKind::Misconfigured).with_source(format!("no directory for temporary files: {error}"))
        })
    }
}

/// The directory for temporary files.
#[derive(Debug)]
enum ScratchDirectory {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl ScratchDirectory {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }
}

/// Refuses to start with a wrong clock, which would use leases and credentials that are over for all other processes.
async fn require_clock(catalog: &Catalog) -> Result<()> {
    let skew = catalog::check::skew_ms(catalog).await.map_err(catalog_error)?;
    if Duration::from_millis(skew.unsigned_abs()) <= SKEW_MAX {
        return Ok(());
    }
    let text = format!("this machine's clock differs from the catalog's by {} s: set the clock (ntp)", skew / 1_000);
    Err(Error::new(ErrorKind::Misconfigured).with_source(text))
}

/// An environment variable; an empty one counts as missing.
#[expect(
    clippy::disallowed_methods,
    reason = "the application asks for the environment by calling this crate's `Fleet`"
)]
fn read_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

pub(crate) fn milliseconds_since_1970() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

fn read_key(file: &Path) -> io::Result<SecretString> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(KEY_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.into())
}

fn catalog_error(error: catalog::Error) -> Error {
    Error::new(ErrorKind::FleetNotOpened(error.kind())).with_source(error)
}

fn not_opened(kind: CatalogError, text: String) -> Error {
    catalog_error(catalog::Error::new(kind, text))
}
