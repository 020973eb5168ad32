//! The data directory: what lies where in it, and who may read it.
//!
//! ```text
//! catalog.db  fleet.key  operator.token     0600
//! tenants/  backups/  scratch/              0700
//! catalog.reserve/                          room for the catalog on a full disk
//! catalog.moved                             the catalog is on Postgres now: nobody goes on with the file by accident
//! ```
//! With a catalog on Postgres, `catalog.db` and `tenants/` are not made: another machine could not reach them.

pub(crate) mod base_marker;
mod catalog_place;
pub(crate) mod file_system;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use catalog::db::{Dsn, Location};
use catalog::seal::FleetKey;
use secrecy::{ExposeSecret, SecretString};

use crate::config::Config;
use crate::error::{Error, Result};

/// A key file is 44 characters; more is not a key.
const KEY_BYTES_MAX: u64 = 4_096;

/// The data directory of a process.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
    catalog: Location,
}

/// What `init` found or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initialised {
    /// A new fleet.
    Created,
    /// One was there.
    Found,
}

/// Where the key came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOrigin {
    /// It was made and written just now.
    New,
    /// It was given, or in its file.
    Kept,
}

impl Home {
    /// Makes the directories that are not there.
    ///
    /// # Errors
    /// `data_dir_unusable`; `network_file_system`, before anything is made.
    pub fn make(config: &Config) -> Result<Self> {
        let root = config.data_dir.clone();
        Self::require_local(config)?;
        let unusable = |error: io::Error| unusable(&root, &error).with_source(error);
        let own = ["tenants"].into_iter().filter(|_| config.catalog_url.is_none());
        for directory in [""].into_iter().chain(own).chain(["scratch"]).map(|name| root.join(name)) {
            DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(unusable)?;
        }
        Self::at(config)
    }

    /// The directory as it is, by its canonical path: it goes into the catalog, which must not depend on links.
    ///
    /// # Errors
    /// `data_dir_unusable`; `invalid` when the address of the catalog is none.
    pub fn at(config: &Config) -> Result<Self> {
        let root = config.data_dir.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => not_initialised().with_source(error),
            _ => unusable(&config.data_dir, &error).with_source(error),
        })?;
        let catalog = match &config.catalog_url {
            None => Location::File(root.join("catalog.db")),
            Some(url) => Location::Postgres(Dsn::parse(url.expose_secret()).map_err(|error| {
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
        let root = absolute(&config.data_dir);
        // The folder of tenants and the catalog may be links or mounts of their own.
        let places = [root.join("catalog.db"), root.join("tenants")];
        places.iter().try_for_each(|place| file_system::require_safe(place, config.network_file_system))
    }

    /// The directory itself, without links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The base of the server `local`.
    #[must_use]
    pub fn tenants(&self) -> PathBuf {
        self.root.join("tenants")
    }

    /// Databases that are nobody's for a moment; made if it is not there.
    ///
    /// # Errors
    /// `data_dir_unusable`.
    pub fn scratch(&self) -> Result<PathBuf> {
        let scratch = self.root.join("scratch");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&scratch);
        made.map_err(|error| unusable(&self.root, &error).with_source(error))?;
        Ok(scratch)
    }

    /// The URL of the backup store when none was given.
    #[must_use]
    pub fn backups(&self) -> String {
        format!("file://{}/backups", self.root.display())
    }

    /// Where `init` writes the first operator's token.
    #[must_use]
    pub fn operator_token(&self) -> PathBuf {
        self.root.join("operator.token")
    }

    /// The fleet's key: given, or in the file.
    ///
    /// # Errors
    /// `wrong_key` when there is none or it is malformed.
    pub fn key(&self, config: &Config) -> Result<FleetKey> {
        if let Some(given) = &config.fleet_key {
            return Ok(FleetKey::parse(given.expose_secret())?);
        }
        let path = self.root.join("fleet.key");
        let text = read_small(&path).map_err(|error| {
            let detail = "the fleet's key is neither given nor in the file fleet.key of the data directory";
            Error::new(500, "wrong_key", detail)
                .try_next("copy fleet.key from where you keep it, or from another control plane of this fleet; or set FLEET_KEY")
                .with_source(error)
        })?;
        Ok(FleetKey::parse(text.expose_secret())?)
    }

    /// The key, made and written first if the fleet is new and none is there.
    ///
    /// # Errors
    /// As [`Home::key`]; `data_dir_unusable`.
    pub fn key_or_new(&self, config: &Config, fleet: Initialised) -> Result<(FleetKey, KeyOrigin)> {
        let path = self.root.join("fleet.key");
        let mut origin = KeyOrigin::Kept;
        if fleet == Initialised::Created && config.fleet_key.is_none() && !path.exists() {
            self.write_secret(&path, &FleetKey::generate().expose())?;
            origin = KeyOrigin::New;
        }
        Ok((self.key(config)?, origin))
    }

    /// Takes a new key back that opens nothing: another process made the fleet in this very moment, with its own.
    #[must_use]
    pub fn take_back(&self, origin: KeyOrigin, error: Error) -> Error {
        if origin == KeyOrigin::New && error.code == "wrong_key" {
            // What cannot be removed is found by the next one as the wrong key it is.
            let _ = std::fs::remove_file(self.root.join("fleet.key"));
        }
        error
    }

    /// Writes a file that only its owner can read, durable when it returns. One that is there stays as it is: of two
    /// processes that begin together, both go on with the first one's.
    ///
    /// # Errors
    /// `data_dir_unusable`.
    pub fn write_secret(&self, path: &Path, secret: &SecretString) -> Result<()> {
        let unusable = |error: io::Error| unusable(&self.root, &error).with_source(error);
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

/// The address of a catalog for humans: without its password.
#[must_use]
pub fn shown_url(url: &str) -> String {
    Dsn::parse(url).map_or_else(|_| "(set, but not usable)".to_owned(), |dsn| dsn.to_string())
}

/// A relative path has no existing folder to look at once its own parts end.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
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
    Error::new(409, "not_initialised", "there is no fleet in this data directory").try_next("fleetctl init")
}

fn unusable(root: &Path, error: &io::Error) -> Error {
    let detail = format!("the data directory {} cannot be used: {error}", root.display());
    Error::new(500, "data_dir_unusable", detail).try_next("choose another with --data-dir, or make it writable")
}
