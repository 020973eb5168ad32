//! Where a database and its companions stand on disk: made privately, renamed once, removed without following links.
//!
//! Called by the verbs on worker threads. Never opens a file that SQLite may have open: closing such a descriptor
//! would drop SQLite's locks. It only makes new files, renames them to fresh names, unlinks and asks for metadata.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use crate::error::{Error, ErrorKind, Result};

/// Only the program's own user may read a tenant's data.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// What SQLite and this program put beside a database.
const COMPANIONS: [&str; 7] = ["-wal", "-shm", "-journal", ".part", ".part-wal", ".part-shm", ".part-journal"];

/// `path` with `suffix` appended to its last part.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Length of the file, 0 when there is none.
pub(super) fn length(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).map_or(0, |m| m.len())
}

/// What stands at a placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing, not even the tenant's directory.
    Nothing,
    /// A regular file in a real directory.
    File,
}

/// Looks at `path` without following links in its last two parts, which are the ones made of ids.
///
/// # Errors
/// [`ErrorKind::Io`] when something else than a file in a directory stands there.
pub(super) fn look(path: &Path) -> Result<Found> {
    let directory = path.parent().unwrap_or(path);
    for (path, wanted) in [(directory, Kind::Directory), (path, Kind::File)] {
        let found = match std::fs::symlink_metadata(path) {
            Ok(found) => found.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(fault("cannot look at the database", error)),
        };
        let fits = match wanted {
            Kind::Directory => found.is_dir(),
            Kind::File => found.is_file(),
        };
        if !fits {
            return Err(Error::new(
                ErrorKind::Io,
                format!("'{}' is not a {}; nothing was done", last_part(path), wanted.noun()),
            ));
        }
    }
    Ok(Found::File)
}

enum Kind {
    Directory,
    File,
}

impl Kind {
    fn noun(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File => "regular file",
        }
    }
}

/// A new, private file under the `.part` name of `path`. An older one is what a crash left and is replaced; two
/// callers never fill one placement, because a placement belongs to one attempt of one operation.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    target: PathBuf,
    state: PartState,
}

#[derive(Debug, PartialEq, Eq)]
enum PartState {
    Unfinished,
    Renamed,
}

/// Whether a rename found the name free.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Renamed {
    /// The file stands at its name now.
    Yes,
    /// Something was there already and still is; the part is gone.
    NameTaken,
}

impl Part {
    /// Makes the tenant's directory if needed and the empty file in it.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] when the server's directory is missing, else by the operating system's reason.
    pub(super) fn create(target: &Path) -> Result<(Self, File)> {
        make_directory(target.parent().unwrap_or(target))?;
        let path = beside(target, ".part");
        for suffix in ["", "-wal", "-shm", "-journal"] {
            unlink(&beside(&path, suffix))?;
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(&path);
        let file = file.map_err(|e| fault("cannot create the database file", e))?;
        Ok((Self { path, target: target.to_path_buf(), state: PartState::Unfinished }, file))
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name, unless something has it.
    ///
    /// # Errors
    /// By the operating system's reason; the part is removed then.
    pub(super) fn rename(mut self) -> Result<Renamed> {
        // A log without its database would be replayed into whatever takes the name.
        if length(&beside(&self.target, "-wal")) > 0 && length(&self.target) == 0 {
            return Err(Error::new(ErrorKind::AlreadyExists, "a write-ahead log of another database has the name"));
        }
        match rustix::fs::renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.state = PartState::Renamed;
                Ok(Renamed::Yes)
            }
            Err(rustix::io::Errno::EXIST) => Ok(Renamed::NameTaken),
            Err(errno) => Err(fault("cannot rename the new database", errno.into())),
        }
    }
}

impl Drop for Part {
    /// An unfinished part leaves nothing, not even an empty directory; what cannot be removed is removed with the
    /// placement.
    fn drop(&mut self) {
        if self.state == PartState::Unfinished {
            for suffix in ["", "-wal", "-shm", "-journal"] {
                let _ = unlink(&beside(&self.path, suffix));
            }
            let _ = self.target.parent().map(std::fs::remove_dir);
        }
    }
}

/// Removes the database, all that may stand beside it, and the tenant's directory when it is empty then.
///
/// # Errors
/// By the operating system's reason; repeatable.
pub(super) fn remove(path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(path);
    match std::fs::symlink_metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fault("cannot look at the tenant's directory", error)),
        Ok(found) if !found.is_dir() => {
            return Err(Error::new(
                ErrorKind::Io,
                format!("'{}' is not a directory; nothing was removed", last_part(directory)),
            ));
        }
        Ok(_) => {}
    }
    // The database first: what a crash leaves then can no longer be opened as one.
    unlink(path)?;
    COMPANIONS.iter().try_for_each(|suffix| unlink(&beside(path, suffix)))?;
    match std::fs::remove_dir(directory) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(fault("cannot remove the tenant's directory", error))
        }
        _ => Ok(()),
    }
}

fn make_directory(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match std::fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => Ok(()),
            _ => Err(Error::new(ErrorKind::Io, format!("'{}' is not a directory", last_part(path)))),
        },
        Err(error) => Err(fault("cannot create the tenant's directory", error)),
    }
}

/// Removes a file, or the link itself when it is one; missing is fine.
fn unlink(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault("cannot remove a file", error)),
        _ => Ok(()),
    }
}

/// An error of the operating system in the words of this crate.
pub(super) fn fault(what: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::Missing,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => ErrorKind::DiskFull,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnlyStorage,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("{what}: {error}")).with_source(error)
}

/// Errors name a file by its last part: the rest is the server's business.
fn last_part(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
