//! The verb `databases`: what stands under a server's directory, by names and metadata alone.
//!
//! Nothing is opened: closing a descriptor of a live database would drop SQLite's locks on it.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::SqliteEngine;
use super::files::fault;
use super::quarantine::FOLDER;
use crate::disk::BASE_RESERVE;
use crate::error::{Error, ErrorKind, Result};
use crate::found::{Found, FoundKind, Listing};
use crate::ids::TenantId;
use crate::placement::parse_sqlite;
use crate::server::{BASE_MARKER, Server};

/// What SQLite puts beside a database.
pub(super) const SIDES: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Not looked into: quarantined files, what a filesystem keeps at its top, the directory's own marker and its reserve.
const SKIPPED: [&str; 4] = [FOLDER, "lost+found", BASE_MARKER, BASE_RESERVE];
/// A million tenants with one leftover each; more is some other directory, and would only fill memory.
const OBJECTS_MAX: usize = 2_000_000;

/// The entries of one folder.
type Entries = BTreeMap<String, Metadata>;

/// See [`crate::Engine::databases`].
pub(super) async fn databases(engine: &SqliteEngine, on: &Server, of: Option<TenantId>) -> Result<Listing> {
    let Server::Sqlite { root } = on else {
        return Err(Error::new(ErrorKind::Internal, "this server is another engine's"));
    };
    let root = root.clone();
    engine.blocking(move || list(&root, of)).await
}

fn list(root: &Path, of: Option<TenantId>) -> Result<Listing> {
    let unreachable = |error: std::io::Error| {
        let message = format!("cannot look into {}: {error}", root.display());
        Error::new(ErrorKind::ServerUnreachable, message).with_source(error)
    };
    let place = physical(&std::fs::metadata(root).map_err(unreachable)?);
    let mut found = Vec::new();
    if let Some(tenant) = of {
        folder(root, &tenant.uuid().to_string(), tenant, &mut found)?;
        return Ok(Listing { place, found });
    }
    for (name, metadata) in entries(root).map_err(unreachable)? {
        match tenant(&name) {
            _ if SKIPPED.contains(&name.as_str()) => {}
            Some(tenant) if metadata.is_dir() => folder(root, &name, tenant, &mut found)?,
            tenant => found.push(object(name, tenant, FoundKind::Unknown, &metadata)),
        }
        if found.len() > OBJECTS_MAX {
            let message = format!("more than {OBJECTS_MAX} objects are in {}", root.display());
            return Err(Error::new(ErrorKind::Internal, message));
        }
    }
    Ok(Listing { place, found })
}

/// A tenant's folder; one that went meanwhile is empty.
fn folder(root: &Path, folder: &str, tenant: TenantId, found: &mut Vec<Found>) -> Result<()> {
    let entries = match entries(&root.join(folder)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| fault("cannot look into a tenant's directory", error))?,
    };
    for (name, metadata) in &entries {
        let is_database = |name: &str| parse_sqlite(root, &format!("{folder}/{name}")).is_ok();
        let what = match metadata.is_file() {
            true => kind_of(name, is_database, |name| entries.contains_key(name)),
            false => Some(FoundKind::Unknown),
        };
        let Some(what) = what else { continue };
        let mut one = object(format!("{folder}/{name}"), Some(tenant), what, metadata);
        let log = entries.get(&format!("{name}-wal")).map_or(0, Metadata::len);
        one.size_bytes = one.size_bytes.map(|size| size + log);
        one.reference = (what == FoundKind::Database).then(|| one.name.clone());
        found.push(one);
    }
    Ok(())
}

/// PURE: what a file is by its name; `None` for what belongs to a database beside it.
fn kind_of(name: &str, is_database: impl Fn(&str) -> bool, is_there: impl Fn(&str) -> bool) -> Option<FoundKind> {
    let is_part = |name: &str| name.strip_suffix(".part").is_some_and(&is_database);
    if is_database(name) {
        return Some(FoundKind::Database);
    }
    if is_part(name) {
        return Some(FoundKind::Part);
    }
    match SIDES.iter().find_map(|side| name.strip_suffix(side)) {
        Some(main) if is_database(main) || is_part(main) => (!is_there(main)).then_some(FoundKind::SideFile),
        _ => Some(FoundKind::Unknown),
    }
}

fn object(name: String, tenant: Option<TenantId>, what: FoundKind, metadata: &Metadata) -> Found {
    let born = metadata.created().or_else(|_| metadata.modified()).ok();
    let since = born.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Found {
        reference: None,
        name,
        tenant,
        what,
        physical: physical(metadata),
        size_bytes: Some(metadata.len()),
        since: since.and_then(|since| i64::try_from(since.as_millis()).ok()),
    }
}

/// What tells a file or directory from any other, whatever it is called.
pub(super) fn physical(metadata: &Metadata) -> String {
    format!("{}:{}", metadata.dev(), metadata.ino())
}

/// Only the one spelling that this program writes.
fn tenant(folder: &str) -> Option<TenantId> {
    let uuid = uuid::Uuid::try_parse(folder).ok()?;
    (uuid.to_string() == folder).then(|| TenantId::from_uuid(uuid))
}

/// Names and metadata, links not followed; what goes meanwhile is left out.
fn entries(folder: &Path) -> std::io::Result<Entries> {
    let mut entries = Entries::new();
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
        assert_eq!(kind("g1-1.db", &[]), Some(FoundKind::Database));
        assert_eq!(kind("g1-1.db.part", &[]), Some(FoundKind::Part));
        assert_eq!(kind("g1-1.db-wal", &["g1-1.db"]), None);
        assert_eq!(kind("g1-1.db-wal", &[]), Some(FoundKind::SideFile));
        assert_eq!(kind("g1-1.db.part-wal", &["g1-1.db.part"]), None);
        assert_eq!(kind("g1-1.db.part-shm", &["g1-1.db"]), Some(FoundKind::SideFile));
        assert_eq!(kind("notes.txt", &[]), Some(FoundKind::Unknown));
        assert_eq!(kind("other.db-wal", &["other.db"]), Some(FoundKind::Unknown));
    }

    #[test]
    fn only_our_spelling_names_a_tenant() {
        let uuid = uuid::Uuid::now_v7();
        assert!(tenant(&uuid.to_string()).is_some());
        assert!(tenant(&uuid.to_string().to_uppercase()).is_none() && tenant(&uuid.simple().to_string()).is_none());
    }
}
