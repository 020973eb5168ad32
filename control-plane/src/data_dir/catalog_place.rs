//! Locates the fleet's catalog, and makes sure that no other catalog is used in its place.

use std::path::Path;

use catalog::Catalog;
use catalog::db::CatalogLocation;
use catalog::home::{CATALOG_FILE, MOVED_FILE};

use super::{DataDirectory, not_initialised};
use crate::error::{Error, ErrorKind, Result};

impl DataDirectory {
    /// The location of the catalog.
    #[must_use]
    pub fn catalog_location(&self) -> &CatalogLocation {
        &self.catalog
    }

    /// Whether the catalog is on a server, not on this directory's disk.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.catalog, CatalogLocation::Postgres(_))
    }

    /// Whether a catalog was created.
    ///
    /// # Errors
    /// Those of a catalog that cannot be reached.
    pub async fn has_catalog(&self) -> Result<bool> {
        Catalog::is_there(&self.catalog).await.map_err(|error| self.explain_open_error(error.into()))
    }

    /// Finds out whether there is a catalog, and refuses to use or create a wrong one. If a fleet existed but its
    /// catalog is gone, a new catalog would forget tenants whose databases still exist. If the catalog was moved, the
    /// file is an old snapshot. If the directory has its own catalog, tenants of another one do not belong to it. A
    /// lost catalog is recognised by tenants and the operator's token, which are only created after the catalog.
    ///
    /// # Errors
    /// `catalog_missing`, `catalog_moved`, `two_catalogs`, and those of a catalog that cannot be reached.
    pub async fn find_catalog(&self) -> Result<bool> {
        self.require_not_moved()?;
        let there = self.has_catalog().await?;
        if there || !self.was_used() {
            return Ok(there);
        }
        let lost = if self.is_elsewhere() { "is empty" } else { "is gone or empty" };
        let detail =
            format!("there was a fleet in {}, but its catalog, {}, {lost}", self.root.display(), self.catalog_name());
        Err(Error::new(ErrorKind::CatalogMissing, detail)
            .try_next("restore the catalog; backup runs store copies of it in the backup store, under v1/catalog")
            .try_next("or create a new fleet elsewhere: --data-dir DIR"))
    }

    /// Requires a catalog, as [`DataDirectory::find_catalog`] finds it.
    ///
    /// # Errors
    /// Those of [`DataDirectory::find_catalog`]; `not_initialised` when there is none.
    pub async fn require_catalog(&self) -> Result<()> {
        match self.find_catalog().await? {
            true => Ok(()),
            false => Err(not_initialised()),
        }
    }

    /// Records that the catalog is at `to` now. The catalog file stays as it is.
    ///
    /// # Errors
    /// `data_dir_unusable`.
    pub fn mark_moved(&self, to: &CatalogLocation) -> Result<()> {
        let text = format!(
            "The catalog of this fleet is at {} now; catalog.db is its state when it was copied.\n\
             To go back to that file, and lose all later changes, remove this file.\n",
            to
        );
        self.write_secret(&self.root.join(MOVED_FILE), &text.trim_end().to_owned().into())
    }

    /// Explains why the catalog could not be opened. SQLite only says "unable to open", so this checks whether the
    /// directory and file are writable. It asks the system and opens nothing, because closing a file could drop another
    /// connection's locks.
    #[must_use]
    pub fn explain_open_error(&self, error: Error) -> Error {
        if self.is_elsewhere() {
            return add_server_advice(error);
        }
        let catalog = self.root.join(CATALOG_FILE);
        match [&self.root, &catalog].into_iter().find_map(|path| Some((path, may_write(path).err()?))) {
            Some((path, refusal)) if may_be_unwritable(&error.kind) => not_writable(path, refusal),
            _ => error,
        }
    }

    fn require_not_moved(&self) -> Result<()> {
        let (moved, file) = (self.root.join(MOVED_FILE), self.root.join(CATALOG_FILE));
        if !self.is_elsewhere() && moved.exists() {
            let detail = format!("the catalog of this fleet was moved; {} contains its new location", moved.display());
            return Err(Error::new(ErrorKind::CatalogMoved, detail)
                .try_next("set FLEET_CATALOG_URL, or catalog_url_file in fleet.toml")
                .try_next(format!("or go back to the file, and lose all later changes: rm {}", moved.display())));
        }
        if self.is_elsewhere() && !moved.exists() && std::fs::metadata(&file).is_ok_and(|file| file.len() > 0) {
            let detail =
                format!("{} has a catalog of its own, and {} is named too", self.root.display(), self.catalog_name());
            return Err(Error::new(ErrorKind::TwoCatalogs, detail)
                .try_next("fleetctl catalog copy      # with FLEET_CATALOG_URL unset: moves this catalog there")
                .try_next("or use another directory for this process: --data-dir DIR"));
        }
        Ok(())
    }

    fn was_used(&self) -> bool {
        let has_tenants = std::fs::read_dir(self.tenants_dir()).is_ok_and(|mut entries| entries.next().is_some());
        has_tenants || self.operator_token().exists()
    }

    /// The location of the catalog, for people.
    #[must_use]
    pub fn catalog_name(&self) -> String {
        self.catalog.to_string()
    }
}

