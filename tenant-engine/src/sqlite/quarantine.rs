//! The verb `quarantine`: a file and its companions move to `<root>/quarantine/<label>/…`; nothing is deleted.
//!
//! A database is renamed while its lock is held alone and its log is empty, so that no writer goes on in it and nothing is
//! left at the old name that could be replayed into anything.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::SqliteEngine;
use super::databases::{SIDES, physical};
use super::error::from_sqlite;
use super::files::{beside, fault};
use super::open::{Database, open_alone};
use super::verbs::Flush;
use crate::error::{Error, ErrorKind, Result};
use crate::found::{Found, FoundKind};
use crate::identity::Expected;
use crate::placement::{Placement, parse_sqlite};
use crate::server::Server;

/// Under a server's directory; not looked into by `databases`.
pub(super) const FOLDER: &str = "quarantine";
/// As a tenant's own folder.
const DIRECTORY_MODE: u32 = 0o700;

/// See [`crate::Engine::quarantine`].
pub(super) async fn quarantine(
    engine: &SqliteEngine,
    on: &Server,
    found: &Found,
    expected: Option<&Expected>,
    label: &str,
) -> Result<String> {
    let Server::Sqlite { root } = on else {
        return Err(Error::new(ErrorKind::Internal, "this server is another engine's"));
    };
    let to = format!("{FOLDER}/{label}/{}", found.name);
    let (root, found, expected) = (root.clone(), found.clone(), expected.cloned());
    engine.durably_under(root.clone(), move || aside(&root, &found, expected.as_ref(), &to)).await
}

fn aside(root: &Path, found: &Found, expected: Option<&Expected>, to: &str) -> Result<(String, Flush)> {
    let (from, target) = (inside(root, &found.name)?, root.join(to));
    let lock = match found.what {
        FoundKind::Database => {
            let at =
                parse_sqlite(root, &found.name).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
            still(&from, found)?;
            hold(&at, expected)?
        }
        _ => None,
    };
    // Looked at again under the lock.
    still(&from, found)?;
    make_folders(root, &target)?;
    rename(&from, &target)?;
    if lock.is_some() {
        // Empty, and under the lock nobody fills it: it holds nothing that could be put aside.
        let _ = std::fs::remove_file(beside(&from, "-wal"));
    }
    drop(lock);
    for side in SIDES {
        match rename(&beside(&from, side), &beside(&target, side)) {
            Err(error) if error.kind() == ErrorKind::Missing => {}
            moved => moved?,
        }
    }
    // The tenant's folder, when it is empty now; never the root, which has the quarantine in it.
    let _ = from.parent().map(std::fs::remove_dir);
    Ok((to.to_owned(), Flush::Needed))
}

/// At most a folder and a file, both by name: nothing that a caller says leads out of the directory.
fn inside(root: &Path, name: &str) -> Result<PathBuf> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    let parts: Vec<&str> = name.split('/').collect();
    match parts.len() <= 2 && parts.iter().all(|part| plain(part)) && parts[0] != FOLDER {
        true => Ok(root.join(name)),
        false => Err(Error::new(ErrorKind::Missing, "no such name can be in the server's directory")),
    }
}

/// The very file that was found, under one name only: a second name could be a tenant's.
fn still(path: &Path, found: &Found) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    let looked = |path: &Path| std::fs::symlink_metadata(path).map_err(|error| fault("cannot look at the file", error));
    let metadata: Metadata = looked(path)?;
    let changed = |why: &str| Err(Error::new(ErrorKind::Fenced, why));
    match () {
        () if found.name.contains('/') && !looked(folder)?.is_dir() => changed("its folder is a link"),
        () if physical(&metadata) != found.physical => changed("another file stands at its name now"),
        () if !metadata.is_file() => changed("it is no regular file: look at it and move it by hand"),
        () if metadata.nlink() != 1 => changed("the file has another name too, which may be a tenant's"),
        () => Ok(()),
    }
}

/// The database alone, with an empty log; `None` for bytes that are no database, as was found before.
fn hold(at: &Placement, expected: Option<&Expected>) -> Result<Option<Database>> {
    let database = match open_alone(at) {
        Err(error) if error.kind() == ErrorKind::Corrupt && expected.is_none() => return Ok(None),
        database => database?,
    };
    let identity = database.read(expected, |_, identity| Ok(identity));
    match (identity, expected) {
        (Ok(_), Some(_)) => {}
        (Ok(_), None) => return Err(Error::new(ErrorKind::Fenced, "it carries an identity now")),
        (Err(error), None) if matches!(error.kind(), ErrorKind::WrongTenant | ErrorKind::Corrupt) => {}
        (Err(error), _) => return Err(error),
    }
    database.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).map_err(from_sqlite)?;
    match database.wal_bytes() {
        0 => Ok(Some(database)),
        _ => Err(Error::new(ErrorKind::Busy, "its write-ahead log cannot be folded into it")),
    }
}

fn make_folders(root: &Path, target: &Path) -> Result<()> {
    let folder = target.parent().unwrap_or(target);
    let mut missing: Vec<&Path> = folder.ancestors().take_while(|folder| *folder != root).collect();
    while let Some(folder) = missing.pop() {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(fault("cannot make the folder for what is put aside", error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// To a name that is free.
fn rename(from: &Path, to: &Path) -> Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => {
            Err(Error::new(ErrorKind::AlreadyExists, "something with this name was put aside on the same day"))
        }
        Err(errno) => Err(fault("cannot put the file aside", errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leads_out_of_the_directory() {
        let root = Path::new("/r");
        assert!(inside(root, "a/b").is_ok() && inside(root, "a").is_ok());
        for wrong in ["", "/", "a/", "../x", "a/..", "a/b/c", "quarantine/x", "/etc", "a\0b"] {
            assert!(inside(root, wrong).is_err(), "{wrong:?}");
        }
    }
}
