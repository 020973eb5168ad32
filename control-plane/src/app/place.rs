//! Compares the data directory's location with that of its last opening.
//!
//! A directory that was moved works at its new path, because paths inside it are recorded relative to it. A directory
//! that was copied is refused while the original exists or may exist: both name the same tenants, servers and backups.
//! If the copy was opened first, claims keep the original from the servers outside (`tenant_engine::claim`). A copy
//! under the same path is recognised by the system's identification of the directory. Called by `app.rs` after the
//! catalog was opened and before anything else. A catalog on PostgreSQL belongs to no directory.

use std::io;
use std::path::{Path, PathBuf};

use catalog::other_catalog::OtherCatalog;
use catalog::{Catalog, fleet, servers};
use tenant_engine::FleetClaims;

use super::LOCAL_SERVER;
use crate::data_dir::DataDirectory;
use crate::data_dir::base_marker::{BaseMarker, FoundMarker};
use crate::error::{Error, ErrorKind, Result};

/// The directory, compared with the recorded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectoryState {
    /// It is the recorded directory, or the first one.
    Known,
    /// The recorded directory does not exist any more, or the same path is another directory now.
    Moved,
    /// The recorded directory exists elsewhere, and holds the same fleet.
    Copied,
    /// This process cannot see whether the recorded directory exists. The directory is refused as a copy would be.
    Unseen(io::ErrorKind),
}

/// Records where the data directory is, and makes the paths of directories inside it relative. A directory that was
/// accepted at another place gets an additional claim. A directory without a claim gets its first.
///
/// The catalog is written first, then the file of claims, then the servers (in `bases.rs` and in the engine). Each of
/// them knows at least what comes after it. So a process that ends in between leaves nothing that the next start
/// refuses.
///
/// # Errors
/// `data_dir_copied`, `identity_unfinished`; those of the catalog.
pub(crate) async fn record_place(catalog: &Catalog, home: &DataDirectory) -> Result<()> {
    let found = RecordedLocation::read_recorded(catalog).await?;
    if found.is_unfinished {
        return Err(identity_unfinished(home.root_dir()));
    }
    let standing = found.directory_state(home, &catalog.fleet_id().to_string());
    require_original(standing, home, &found)?;
    let known = found.claims.joined_with(&home.read_claims());
    let claims = match standing {
        DirectoryState::Known if known.newest_id().is_some() => known,
        _ => known.with_new_id(),
    };
    let inside = found.bases_inside(home);
    let claims = match found.needs_update(home, &inside, &claims) {
        false => claims,
        true => match write_place(catalog, home, (&inside, &found.claims), claims).await {
            Ok(claims) => claims,
            Err(error) => {
                // On a full disk the work that frees space must continue. The next start records the location.
                tracing::warn!(%error, "the location of the data directory was not recorded");
                return Ok(());
            }
        },
    };
    if let Err(error) = home.write_claims(&claims) {
        tracing::warn!(%error, "the claims of the data directory were not written");
    }
    Ok(())
}

/// Compares the directory with the recorded one. Nothing is written.
///
/// # Errors
/// Those of the catalog.
pub(crate) async fn inspect_place(catalog: &Catalog, home: &DataDirectory) -> Result<DirectoryState> {
    Ok(RecordedLocation::read_recorded(catalog).await?.directory_state(home, &catalog.fleet_id().to_string()))
}

/// Refuses a copied data directory.
///
/// # Errors
/// `data_dir_copied`.
pub(crate) async fn refuse_copy(catalog: &Catalog, home: &DataDirectory) -> Result<()> {
    let found = RecordedLocation::read_recorded(catalog).await?;
    require_original(found.directory_state(home, &catalog.fleet_id().to_string()), home, &found)
}

fn require_original(standing: DirectoryState, home: &DataDirectory, found: &RecordedLocation) -> Result<()> {
    let original = found.previous_root(home);
    match standing {
        DirectoryState::Known | DirectoryState::Moved => Ok(()),
        DirectoryState::Copied | DirectoryState::Unseen(_) => {
            Err(copied_error(home.root_dir(), original.as_deref().unwrap_or(home.root_dir()), standing))
        }
    }
}

/// The catalog's record of its location.
struct RecordedLocation {
    bases: Vec<(catalog::ServerId, String)>,
    data_dir: Option<String>,
    /// The system's identification of the directory.
    mark: Option<String>,
    /// The directory of the databases of the server `local`.
    local: Option<PathBuf>,
    claims: FleetClaims,
    /// Whether a new identity is unfinished.
    is_unfinished: bool,
}

impl RecordedLocation {
    async fn read_recorded(catalog: &Catalog) -> Result<Self> {
        let mut tx = catalog.read().await?;
        Ok(Self {
            is_unfinished: fleet::next_id(&mut tx).await?.is_some(),
            bases: servers::stored_bases(&mut tx).await?,
            data_dir: fleet::data_dir(&mut tx).await?,
            mark: fleet::directory_mark(&mut tx).await?,
            local: servers::by_name(&mut tx, LOCAL_SERVER).await?.map(|local| local.base.into()),
            claims: fleet::fleet_claims(&mut tx).await?,
        })
    }

