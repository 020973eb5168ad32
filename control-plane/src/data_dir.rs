//! The data directory: its contents, and who may read it.
//!
//! ```text
//! catalog.db  fleet.key  operator.token     0600
//! tenants/  backups/  scratch/              0700
//! socket/admin.sock                         the admin API of the server that runs here (`serve/socket.rs`)
//! catalog.reserve/                          room for the catalog on a full disk
//! fleet.claims                              which servers outside may be used: see `tenant_engine::claim`
//! catalog.moved                             the catalog is on PostgreSQL now: the file must not be used by mistake
//! ```
//! With a catalog on PostgreSQL, `catalog.db` and `tenants/` are not created, because other machines could not reach
//! them.

pub(crate) mod base_marker;
mod catalog_place;
pub(crate) mod file_system;
mod owner;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};

use catalog::db::{CatalogDsn, CatalogLocation};
use catalog::home::{CATALOG_FILE, KEY_FILE, SCRATCH_DIR};
use catalog::seal::FleetKey;
use secrecy::{ExposeSecret, SecretString};
use tenant_engine::FleetClaims;

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};

/// Maximum size of a key file. A key has 44 characters.
const KEY_BYTES_MAX: u64 = 4_096;
/// The file with the id of the machine, or of a container's image. Some systems lack it.
const MACHINE: &str = "/etc/machine-id";
/// The name of the file with the directory's claims.
const CLAIMS: &str = "fleet.claims";

/// The data directory of a process.
#[derive(Debug, Clone)]
pub struct DataDirectory {
    root: PathBuf,
    catalog: CatalogLocation,
}

/// Whether `init` created a fleet or found one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitOutcome {
    /// A new fleet was created.
    Created,
    /// A fleet existed.
    Found,
}

/// The origin of the fleet's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOrigin {
    /// The key was generated and written just now.
    New,
    /// The key was configured, or read from its file.
    Kept,
}

impl DataDirectory {
    /// Creates the missing directories.
    ///
    /// # Errors
    /// `data_dir_unusable`; `network_file_system` and `wrong_user`, before anything is created.
    pub fn create_directories(config: &Config) -> Result<Self> {
        let root = config.data_dir.clone();
        Self::require_local(config)?;
        owner::require_own(&root)?;
        let unusable = |error: io::Error| data_dir_unusable(&root, error);
        let own = ["tenants"].into_iter().filter(|_| config.catalog_url.is_none());
        for directory in [""].into_iter().chain(own).chain([SCRATCH_DIR]).map(|name| root.join(name)) {
            DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(unusable)?;
        }
        Self::open_existing(config)
    }

