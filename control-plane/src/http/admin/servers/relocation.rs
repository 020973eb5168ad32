//! `POST /v1/servers/{server}/entry` for a directory: changes its path.
//!
//! The new directory must be the one that the server had, which its marker shows. An empty directory is accepted if the
//! old one is lost, so that tenants can be restored into it. While the old one still exists, the new one is a copy, and
//! is refused.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use catalog::ServerRecord;

use super::directory;
use crate::config::NetworkFileSystem;
use crate::data_dir::base_marker::{BaseMarker, FoundMarker};
use crate::error::ErrorKind;
use crate::http::error::{Problem, Result};

/// The directory's own path, if it may replace the server's directory.
///
/// # Errors
/// As for a new server; `base_in_use` for another server's directory, and while the old one still exists.
pub(super) fn check_new_base(
    server: &ServerRecord,
    to: &Path,
    fleet: &str,
    reserved: &[PathBuf],
    network: NetworkFileSystem,
) -> Result<PathBuf> {
    let path = directory::check_directory(to, fleet, reserved, network)?;
    let before = Path::new(&server.base);
    let is_ours = |base: &Path| match BaseMarker::read_marker(base) {
        FoundMarker::Marked(marker) => marker.server_id == server.id.to_string(),
        FoundMarker::Nothing | FoundMarker::Unreadable => false,
    };
    let old_is_there = is_ours(before) && !is_same(before, &path);
    match (is_ours(&path), BaseMarker::read_marker(&path), old_is_there) {
        (_, _, true) => Err(in_use(format!("base: {} is still there, so the new one is a copy", before.display()))
            .try_next("stop serve, move the old directory to its new place (mv), then run this again")),
        (true, ..) | (_, FoundMarker::Nothing, _) => Ok(path),
        _ => Err(in_use("base: it belongs to another server of this fleet".to_owned())),
    }
}

fn is_same(one: &Path, two: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(two)) {
        (Ok(one), Ok(two)) => (one.dev(), one.ino()) == (two.dev(), two.ino()),
        _ => false,
    }
}

fn in_use(detail: String) -> Problem {
    Problem::new(ErrorKind::BaseInUse, detail)
}
