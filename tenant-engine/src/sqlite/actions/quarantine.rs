//! Implements [`crate::Engine::quarantine_object`]: moves a file and its companions to `<root>/quarantine/<label>/…`;
//! nothing is deleted.
//!
//! A database is renamed while it is locked exclusively and its log is empty. So no writer continues in it, and no log
//! remains at the old name that could be replayed into another file.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::databases::{SIDES, physical_id};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::ExpectedIdentity;
use crate::listing::{ListedObject, ListedObjectKind};
use crate::placement::{Placement, parse_sqlite};
use crate::server::DatabaseServer;
use crate::sqlite::SqliteEngine;
use crate::sqlite::error::from_sqlite;
use crate::sqlite::storage::files::{io_fault, path_beside};
use crate::sqlite::storage::open::{OpenDatabase, open_alone};
use crate::sqlite::storage::shared_state::FlushNeed;

/// A folder in a server's directory; `databases.rs` skips it.
pub(super) const FOLDER: &str = "quarantine";
/// The mode of a tenant's own folder.
const DIRECTORY_MODE: u32 = 0o700;

/// See [`crate::Engine::quarantine_object`].
pub(in crate::sqlite) async fn quarantine_object(
    engine: &SqliteEngine,
    on: &DatabaseServer,
    found: &ListedObject,
    expected: Option<&ExpectedIdentity>,
    label: &str,
) -> Result<String> {
    let DatabaseServer::Sqlite { root } = on else {
        return Err(Error::new(ErrorKind::Internal, "this server belongs to another engine"));
    };
    let to = format!("{FOLDER}/{label}/{}", found.name);
    let (root, found, expected) = (root.clone(), found.clone(), expected.cloned());
    engine.durably_under(root.clone(), move || move_aside(&root, &found, expected.as_ref(), &to)).await
}

fn move_aside(
    root: &Path,
    found: &ListedObject,
    expected: Option<&ExpectedIdentity>,
    to: &str,
) -> Result<(String, FlushNeed)> {
    let (from, target) = (path_inside(root, &found.name)?, root.join(to));
    let lock = match found.what {
        ListedObjectKind::Database => {
            let at =
                parse_sqlite(root, &found.name).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
            require_unchanged(&from, found)?;
            open_exclusively(&at, expected)?
        }
        _ => None,
    };
    // Checked again under the lock.
    require_unchanged(&from, found)?;
    make_folders(root, &target)?;
    rename_to_free(&from, &target)?;
    if lock.is_some() {
        // The log is empty, and under the lock no writer can fill it, so there is nothing in it to keep.
        let _ = std::fs::remove_file(path_beside(&from, "-wal"));
    }
    drop(lock);
    for side in SIDES {
        match rename_to_free(&path_beside(&from, side), &path_beside(&target, side)) {
            Err(error) if error.kind() == ErrorKind::Missing => {}
            moved => moved?,
        }
    }
    // Removes the tenant's folder if it is empty now; never the root, which contains the quarantine.
    let _ = from.parent().map(std::fs::remove_dir);
    Ok((to.to_owned(), FlushNeed::Needed))
}

/// At most a folder and a file, both by name: no argument of a caller can lead out of the directory.
fn path_inside(root: &Path, name: &str) -> Result<PathBuf> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    let parts: Vec<&str> = name.split('/').collect();
    match parts.len() <= 2 && parts.iter().all(|part| plain(part)) && parts[0] != FOLDER {
        true => Ok(root.join(name)),
        false => Err(Error::new(ErrorKind::Missing, "no such name can be in the server's directory")),
    }
}

/// Requires the file that was found, with a single name: a second name could belong to a tenant.
fn require_unchanged(path: &Path, found: &ListedObject) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    let looked =
        |path: &Path| std::fs::symlink_metadata(path).map_err(|error| io_fault("cannot check the file", error));
    let metadata: Metadata = looked(path)?;
    let changed = |why: &str| Err(Error::new(ErrorKind::Fenced, why));
    match () {
        () if found.name.contains('/') && !looked(folder)?.is_dir() => changed("its folder is a link"),
        () if physical_id(&metadata) != found.physical => changed("another file has its name now"),
        () if !metadata.is_file() => changed("it is not a regular file: check it and move it by hand"),
        () if metadata.nlink() != 1 => changed("the file also has another name, which may belong to a tenant"),
        () => Ok(()),
    }
}

/// Opens the database exclusively, with an empty log; `None` for bytes that are not a database, if the caller also
/// found that.
fn open_exclusively(at: &Placement, expected: Option<&ExpectedIdentity>) -> Result<Option<OpenDatabase>> {
    let database = match open_alone(at) {
        Err(error) if error.kind() == ErrorKind::Corrupt && expected.is_none() => return Ok(None),
        database => database?,
    };
    let identity = database.read_transaction(expected, |_, identity| Ok(identity));
    match (identity, expected) {
        (Ok(_), Some(_)) => {}
        (Ok(_), None) => return Err(Error::new(ErrorKind::Fenced, "it carries an identity now")),
        (Err(error), None) if matches!(error.kind(), ErrorKind::WrongTenant | ErrorKind::Corrupt) => {}
        (Err(error), _) => return Err(error),
    }
    database.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).map_err(from_sqlite)?;
    match database.wal_bytes() {
        0 => Ok(Some(database)),
        _ => Err(Error::new(ErrorKind::Busy, "its write-ahead log cannot be copied into it")),
    }
}

fn make_folders(root: &Path, target: &Path) -> Result<()> {
    let folder = target.parent().unwrap_or(target);
    let mut missing: Vec<&Path> = folder.ancestors().take_while(|folder| *folder != root).collect();
    while let Some(folder) = missing.pop() {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_fault("cannot make the folder in the quarantine", error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Renames to an unused name.
fn rename_to_free(from: &Path, to: &Path) -> Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => {
            Err(Error::new(ErrorKind::AlreadyExists, "a file with this name was quarantined on the same day"))
        }
        Err(errno) => Err(io_fault("cannot move the file to quarantine", errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leads_out_of_the_directory() {
        let root = Path::new("/r");
        assert!(path_inside(root, "a/b").is_ok() && path_inside(root, "a").is_ok());
        for wrong in ["", "/", "a/", "../x", "a/..", "a/b/c", "quarantine/x", "/etc", "a\0b"] {
            assert!(path_inside(root, wrong).is_err(), "{wrong:?}");
        }
    }
}