    /// A catalog on PostgreSQL is in one place, no matter where its processes' directories are.
    fn directory_state(&self, home: &DataDirectory, fleet: &str) -> DirectoryState {
        if home.is_elsewhere() {
            return DirectoryState::Known;
        }
        let is_changed = self.mark.is_some() && self.mark != home.directory_mark();
        let before = self.previous_root(home);
        let other = before.as_deref().map(|before| find_other_catalog(before, home, fleet));
        classify_directory(other, is_changed)
    }

    /// Whether anything must be written.
    fn needs_update(
        &self,
        home: &DataDirectory,
        inside: &[(catalog::ServerId, PathBuf)],
        claims: &FleetClaims,
    ) -> bool {
        let is_here =
            self.data_dir.as_deref() == Some(&*home.root_dir().to_string_lossy()) && self.mark == home.directory_mark();
        *claims != self.claims || !inside.is_empty() || (!is_here && !home.is_elsewhere())
    }

    /// The previous path, if it differs.
    fn previous_root(&self, home: &DataDirectory) -> Option<PathBuf> {
        let recorded = self.data_dir.clone().map(PathBuf::from);
        let before = recorded
            .or_else(|| data_dir_from_marker(&self.bases, home))
            .or_else(|| data_dir_of_local_server(self.local.as_deref()?, home));
        before.filter(|before| before != home.root_dir())
    }

    /// Absolute base paths that are inside the directory now.
    fn bases_inside(&self, home: &DataDirectory) -> Vec<(catalog::ServerId, PathBuf)> {
        if home.is_elsewhere() {
            return Vec::new();
        }
        let original = self.previous_root(home);
        let now = |base: &str| current_path(Path::new(base), home.root_dir(), original.as_deref());
        let absolute = self.bases.iter().filter(|(_, base)| Path::new(base).is_absolute());
        absolute.filter_map(|(id, base)| Some((*id, now(base)?))).collect()
    }
}

/// Makes paths inside a copy of an earlier version's directory relative. They are then the copy's own, and not those of
/// the original, whose absolute paths the catalog holds.
///
/// # Errors
/// Those of the catalog.
pub(crate) async fn bring_inside(catalog: &Catalog, home: &DataDirectory) -> Result<()> {
    let found = RecordedLocation::read_recorded(catalog).await?;
    let inside = found.bases_inside(home);
    if inside.is_empty() {
        return Ok(());
    }
    let mut tx = catalog.write().await?;
    // The absolute paths showed where the original is. That must not be forgotten with them.
    if let (None, Some(original)) = (&found.data_dir, found.previous_root(home)) {
        fleet::set_data_dir(&mut tx, &original.to_string_lossy()).await?;
    }
    for (id, base) in inside {
        servers::set_base(&mut tx, id, &base.to_string_lossy()).await?;
    }
    Ok(tx.commit().await?)
}

/// Of processes that start together, the first one adds a claim, and the others use it. With a claim of their own they
/// would take each other for a copy.
async fn write_place(
    catalog: &Catalog,
    home: &DataDirectory,
    (inside, seen): (&[(catalog::ServerId, PathBuf)], &FleetClaims),
    claims: FleetClaims,
) -> Result<FleetClaims> {
    let mut tx = catalog.write().await?;
    for (id, base) in inside {
        servers::set_base(&mut tx, *id, &base.to_string_lossy()).await?;
    }
    note_place(&mut tx, home).await?;

    let now = fleet::fleet_claims(&mut tx).await?;
    let claims = if now == *seen { claims } else { now.joined_with(&home.read_claims()) };
    fleet::set_claims(&mut tx, &claims).await?;
    tx.commit().await?;
    Ok(claims)
}

/// Records where the directory is. A catalog on PostgreSQL belongs to none.
///
/// # Errors
/// Those of the catalog.
pub(crate) async fn note_place(tx: &mut catalog::WriteTx, home: &DataDirectory) -> Result<()> {
    if home.is_elsewhere() {
        return Ok(());
    }
    fleet::set_data_dir(tx, &home.root_dir().to_string_lossy()).await?;
    match home.directory_mark() {
        Some(mark) => Ok(fleet::set_directory_mark(tx, &mark).await?),
        None => Ok(()),
    }
}

/// PURE: classifies the directory. `other` is what exists at the recorded path, if that path differs. `is_changed` is
/// true when the system identifies the same path as another directory. A copy under the same path looks like that, and
/// so may a restarted machine. It is not refused, and costs one id.
fn classify_directory(other: Option<OtherCatalog>, is_changed: bool) -> DirectoryState {
    match other {
        Some(OtherCatalog::There) => DirectoryState::Copied,
        Some(OtherCatalog::Unknown(error)) => DirectoryState::Unseen(error),
        Some(OtherCatalog::Gone) => DirectoryState::Moved,
        Some(OtherCatalog::Same) | None if is_changed => DirectoryState::Moved,
        Some(OtherCatalog::Same) | None => DirectoryState::Known,
    }
}

