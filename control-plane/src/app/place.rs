//! Where the data directory is, compared with where it was when it was last opened.
//!
//! A directory that was moved works where it is now: what lies inside it is named relative to it. A directory that was
//! copied is refused while the original is still there: both name the same tenants, servers and backups. Called by `app.rs`
//! after the catalog was opened and before anything else. A catalog on Postgres belongs to no directory.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use catalog::{Catalog, fleet, servers};

use crate::error::{Error, Result};
use crate::home::Home;
use crate::home::base_marker::{BaseMarker, FoundMarker};

/// What a directory is, compared with the one that was recorded.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// The recorded one, or the first one.
    Known,
    /// The recorded one is not there any more.
    Moved,
    /// The recorded one is there, and holds the same fleet.
    Copied,
}

/// Records where the data directory is, and names directories inside it relative to it.
///
/// # Errors
/// `data_dir_copied`; those of the catalog.
pub(super) async fn settle(catalog: &Catalog, home: &Home) -> Result<()> {
    if home.is_elsewhere() {
        return Ok(());
    }
    let mut tx = catalog.read().await?;
    let stored = servers::stored_bases(&mut tx).await?;
    let recorded = fleet::data_dir(&mut tx).await?;
    drop(tx);
    let before = recorded.clone().map(PathBuf::from).or_else(|| first_home(&stored, home));
    let original = before.as_deref().filter(|before| *before != home.root());
    let is_alive = original.is_some_and(|original| holds_fleet(original, home, &catalog.fleet_id().to_string()));
    match standing(original, is_alive) {
        Standing::Copied => return Err(copied(home.root(), original.unwrap_or(home.root()))),
        Standing::Known | Standing::Moved => {}
    }
    let absolute = |base: &str| Path::new(base).is_absolute();
    let inside: Vec<_> = stored
        .into_iter()
        .filter(|(_, base)| absolute(base))
        .filter_map(|(id, base)| Some((id, now_at(Path::new(&base), home.root(), original)?)))
        .collect();
    let here = home.root().to_string_lossy();
    if inside.is_empty() && recorded.as_deref() == Some(&*here) {
        return Ok(());
    }
    if let Err(error) = record(catalog, &here, &inside).await {
        // On a full disk the work that frees room must go on. The next start records it.
        tracing::warn!(%error, "where the data directory is was not recorded");
    }
    Ok(())
}

async fn record(catalog: &Catalog, here: &str, inside: &[(catalog::ServerId, PathBuf)]) -> Result<()> {
    let mut tx = catalog.write().await?;
    for (id, base) in inside {
        servers::set_base(&mut tx, *id, &base.to_string_lossy()).await?;
    }
    fleet::set_data_dir(&mut tx, here).await?;
    Ok(tx.commit().await?)
}

/// PURE.
fn standing(original: Option<&Path>, is_alive: bool) -> Standing {
    match original {
        None => Standing::Known,
        Some(_) if is_alive => Standing::Copied,
        Some(_) => Standing::Moved,
    }
}

/// PURE: where a directory is now that lies in the data directory, or lay in it before it was moved.
fn now_at(base: &Path, here: &Path, before: Option<&Path>) -> Option<PathBuf> {
    if base.starts_with(here) {
        return Some(base.to_path_buf());
    }
    Some(here.join(base.strip_prefix(before?).ok()?))
}

/// A version that did not record the directory named its tenants by their absolute path. The marker tells which of the
/// servers that is.
fn first_home(stored: &[(catalog::ServerId, String)], home: &Home) -> Option<PathBuf> {
    let FoundMarker::Marked(marker) = BaseMarker::read(&home.tenants()) else { return None };
    let (_, base) = stored.iter().find(|(id, _)| id.to_string() == marker.server_id)?;
    let base = Path::new(base);
    base.is_absolute().then(|| base.parent().map(Path::to_path_buf)).flatten()
}

/// Whether another directory holds this fleet. One that has a catalog and does not say whose it is counts as ours.
fn holds_fleet(other: &Path, home: &Home, fleet: &str) -> bool {
    let same = |one: &Path, two: &Path| match (std::fs::metadata(one), std::fs::metadata(two)) {
        (Ok(one), Ok(two)) => (one.dev(), one.ino()) == (two.dev(), two.ino()),
        _ => false,
    };
    if !other.join("catalog.db").exists() || same(other, home.root()) {
        return false;
    }
    match BaseMarker::read(&other.join("tenants")) {
        FoundMarker::Marked(marker) => marker.fleet_id == fleet,
        FoundMarker::Nothing | FoundMarker::Unreadable => true,
    }
}

fn copied(here: &Path, original: &Path) -> Error {
    let detail = format!(
        "{} is a copy of the data directory {}, which is still there; both would work on the same fleet",
        here.display(),
        original.display()
    );
    Error::new(409, "data_dir_copied", detail)
        .try_next(format!("use the original: --data-dir {}", original.display()))
        .try_next("if this one replaces it: move the original away, then run the command again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_known_moved_or_copied() {
        assert_eq!(standing(None, false), Standing::Known);
        assert_eq!(standing(Some(Path::new("/a")), false), Standing::Moved);
        assert_eq!(standing(Some(Path::new("/a")), true), Standing::Copied);
    }

    #[test]
    fn what_lay_inside_moves_along_and_nothing_else() {
        let at = |base: &str| now_at(Path::new(base), Path::new("/new"), Some(Path::new("/old")));
        assert_eq!(at("/old/tenants"), Some("/new/tenants".into()));
        assert_eq!(at("/new/disk2"), Some("/new/disk2".into()));
        assert_eq!(at("/older/tenants"), None);
        assert_eq!(at("/mnt/disk2"), None);
        assert_eq!(now_at(Path::new("/old/tenants"), Path::new("/new"), None), None);
    }
}
