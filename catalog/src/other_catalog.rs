//! Checks whether another directory contains a catalog. Only a missing path counts as gone: an unreadable one may
//! contain the original.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// File name of a catalog.
const CATALOG: &str = "catalog.db";

/// The state of a catalog in another directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherCatalog {
    /// There is no catalog.
    Gone,
    /// The other path leads to the same directory.
    Same,
    /// There is a catalog.
    There,
    /// The system did not allow the check.
    Unknown(ErrorKind),
}

impl OtherCatalog {
    /// Checks another directory, from the data directory `here`.
    #[must_use]
    pub fn look_at(other: &Path, here: &Path) -> Self {
        match (std::fs::metadata(other), std::fs::metadata(here)) {
            (Ok(other), Ok(here)) if (other.dev(), other.ino()) == (here.dev(), here.ino()) => Self::Same,
            _ => classify_lookup(std::fs::metadata(other.join(CATALOG)).as_ref().err().map(io::Error::kind)),
        }
    }

    /// True when there is a catalog, or may be one.
    #[must_use]
    pub fn may_be_there(self) -> bool {
        matches!(self, Self::There | Self::Unknown(_))
    }
}

/// PURE: the meaning of an error when looking up the file; `None`: the file exists.
fn classify_lookup(error: Option<ErrorKind>) -> OtherCatalog {
    match error {
        None => OtherCatalog::There,
        Some(ErrorKind::NotFound | ErrorKind::NotADirectory) => OtherCatalog::Gone,
        Some(other) => OtherCatalog::Unknown(other),
    }
}

/// True when a directory of databases is inside another data directory than `here`.
#[must_use]
pub fn belongs_to_other(base: &Path, here: &Path) -> bool {
    let real = base.canonicalize().unwrap_or_else(|_| base.to_path_buf());
    real.parent().is_some_and(|parent| OtherCatalog::look_at(parent, here).may_be_there())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_gone() {
        assert_eq!(classify_lookup(None), OtherCatalog::There);
        for gone in [ErrorKind::NotFound, ErrorKind::NotADirectory] {
            assert_eq!(classify_lookup(Some(gone)), OtherCatalog::Gone);
        }
        let kinds = [
            ErrorKind::PermissionDenied,
            ErrorKind::TimedOut,
            ErrorKind::StaleNetworkFileHandle,
            ErrorKind::InvalidInput,
            ErrorKind::Interrupted,
            ErrorKind::Other,
        ];
        assert!(kinds.into_iter().all(|kind| classify_lookup(Some(kind)).may_be_there()));
    }

    #[test]
    fn a_directory_is_the_same_by_a_link_and_another_beside_it() {
        let place = tempfile::tempdir().unwrap();
        let [here, copy, link] = ["here", "copy", "link"].map(|name| place.path().join(name));
        for directory in [&here, &copy] {
            std::fs::create_dir_all(directory.join("tenants")).unwrap();
            std::fs::write(directory.join(CATALOG), "").unwrap();
        }
        std::os::unix::fs::symlink(&here, &link).unwrap();
        assert_eq!(OtherCatalog::look_at(&link, &here), OtherCatalog::Same);
        assert_eq!(OtherCatalog::look_at(&here, &copy), OtherCatalog::There);
        assert!(belongs_to_other(&here.join("tenants"), &copy));
        assert!(!belongs_to_other(&link.join("tenants"), &here));
        std::fs::remove_file(here.join(CATALOG)).unwrap();
        assert_eq!(OtherCatalog::look_at(&here, &copy), OtherCatalog::Gone);
        assert_eq!(OtherCatalog::look_at(&copy.join(CATALOG), &here), OtherCatalog::Gone, "a file is no directory");
    }
}