/// PURE: the present path of a directory that is in the data directory, or was before that was moved.
fn current_path(base: &Path, here: &Path, before: Option<&Path>) -> Option<PathBuf> {
    if base.starts_with(here) {
        return Some(base.to_path_buf());
    }
    Some(here.join(base.strip_prefix(before?).ok()?))
}

/// The previous data directory, found through the marker. A version that did not record the directory named its
/// tenants' directory by an absolute path. The marker tells which server that is.
fn data_dir_from_marker(stored: &[(catalog::ServerId, String)], home: &DataDirectory) -> Option<PathBuf> {
    let FoundMarker::Marked(marker) = BaseMarker::read_marker(&home.tenants_dir()) else { return None };
    let (_, base) = stored.iter().find(|(id, _)| id.to_string() == marker.server_id)?;
    let base = Path::new(base);
    base.is_absolute().then(|| base.parent().map(Path::to_path_buf)).flatten()
}

/// The previous data directory of a version without markers. It had one server that was created with the data
/// directory: `local`, in its `tenants`. If that server was moved to another directory named `tenants`, its databases
/// are there, without a catalog beside them.
fn data_dir_of_local_server(base: &Path, home: &DataDirectory) -> Option<PathBuf> {
    let before = base.parent().filter(|_| base.is_absolute() && base.ends_with("tenants"))?;
    let is_gone = std::fs::symlink_metadata(base).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let has_tenants = || std::fs::read_dir(home.tenants_dir()).is_ok_and(|mut entries| entries.next().is_some());
    let was_home = OtherCatalog::look_at(before, home.root_dir()).may_be_there() || (is_gone && has_tenants());
    was_home.then(|| before.to_path_buf())
}

/// Whether another directory holds this fleet. A directory with a catalog that does not say whose it is counts as this
/// fleet's.
fn find_other_catalog(other: &Path, home: &DataDirectory, fleet: &str) -> OtherCatalog {
    match (OtherCatalog::look_at(other, home.root_dir()), BaseMarker::read_marker(&other.join("tenants"))) {
        (OtherCatalog::There, FoundMarker::Marked(marker)) if marker.fleet_id != fleet => OtherCatalog::Gone,
        (found, _) => found,
    }
}

/// The error of a directory whose new identity is unfinished.
pub(crate) fn identity_unfinished(here: &Path) -> Error {
    let detail = "`catalog new-identity` was interrupted in this data directory";
    let next = format!("fleetctl catalog new-identity --data-dir {}", here.display());
    Error::new(ErrorKind::IdentityUnfinished, detail).try_next(next)
}

fn copied_error(here: &Path, original: &Path, standing: DirectoryState) -> Error {
    let (here, original) = (here.display(), original.display());
    let both = "both would work on the same fleet";
    let detail = match standing {
        DirectoryState::Unseen(error) => format!(
            "{here} may be a copy of the data directory {original}, and this process cannot see whether that is still \
             there ({error}); {both}"
        ),
        _ => format!("{here} is a copy of the data directory {original}, which is still there; {both}"),
    };
    let replaces = match standing {
        DirectoryState::Unseen(_) => format!(
            "if {original} is not there any more: fleetctl catalog take-over --original-is-gone --data-dir {here}"
        ),
        _ => "if this one replaces it: move the original away, then run the command again".to_owned(),
    };
    Error::new(ErrorKind::DataDirCopied, detail)
        .try_next(format!("use the original: --data-dir {original}"))
        .try_next(replaces)
        .try_next(format!("to use both: fleetctl catalog new-identity --data-dir {here}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_known_moved_or_copied() {
        let refused = io::ErrorKind::PermissionDenied;
        let cases = [
            (None, false, DirectoryState::Known),
            (None, true, DirectoryState::Moved),
            (Some(OtherCatalog::Same), false, DirectoryState::Known),
            (Some(OtherCatalog::Same), true, DirectoryState::Moved),
            (Some(OtherCatalog::Gone), false, DirectoryState::Moved),
            (Some(OtherCatalog::There), true, DirectoryState::Copied),
            (Some(OtherCatalog::Unknown(refused)), true, DirectoryState::Unseen(refused)),
        ];
        for (other, is_changed, expected) in cases {
            assert_eq!(classify_directory(other, is_changed), expected, "{other:?} {is_changed}");
        }
    }

    #[test]
    fn what_lay_inside_moves_along_and_nothing_else() {
        let at = |base: &str| current_path(Path::new(base), Path::new("/new"), Some(Path::new("/old")));
        assert_eq!(at("/old/tenants"), Some("/new/tenants".into()));
        assert_eq!(at("/new/disk2"), Some("/new/disk2".into()));
        assert_eq!(at("/older/tenants"), None);
        assert_eq!(at("/mnt/disk2"), None);
        assert_eq!(current_path(Path::new("/old/tenants"), Path::new("/new"), None), None);
    }
}
