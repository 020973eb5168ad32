//! Implements [`crate::Engine::list_databases`]: the objects under a server's directory, by names and metadata only.
//!
//! No file is opened: closing a descriptor of a live database would drop SQLite's locks on it.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::quarantine::FOLDER;
use crate::disk::BASE_RESERVE;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::TenantId;
use crate::listing::{ListedObject, ListedObjectKind, ServerListing};
use crate::placement::parse_sqlite;
use crate::server::{BASE_MARKER, DatabaseServer};
use crate::sqlite::SqliteEngine;
use crate::sqlite::storage::files::io_fault;

/// The files that SQLite makes beside a database.
pub(super) const SIDES: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Names that are skipped: quarantined files, the folder of a file system at its top, the directory's own marker and
/// its reserve.
const SKIPPED: [&str; 4] = [FOLDER, "lost+found", BASE_MARKER, BASE_RESERVE];
/// A million tenants with one leftover each. A directory with more belongs to another program, and would only fill
/// memory.
const OBJECTS_MAX: usize = 2_000_000;

/// The entries of one folder.
type FolderEntries = BTreeMap<String, Metadata>;

/// See [`crate::Engine::list_databases`].
pub(in crate::sqlite) async fn list_databases(
    engine: &SqliteEngine,
    on: &DatabaseServer,
    of: Option<TenantId>,
) -> Result<ServerListing> {
    let DatabaseServer::Sqlite { root } = on else {
        return Err(Error::new(ErrorKind::Internal, "this server belongs to another engine"));
    };
    let root = root.clone();
    engine.run_blocking(move || list_root(&root, of)).await
}

fn list_root(root: &Path, of: Option<TenantId>) -> Result<ServerListing> {
    let unreachable = |error: std::io::Error| {
        let message = format!("cannot read {}: {error}", root.display());
        Error::new(ErrorKind::ServerUnreachable, message).with_source(error)
    };
    let place = physical_id(&std::fs::metadata(root).map_err(unreachable)?);
    let mut found = Vec::new();
    if let Some(tenant) = of {
        list_folder(root, &tenant.uuid().to_string(), tenant, &mut found)?;
        return Ok(ServerListing { place, found });
    }
    for (name, metadata) in read_entries(root).map_err(unreachable)? {
        match parse_tenant_folder(&name) {
            _ if SKIPPED.contains(&name.as_str()) => {}
            Some(tenant) if metadata.is_dir() => list_folder(root, &name, tenant, &mut found)?,
            tenant => found.push(listed_object(name, tenant, ListedObjectKind::Unknown, &metadata)),
        }
        if found.len() > OBJECTS_MAX {
            let message = format!("more than {OBJECTS_MAX} objects are in {}", root.display());
            return Err(Error::new(ErrorKind::Internal, message));
        }
    }
    Ok(ServerListing { place, found })
}

/// Lists a tenant's folder; a folder that was removed meanwhile is empty.
fn list_folder(root: &Path, folder: &str, tenant: TenantId, found: &mut Vec<ListedObject>) -> Result<()> {
    let entries = match read_entries(&root.join(folder)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| io_fault("cannot read a tenant's directory", error))?,
    };
    for (name, metadata) in &entries {
        let is_database = |name: &str| parse_sqlite(root, &format!("{folder}/{name}")).is_ok();
        let what = match metadata.is_file() {
            true => kind_of(name, is_database, |name| entries.contains_key(name)),
            false => Some(ListedObjectKind::Unknown),
        };
        let Some(what) = what else { continue };
        let mut one = listed_object(format!("{folder}/{name}"), Some(tenant), what, metadata);
        let log = entries.get(&format!("{name}-wal")).map_or(0, Metadata::len);
        one.size_bytes = one.size_bytes.map(|size| size + log);
        one.reference = (what == ListedObjectKind::Database).then(|| one.name.clone());
        found.push(one);
    }
    Ok(())
}

/// PURE: the kind of a file by its name; `None` for a file that belongs to a database beside it.
fn kind_of(
    name: &str,
    is_database: impl Fn(&str) -> bool,
    is_there: impl Fn(&str) -> bool,
) -> Option<ListedObjectKind> {
    let is_part = |name: &str| name.strip_suffix(".part").is_some_and(&is_database);
    if is_database(name) {
        return Some(ListedObjectKind::Database);
    }
    if is_part(name) {
        return Some(ListedObjectKind::Part);
    }
    match SIDES.iter().find_map(|side| name.strip_suffix(side)) {
        Some(main) if is_database(main) || is_part(main) => (!is_there(main)).then_some(ListedObjectKind::SideFile),
        _ => Some(ListedObjectKind::Unknown),
    }
}

fn listed_object(name: String, tenant: Option<TenantId>, what: ListedObjectKind, metadata: &Metadata) -> ListedObject {
    let born = metadata.created().or_else(|_| metadata.modified()).ok();
    let since = born.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    ListedObject {
        reference: None,
        name,
        tenant,
        what,
        physical: physical_id(metadata),
        size_bytes: Some(metadata.len()),
        since: since.and_then(|since| i64::try_from(since.as_millis()).ok()),
    }
}

/// Identifies a file or directory under any name.
pub(super) fn physical_id(metadata: &Metadata) -> String {
    format!("{}:{}", metadata.dev(), metadata.ino())
}

/// Accepts only the exact spelling that this program writes.
fn parse_tenant_folder(folder: &str) -> Option<TenantId> {
    let uuid = uuid::Uuid::try_parse(folder).ok()?;
    (uuid.to_string() == folder).then(|| TenantId::from_uuid(uuid))
}

/// Reads names and metadata without following links; entries that are removed meanwhile are left out.
fn read_entries(folder: &Path) -> std::io::Result<FolderEntries> {
    let mut entries = FolderEntries::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) => drop(entries.insert(entry.file_name().to_string_lossy().into_owned(), metadata)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_a_file_is() {
        let is_database = |name: &str| name == "g1-1.db";
        let kind = |name: &str, there: &[&str]| kind_of(name, is_database, |name| there.contains(&name));
        assert_eq!(kind("g1-1.db", &[]), Some(ListedObjectKind::Database));
        assert_eq!(kind("g1-1.db.part", &[]), Some(ListedObjectKind::Part));
        assert_eq!(kind("g1-1.db-wal", &["g1-1.db"]), None);
        assert_eq!(kind("g1-1.db-wal", &[]), Some(ListedObjectKind::SideFile));
        assert_eq!(kind("g1-1.db.part-wal", &["g1-1.db.part"]), None);
        assert_eq!(kind("g1-1.db.part-shm", &["g1-1.db"]), Some(ListedObjectKind::SideFile));
        assert_eq!(kind("notes.txt", &[]), Some(ListedObjectKind::Unknown));
        assert_eq!(kind("other.db-wal", &["other.db"]), Some(ListedObjectKind::Unknown));
    }

    #[test]
    fn only_our_spelling_names_a_tenant() {
        let uuid = uuid::Uuid::now_v7();
        assert!(parse_tenant_folder(&uuid.to_string()).is_some());
        assert!(
            parse_tenant_folder(&uuid.to_string().to_uppercase()).is_none()
                && parse_tenant_folder(&uuid.simple().to_string()).is_none()
        );
    }
}
