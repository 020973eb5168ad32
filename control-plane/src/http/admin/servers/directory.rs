//! Decides which directory may become a server: an empty one, or one that this fleet has marked before.
//!
//! Called by `connection.rs` before a server is added and when it is added, and by `relocation.rs`. Other files in a
//! directory belong to somebody, and a scrub must never find them. The marker tells other fleets who owns the
//! directory.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tenant_engine::claim::{self, FleetClaims};
use tenant_engine::server::BASE_MARKER;

use crate::config::NetworkFileSystem;
use crate::data_dir::base_marker::{BaseMarker, FoundMarker};
use crate::data_dir::file_system;
use crate::error::{Error, ErrorKind};
use crate::http::error::{Problem, Result};

/// A directory that file systems keep at their top.
const OF_THE_FILESYSTEM: &str = "lost+found";

/// The directory's own path, without links, if it may hold databases of this fleet.
///
/// # Errors
/// `network_file_system`; `base_in_use` for a directory with other contents.
pub(super) fn check_directory(
    base: &Path,
    fleet: &str,
    reserved: &[PathBuf],
    network: NetworkFileSystem,
) -> Result<PathBuf> {
    let failed = |error: std::io::Error| Problem::invalid(format!("base: cannot look at it: {error}"));
    let path = base.canonicalize().map_err(failed)?;
    file_system::require_safe(&path, network)?;
    if let Some(other) = reserved.iter().find(|other| directories_overlap(&path, other)) {
        return Err(in_use(format!("base: it overlaps {}, which has another use", other.display())));
    }
    match read_marker(&path)? {
        Some(marker) if marker.fleet_id == fleet => Ok(path),
        Some(_) => Err(in_use("base: it belongs to another fleet".to_owned())),
        None if is_empty(&path).map_err(failed)? => Ok(path),
        None => Err(in_use("base: other files are in this directory".to_owned())),
    }
}

/// Writes the marker durably. An existing marker is replaced. `claims` are the fleet's claims for a directory outside
/// the data directory, and empty for one inside.
///
/// # Errors
/// `invalid` when the directory cannot be written; `data_dir_copied` when a copy of the data directory uses it.
pub(super) fn mark_directory(base: &Path, fleet: String, server: String, claims: &FleetClaims) -> Result<()> {
    let claim = claims.compare_with_server(claim::of_directory(base).as_deref());
    claim::refuse_others(claim, base.display()).map_err(Error::from)?;
    let marker = BaseMarker { fleet_id: fleet, server_id: server, claim: claims.newest_id().map(str::to_owned) };
    marker.write_marker(base).map_err(|error| Problem::invalid(format!("base: cannot be marked: {error}")))
}

/// Whether two directories are the same, or one contains the other, by path or by identity. A link or a bind mount is
/// the same directory.
pub(super) fn directories_overlap(one: &Path, other: &Path) -> bool {
    contains_directory(one, other) || contains_directory(other, one)
}

fn contains_directory(outer: &Path, inner: &Path) -> bool {
    let Ok(wanted) = std::fs::metadata(outer) else { return inner.starts_with(outer) };
    let same = |found: Metadata| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino());
    inner.starts_with(outer) || inner.ancestors().any(|folder| std::fs::metadata(folder).is_ok_and(same))
}

fn is_empty(path: &Path) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(path)? {
        if entry?.file_name() != OF_THE_FILESYSTEM {
            return Ok(false);
        }
    }
    Ok(true)
}

fn read_marker(path: &Path) -> Result<Option<BaseMarker>> {
    match BaseMarker::read_marker(path) {
        FoundMarker::Marked(marker) => Ok(Some(marker)),
        FoundMarker::Nothing => Ok(None),
        FoundMarker::Unreadable => Err(in_use(format!("base: its {BASE_MARKER} is not a marker"))),
    }
}

fn in_use(detail: String) -> Problem {
    Problem::new(ErrorKind::BaseInUse, detail).try_next("give an empty directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_or_marked_directory_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir(base.join(OF_THE_FILESYSTEM)).unwrap();
        assert_eq!(check_directory(&base, "flt_1", &[], NetworkFileSystem::Refused).unwrap(), base);
        mark_directory(&base, "flt_1".to_owned(), "srv_1".to_owned(), &FleetClaims::default()).unwrap();
        assert!(check_directory(&base, "flt_1", &[], NetworkFileSystem::Refused).is_ok());
        assert!(check_directory(&base, "flt_2", &[], NetworkFileSystem::Refused).is_err(), "another fleet's");
        std::fs::write(base.join(BASE_MARKER), "{").unwrap();
        assert!(check_directory(&base, "flt_1", &[], NetworkFileSystem::Refused).is_err(), "no marker");
        std::fs::remove_file(base.join(BASE_MARKER)).unwrap();
        std::fs::write(base.join("notes.txt"), "mine").unwrap();
        assert!(check_directory(&base, "flt_1", &[], NetworkFileSystem::Refused).is_err(), "a stranger's file");
        assert!(check_directory(Path::new("/etc"), "flt_1", &[], NetworkFileSystem::Refused).is_err());
    }

    #[test]
    fn a_directory_is_known_by_what_it_is_not_by_what_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::create_dir_all(real.join("inner")).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(
            directories_overlap(&link, &real)
                && directories_overlap(&real, &link.join("inner"))
                && directories_overlap(dir.path(), &link)
        );
        assert!(!directories_overlap(&real.join("inner"), &dir.path().join("other")));
        assert!(check_directory(&link, "flt_1", &[real], NetworkFileSystem::Refused).is_err());
    }
}
