//! Where the fleet's catalog is, and that nobody takes another one for it.

use std::path::Path;

use catalog::Catalog;
use catalog::db::Location;

use super::{Home, not_initialised};
use crate::error::{Error, Result};

/// Says that the catalog is elsewhere now, and where.
const MOVED: &str = "catalog.moved";

impl Home {
    /// Where the catalog is.
    #[must_use]
    pub fn catalog(&self) -> &Location {
        &self.catalog
    }

    /// True when it is on another server than this directory's disk.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.catalog, Location::Postgres(_))
    }

    /// True once a catalog was made.
    ///
    /// # Errors
    /// Those of a catalog that cannot be reached.
    pub async fn has_catalog(&self) -> Result<bool> {
        Catalog::is_there(&self.catalog).await.map_err(|error| self.blame(error.into()))
    }

    /// Finds out whether there is a catalog, and refuses where it would be the wrong one: where a fleet was but its
    /// catalog is gone, a new one would forget tenants whose databases are still there; where it was moved, the file is an
    /// old picture; where the directory has its own, another one's tenants are not this directory's. Of the traces of a
    /// lost one, tenants and the operator's token, both are only ever made after the catalog.
    ///
    /// # Errors
    /// `catalog_missing`, `catalog_moved`, `two_catalogs`, and those of a catalog that cannot be reached.
    pub async fn look_for_catalog(&self) -> Result<bool> {
        self.must_not_have_moved()?;
        let there = self.has_catalog().await?;
        if there || !self.was_used() {
            return Ok(there);
        }
        let lost = if self.is_elsewhere() { "is empty" } else { "is gone or empty" };
        let detail = format!("there was a fleet in {}, but its catalog, {}, {lost}", self.root.display(), self.name());
        Err(Error::new(500, "catalog_missing", detail)
            .try_next("bring the catalog back; runs of backups keep copies in the backup store, under v1/catalog")
            .try_next("or begin anew in another place: --data-dir DIR"))
    }

    /// As [`Home::look_for_catalog`].
    ///
    /// # Errors
    /// As there; `not_initialised` when there is none.
    pub async fn must_have_catalog(&self) -> Result<()> {
        match self.look_for_catalog().await? {
            true => Ok(()),
            false => Err(not_initialised()),
        }
    }

    /// Leaves word that the catalog is at `to` now; the file stays as it is.
    ///
    /// # Errors
    /// `data_dir_unusable`.
    pub fn mark_moved(&self, to: &Location) -> Result<()> {
        let text = format!(
            "The catalog of this fleet is at {} now; catalog.db is how it was when it was copied.\n\
             To go back to the file, and lose what was written since, remove this one.\n",
            to
        );
        self.write_secret(&self.root.join(MOVED), &text.trim_end().to_owned().into())
    }

    /// Why the catalog could not be opened: a directory or file this process may not write says so, because SQLite only
    /// says that it is "unable to open". Asks the system; opens nothing, which could drop another connection's locks.
    #[must_use]
    pub fn blame(&self, error: Error) -> Error {
        if self.is_elsewhere() {
            return advise(error);
        }
        let catalog = self.root.join("catalog.db");
        match [&self.root, &catalog].into_iter().find_map(|path| Some((path, may_write(path).err()?))) {
            Some((path, refusal)) if error.status >= 500 => not_writable(path, refusal),
            _ => error,
        }
    }

    fn must_not_have_moved(&self) -> Result<()> {
        let (moved, file) = (self.root.join(MOVED), self.root.join("catalog.db"));
        if !self.is_elsewhere() && moved.exists() {
            let detail = format!("the catalog of this fleet was moved; {} says where to", moved.display());
            return Err(Error::new(409, "catalog_moved", detail)
                .try_next("set FLEET_CATALOG_URL, or catalog_url_file in fleet.toml")
                .try_next(format!("or go back to the file, and lose what was written since: rm {}", moved.display())));
        }
        if self.is_elsewhere() && !moved.exists() && std::fs::metadata(&file).is_ok_and(|file| file.len() > 0) {
            let detail = format!("{} has a catalog of its own, and {} is named too", self.root.display(), self.name());
            return Err(Error::new(409, "two_catalogs", detail)
                .try_next("fleetctl catalog copy      # with FLEET_CATALOG_URL unset: moves the one here there")
                .try_next("or name another place for this process: --data-dir DIR"));
        }
        Ok(())
    }

    fn was_used(&self) -> bool {
        let has_tenants = std::fs::read_dir(self.tenants()).is_ok_and(|mut entries| entries.next().is_some());
        has_tenants || self.operator_token().exists()
    }

    /// Where the catalog is, for humans.
    #[must_use]
    pub fn name(&self) -> String {
        self.catalog.to_string()
    }
}