/// Adds advice for a catalog on a server.
fn add_server_advice(error: Error) -> Error {
    match error.kind {
        ErrorKind::WrongKey => error
            .try_next("copy fleet.key from the data directory of a control plane of this fleet, or set FLEET_KEY")
            .try_next("or name another database, if this was to be a new fleet: FLEET_CATALOG_URL"),
        ErrorKind::CatalogUnavailable | ErrorKind::Catalog(catalog::ErrorKind::Refused) => {
            error.try_next("fleetctl config show --origin      # says where the catalog's address comes from")
        }
        _ => error,
    }
}

/// PURE: whether the operating system, and not a decision of this program, may have caused an error of this kind.
fn may_be_unwritable(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Internal
            | ErrorKind::CatalogUnavailable
            | ErrorKind::WrongKey
            | ErrorKind::DiskFull
            | ErrorKind::DataDirUnusable
            | ErrorKind::CatalogMissing
            | ErrorKind::Catalog(_)
    )
}

fn may_write(path: &Path) -> rustix::io::Result<()> {
    rustix::fs::accessat(rustix::fs::CWD, path, rustix::fs::Access::WRITE_OK, rustix::fs::AtFlags::EACCESS)
}

fn not_writable(path: &Path, refusal: rustix::io::Errno) -> Error {
    let detail = format!("this process may not write to {}: {refusal}", path.display());
    Error::new(ErrorKind::DataDirUnusable, detail)
        .try_next("check who owns it, and that its disk is not mounted read-only")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ProcessRole};

    fn at(directory: &Path) -> DataDirectory {
        DataDirectory::create_directories(&Config::new(directory.to_owned(), ProcessRole::Embedded)).unwrap()
    }

    #[tokio::test]
    async fn a_catalog_that_was_lost_is_not_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let home = at(directory.path());
        assert!(!home.find_catalog().await.unwrap());
        std::fs::write(directory.path().join("catalog.db"), "").unwrap();
        assert!(!home.find_catalog().await.unwrap());
        std::fs::create_dir(home.tenants_dir().join("somebody")).unwrap();
        assert_eq!(home.find_catalog().await.unwrap_err().code(), "catalog_missing");
        std::fs::write(directory.path().join("catalog.db"), "SQLite").unwrap();
        assert!(home.find_catalog().await.unwrap());
    }

    #[tokio::test]
    async fn a_catalog_that_was_moved_is_not_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let home = at(directory.path());
        std::fs::write(directory.path().join("catalog.db"), "SQLite").unwrap();
        let mut config = Config::new(directory.path().to_owned(), ProcessRole::Embedded);
        config.catalog_url = Some("postgres://fleet:hunter2@127.0.0.1:1/catalog".to_owned().into());
        let elsewhere = DataDirectory::create_directories(&config).unwrap();
        let error = elsewhere.find_catalog().await.unwrap_err();
        assert_eq!(error.code(), "two_catalogs");
        home.mark_moved(elsewhere.catalog_location()).unwrap();
        let error = home.find_catalog().await.unwrap_err();
        assert_eq!(error.code(), "catalog_moved");
        assert!(error.next_steps[0].contains("FLEET_CATALOG_URL"), "{error:?}");
        let said = std::fs::read_to_string(directory.path().join(MOVED_FILE)).unwrap();
        assert!(said.contains("postgres://fleet@127.0.0.1:1/catalog") && !said.contains("hunter2"), "{said}");
        std::fs::remove_file(directory.path().join(MOVED_FILE)).unwrap();
        assert!(home.find_catalog().await.unwrap());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_blamed_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let home = at(directory.path());
        std::fs::write(directory.path().join("catalog.db"), "").unwrap();
        let fault = || Error::new(ErrorKind::CatalogUnavailable, "unable to open database file");
        assert_eq!(home.explain_open_error(fault()).code(), "catalog_unavailable");
        // Root may write where other users may not, but not to a missing file.
        std::fs::remove_file(directory.path().join("catalog.db")).unwrap();
        let blamed = home.explain_open_error(fault());
        assert_eq!((blamed.code(), crate::http::status_of(&blamed.kind).as_u16()), ("data_dir_unusable", 500));
        assert!(blamed.detail.contains("may not write to"), "{blamed}");
        assert_eq!(home.explain_open_error(Error::new(ErrorKind::NotFound, "no")).code(), "not_found");
    }
}