    /// Opens the existing directory by its canonical path. The path goes into the catalog, which must not depend on
    /// links.
    ///
    /// # Errors
    /// `data_dir_unusable`; `wrong_user`; `invalid` when the configured address of the catalog is not one.
    pub fn open_existing(config: &Config) -> Result<Self> {
        let root = config.data_dir.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => not_initialised().with_source(error),
            _ => data_dir_unusable(&config.data_dir, error),
        })?;
        owner::require_own(&root)?;
        let catalog = match &config.catalog_url {
            None => CatalogLocation::File(root.join(CATALOG_FILE)),
            Some(url) => CatalogLocation::Postgres(CatalogDsn::from_text(url.expose_secret()).map_err(|error| {
                Error::from(error).try_next("fleetctl config show --origin      # says where the address comes from")
            })?),
        };
        Ok(Self { root, catalog })
    }

    /// Refuses a data directory whose catalog or tenants would be SQLite files on a network file system.
    ///
    /// # Errors
    /// `network_file_system`.
    pub fn require_local(config: &Config) -> Result<()> {
        if config.catalog_url.is_some() {
            return Ok(());
        }
        let root = absolute_path(&config.data_dir);
        // The tenants' folder and the catalog may be links, or mounts of their own.
        let places = [root.join(CATALOG_FILE), root.join("tenants")];
        places.iter().try_for_each(|place| file_system::require_safe(place, config.network_file_system))
    }

    /// The directory's canonical path.
    #[must_use]
    pub fn root_dir(&self) -> &Path {
        &self.root
    }

    /// The base directory of the server `local`.
    #[must_use]
    pub fn tenants_dir(&self) -> PathBuf {
        self.root.join("tenants")
    }

    /// The directory for temporary databases, created if it is missing.
    ///
    /// # Errors
    /// `data_dir_unusable`.
    pub fn scratch_dir(&self) -> Result<PathBuf> {
        let scratch = self.root.join(SCRATCH_DIR);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&scratch);
        made.map_err(|error| data_dir_unusable(&self.root, error))?;
        Ok(scratch)
    }

    /// The default URL of the backup store.
    #[must_use]
    pub fn backups_url(&self) -> String {
        format!("file://{}/backups", self.root.display())
    }

    /// The file that `init` writes the first operator's token to.
    #[must_use]
    pub fn operator_token(&self) -> PathBuf {
        self.root.join("operator.token")
    }

    /// The fleet's key, from the configuration or from its file.
    ///
    /// # Errors
    /// `wrong_key` when there is none or it is malformed.
    pub fn fleet_key(&self, config: &Config) -> Result<FleetKey> {
        if let Some(given) = &config.fleet_key {
            return Ok(FleetKey::from_text(given.expose_secret())?);
        }
        let path = self.root.join(KEY_FILE);
        let text = read_small(&path).map_err(|error| {
            let detail = "the fleet's key is not configured, and there is no file fleet.key in the data directory";
            Error::new(ErrorKind::WrongKey, detail)
                .try_next(
                    "copy fleet.key from your own copy or from another control plane of this fleet; or set FLEET_KEY",
                )
                .with_source(error)
        })?;
        Ok(FleetKey::from_text(text.expose_secret())?)
    }

    /// The fleet's key. For a new fleet without a key it is generated and written first.
    ///
    /// # Errors
    /// As [`DataDirectory::fleet_key`]; `data_dir_unusable`.
    pub fn fleet_key_or_new(&self, config: &Config, fleet: InitOutcome) -> Result<(FleetKey, KeyOrigin)> {
        let path = self.root.join(KEY_FILE);
        let mut origin = KeyOrigin::Kept;
        if fleet == InitOutcome::Created && config.fleet_key.is_none() && !path.exists() {
            self.write_secret(&path, &FleetKey::generate().secret_text())?;
            origin = KeyOrigin::New;
        }
        Ok((self.fleet_key(config)?, origin))
    }

    /// Removes a newly generated key that opens nothing, because another process created the fleet at the same moment
    /// with its own.
    #[must_use]
    pub fn take_back(&self, origin: KeyOrigin, error: Error) -> Error {
        if origin == KeyOrigin::New && error.kind == ErrorKind::WrongKey {
            // If the file cannot be removed, the next process reports it as the wrong key.
            let _ = std::fs::remove_file(self.root.join(KEY_FILE));
        }
        error
    }

    /// The system's identification of the directory: machine, file system and inode. `None` when it cannot be read.
    pub(crate) fn directory_mark(&self) -> Option<String> {
        let found = std::fs::metadata(&self.root).ok()?;
        let machine = read_small(Path::new(MACHINE)).map(|id| id.expose_secret().trim().to_owned());
        Some(format!("{}:{}:{}", machine.unwrap_or_default(), found.dev(), found.ino()))
    }

    /// The claims of this directory, as they were last written. Empty without such a file.
    pub(crate) fn read_claims(&self) -> FleetClaims {
        let text = read_small(&self.root.join(CLAIMS)).ok();
        let ids = text.and_then(|text| serde_json::from_str(text.expose_secret()).ok());
        ids.map(FleetClaims::new).unwrap_or_default()
    }

    /// Writes the claims durably, if they have changed.
    ///
    /// # Errors
    /// `data_dir_unusable`.
    pub(crate) fn write_claims(&self, claims: &FleetClaims) -> Result<()> {
        if self.read_claims() == *claims {
            return Ok(());
        }
        let text = serde_json::to_string(claims.all_ids()).expect("a list of texts is JSON");
        replace_file(&self.root, CLAIMS, &text).map_err(|error| data_dir_unusable(&self.root, error))
    }

    /// Writes a file that only its owner can read, durable when this returns. An existing file stays as it is. So of
    /// two processes that start together, both use the first one's secret.
    ///
    /// # Errors
    /// `data_dir_unusable`.
    pub fn write_secret(&self, path: &Path, secret: &SecretString) -> Result<()> {
        let unusable = |error: io::Error| data_dir_unusable(&self.root, error);
        let part = path.with_extension(format!("{}.part", uuid::Uuid::now_v7().simple()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(unusable)?;
        file.write_all(secret.expose_secret().as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(unusable)?;
        file.sync_all().map_err(unusable)?;
        let linked = std::fs::hard_link(&part, path);
        std::fs::remove_file(&part).map_err(unusable)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unusable(error)),
            _ => {}
        }
        File::open(&self.root).and_then(|root| root.sync_all()).map_err(unusable)
    }
}

/// The address of a catalog without its password, for people.
#[must_use]
pub fn shown_url(url: &str) -> String {
    CatalogDsn::from_text(url).map_or_else(|_| "(set, but not usable)".to_owned(), |dsn| dsn.to_string())
}

/// Makes a path absolute, because the parents of a relative path end before the first existing folder.
fn absolute_path(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Replaces a file with one that only its owner can read, durable when this returns.
fn replace_file(root: &Path, name: &str, text: &str) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(root)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(root.join(name)).map_err(|error| error.error)?;
    File::open(root)?.sync_all()
}

fn read_small(path: &Path) -> io::Result<SecretString> {
    use std::io::Read as _;
    let mut text = String::new();
    File::open(path)?.take(KEY_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.into())
}

/// The error of a directory without a fleet.
#[must_use]
pub fn not_initialised() -> Error {
    Error::new(ErrorKind::NotInitialised, "there is no fleet in this data directory").try_next("fleetctl init")
}

fn data_dir_unusable(root: &Path, error: io::Error) -> Error {
    let what = format!("the data directory {}", root.display());
    Error::data_dir_unusable(&what, "choose another with --data-dir, or make it writable", error)
}