/// What helps against a catalog on a server.
fn advise(error: Error) -> Error {
    match error.code.as_ref() {
        "wrong_key" => error
            .try_next("copy fleet.key from the data directory of a control plane of this fleet, or set FLEET_KEY")
            .try_next("or name another database, if this was to be a new fleet: FLEET_CATALOG_URL"),
        "catalog_refused" | "catalog_unavailable" => {
            error.try_next("fleetctl config show --origin      # says where the catalog's address comes from")
        }
        _ => error,
    }
}

fn may_write(path: &Path) -> rustix::io::Result<()> {
    rustix::fs::accessat(rustix::fs::CWD, path, rustix::fs::Access::WRITE_OK, rustix::fs::AtFlags::EACCESS)
}

fn not_writable(path: &Path, refusal: rustix::io::Errno) -> Error {
    let detail = format!("this process may not write to {}: {refusal}", path.display());
    Error::new(500, "data_dir_unusable", detail)
        .try_next("check who owns it, and that its disk is not mounted read-only")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Role};

    fn at(directory: &Path) -> Home {
        Home::make(&Config::new(directory.to_owned(), Role::Embedded)).unwrap()
    }

    #[tokio::test]
    async fn a_catalog_that_was_lost_is_not_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let home = at(directory.path());
        assert!(!home.look_for_catalog().await.unwrap());
        std::fs::write(directory.path().join("catalog.db"), "").unwrap();
        assert!(!home.look_for_catalog().await.unwrap());
        std::fs::create_dir(home.tenants().join("somebody")).unwrap();
        assert_eq!(home.look_for_catalog().await.unwrap_err().code, "catalog_missing");
        std::fs::write(directory.path().join("catalog.db"), "SQLite").unwrap();
        assert!(home.look_for_catalog().await.unwrap());
    }

    #[tokio::test]
    async fn a_catalog_that_was_moved_is_not_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let home = at(directory.path());
        std::fs::write(directory.path().join("catalog.db"), "SQLite").unwrap();
        let mut config = Config::new(directory.path().to_owned(), Role::Embedded);
        config.catalog_url = Some("postgres://fleet:hunter2@127.0.0.1:1/catalog".to_owned().into());
        let elsewhere = Home::make(&config).unwrap();
        let error = elsewhere.look_for_catalog().await.unwrap_err();
        assert_eq!(error.code, "two_catalogs");
        home.mark_moved(elsewhere.catalog()).unwrap();
        let error = home.look_for_catalog().await.unwrap_err();
        assert_eq!(error.code, "catalog_moved");
        assert!(error.next_steps[0].contains("FLEET_CATALOG_URL"), "{error:?}");
        let said = std::fs::read_to_string(directory.path().join(MOVED)).unwrap();
        assert!(said.contains("postgres://fleet@127.0.0.1:1/catalog") && !said.contains("hunter2"), "{said}");
        std::fs::remove_file(directory.path().join(MOVED)).unwrap();
        assert!(home.look_for_catalog().await.unwrap());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_blamed_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let home = at(directory.path());
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
