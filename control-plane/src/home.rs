//! The data directory: what lies where in it, and who may read it.
//!
//! ```text
//! catalog.db  fleet.key  operator.token     0600
//! tenants/  backups/  scratch/              0700
//! ```

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use catalog::db::Location;
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
}

impl Home {
    /// Makes the directories that are not there.
    ///
    /// # Errors
    /// `data_dir_unusable`.
    pub fn make(config: &Config) -> Result<Self> {
        let root = config.data_dir.clone();
        let unusable = |error: io::Error| unusable(&root, &error).with_source(error);
        for directory in [root.clone(), root.join("tenants"), root.join("scratch")] {
            DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(unusable)?;
        }
        Self::at(config)
    }

    /// The directory as it is, by its canonical path: it goes into the catalog, which must not depend on links.
    ///
    /// # Errors
    /// `data_dir_unusable`.
    pub fn at(config: &Config) -> Result<Self> {
        let root = config.data_dir.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => not_initialised().with_source(error),
            _ => unusable(&config.data_dir, &error).with_source(error),
        })?;
        Ok(Self { root })
    }

    /// Where the catalog is.
    #[must_use]
    pub fn catalog(&self) -> Location {
        Location::File(self.root.join("catalog.db"))
    }

    /// True once a catalog was made. An empty file is none: an `init` that was killed leaves one behind.
    #[must_use]
    pub fn has_catalog(&self) -> bool {
        std::fs::metadata(self.root.join("catalog.db")).is_ok_and(|file| file.len() > 0)
    }

    /// Fails where a fleet was but its catalog is gone: a new one would forget tenants whose databases are still there.
    /// Both traces are only ever made after the catalog.
    ///
    /// # Errors
    /// `catalog_missing`.
    pub fn must_not_have_lost_its_catalog(&self) -> Result<()> {
        let has_tenants = std::fs::read_dir(self.tenants()).is_ok_and(|mut entries| entries.next().is_some());
        if self.has_catalog() || !(has_tenants || self.operator_token().exists()) {
            return Ok(());
        }
        let detail = format!("there was a fleet in {}, but its catalog.db is gone or empty", self.root.display());
        Err(Error::new(500, "catalog_missing", detail)
            .try_next("put catalog.db back; every backup run keeps a copy in the backup store, under v1/catalog")
            .try_next("or begin anew in another place: --data-dir DIR"))
    }

    /// The base of the server `local`.
    #[must_use]
    pub fn tenants(&self) -> PathBuf {
        self.root.join("tenants")
    }

    /// Why the catalog could not be opened: a directory or file this process may not write says so, because SQLite only
    /// says that it is "unable to open". Asks the system; opens nothing, which could drop another connection's locks.
    #[must_use]
    pub fn blame(&self, error: Error) -> Error {
        let catalog = self.root.join("catalog.db");
        match [&self.root, &catalog].into_iter().find_map(|path| Some((path, may_write(path).err()?))) {
            Some((path, refusal)) if error.status >= 500 => not_writable(path, refusal),
            _ => error,
        }
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
                .try_next("restore fleet.key from where you keep it, or set FLEET_KEY")
                .with_source(error)
        })?;
        Ok(FleetKey::parse(text.expose_secret())?)
    }

    /// The key, made and written first if the fleet is new and none is there.
    ///
    /// # Errors
    /// As [`Home::key`]; `data_dir_unusable`.
    pub fn key_or_new(&self, config: &Config) -> Result<FleetKey> {
        let path = self.root.join("fleet.key");
        if config.fleet_key.is_none() && !path.exists() && !self.has_catalog() {
            self.write_secret(&path, &FleetKey::generate().expose())?;
        }
        self.key(config)
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

fn may_write(path: &Path) -> rustix::io::Result<()> {
    rustix::fs::accessat(rustix::fs::CWD, path, rustix::fs::Access::WRITE_OK, rustix::fs::AtFlags::EACCESS)
}

fn not_writable(path: &Path, refusal: rustix::io::Errno) -> Error {
    let detail = format!("this process may not write to {}: {refusal}", path.display());
    Error::new(500, "data_dir_unusable", detail)
        .try_next("check who owns it, and that its disk is not mounted read-only")
}

fn unusable(root: &Path, error: &io::Error) -> Error {
    let detail = format!("the data directory {} cannot be used: {error}", root.display());
    Error::new(500, "data_dir_unusable", detail).try_next("choose another with --data-dir, or make it writable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_that_was_lost_is_not_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::new(directory.path().to_owned(), crate::config::Role::Embedded);
        let home = Home::make(&config).unwrap();
        home.must_not_have_lost_its_catalog().unwrap();
        std::fs::write(directory.path().join("catalog.db"), "").unwrap();
        assert!(!home.has_catalog());
        home.must_not_have_lost_its_catalog().unwrap();
        std::fs::create_dir(home.tenants().join("somebody")).unwrap();
        assert_eq!(home.must_not_have_lost_its_catalog().unwrap_err().code, "catalog_missing");
        std::fs::write(directory.path().join("catalog.db"), "SQLite").unwrap();
        home.must_not_have_lost_its_catalog().unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_blamed_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::new(directory.path().to_owned(), crate::config::Role::Embedded);
        let home = Home::at(&config).unwrap();
        std::fs::write(directory.path().join("catalog.db"), "").unwrap();
        let fault = || Error::new(503, "catalog_unavailable", "unable to open database file");
        assert_eq!(home.blame(fault()).code, "catalog_unavailable");
        // Root may write where nobody else may, but not to what is not there.
        std::fs::remove_file(directory.path().join("catalog.db")).unwrap();
        let blamed = home.blame(fault());
        assert_eq!((blamed.code.as_ref(), blamed.status), ("data_dir_unusable", 500));
        assert!(blamed.detail.contains("may not write to"), "{blamed}");
        assert_eq!(home.blame(Error::new(404, "not_found", "no")).code, "not_found");
    }
}
