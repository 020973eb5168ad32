//! Which directory may become a server: an empty one, or one that this fleet has marked before.
//!
//! Called by `server_entry.rs` before and when a server is added. Whatever else stands in a directory belongs to
//! somebody; a scrub must never meet it. The marker tells other fleets whose the directory is.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use tenant_engine::server::BASE_MARKER;

use crate::config::NetworkFileSystem;
use crate::home::base_marker::{BaseMarker, FoundMarker};
use crate::home::file_system;
use crate::http::error::{Problem, Result};

/// What a filesystem keeps at its top.
const OF_THE_FILESYSTEM: &str = "lost+found";

/// The directory by its own path, without links, if databases of this fleet may live in it.
///
/// # Errors
/// `network_file_system`; `base_in_use` for a directory with other things in it.
pub(super) fn check(base: &Path, fleet: &str, reserved: &[PathBuf], network: NetworkFileSystem) -> Result<PathBuf> {
    let failed = |error: std::io::Error| Problem::invalid(format!("base: cannot look at it: {error}"));
    let path = base.canonicalize().map_err(failed)?;
    file_system::require_safe(&path, network)?;
    if let Some(other) = reserved.iter().find(|other| overlaps(&path, other)) {
        return Err(in_use(format!("base: it overlaps {}, which has another use", other.display())));
    }
    match read_marker(&path)? {
        Some(marker) if marker.fleet_id == fleet => Ok(path),
        Some(_) => Err(in_use("base: it belongs to another fleet".to_owned())),
        None if is_empty(&path).map_err(failed)? => Ok(path),
        None => Err(in_use("base: other files are in this directory".to_owned())),
    }
}

/// Writes the marker, durably; one that is there already is replaced.
///
/// # Errors
/// `invalid` when the directory cannot be written.
pub(super) fn mark(base: &Path, fleet: String, server: String) -> Result<()> {
    let marker = BaseMarker { fleet_id: fleet, server_id: server };
    marker.write(base).map_err(|error| Problem::invalid(format!("base: cannot be marked: {error}")))
}

/// True when one is the other, or inside it, by name or by what it is: a link or a bind mount is the same directory.
pub(super) fn overlaps(one: &Path, other: &Path) -> bool {
    contains(one, other) || contains(other, one)
}

fn contains(outer: &Path, inner: &Path) -> bool {
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
    match BaseMarker::read(path) {
        FoundMarker::Marked(marker) => Ok(Some(marker)),
        FoundMarker::Nothing => Ok(None),
        FoundMarker::Unreadable => Err(in_use(format!("base: its {BASE_MARKER} is not a marker"))),
    }
}

fn in_use(detail: String) -> Problem {
    Problem::new(StatusCode::CONFLICT, "base_in_use", detail).try_next("give an empty directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_or_marked_directory_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir(base.join(OF_THE_FILESYSTEM)).unwrap();
        assert_eq!(check(&base, "flt_1", &[], NetworkFileSystem::Refused).unwrap(), base);
        mark(&base, "flt_1".to_owned(), "srv_1".to_owned()).unwrap();
        assert!(check(&base, "flt_1", &[], NetworkFileSystem::Refused).is_ok());
        assert!(check(&base, "flt_2", &[], NetworkFileSystem::Refused).is_err(), "another fleet's");
        std::fs::write(base.join(BASE_MARKER), "{").unwrap();
        assert!(check(&base, "flt_1", &[], NetworkFileSystem::Refused).is_err(), "no marker");
        std::fs::remove_file(base.join(BASE_MARKER)).unwrap();
        std::fs::write(base.join("notes.txt"), "mine").unwrap();
        assert!(check(&base, "flt_1", &[], NetworkFileSystem::Refused).is_err(), "a stranger's file");
        assert!(check(Path::new("/etc"), "flt_1", &[], NetworkFileSystem::Refused).is_err());
    }

    #[test]
    fn a_directory_is_known_by_what_it_is_not_by_what_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::create_dir_all(real.join("inner")).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(overlaps(&link, &real) && overlaps(&real, &link.join("inner")) && overlaps(dir.path(), &link));
        assert!(!overlaps(&real.join("inner"), &dir.path().join("other")));
        assert!(check(&link, "flt_1", &[real], NetworkFileSystem::Refused).is_err());
    }
}
