//! A database's files on disk: created privately, renamed once, removed without following links.
//!
//! Called by the engine operations on worker threads. It never opens a file that SQLite may have open, because closing
//! such a descriptor would drop SQLite's locks. It only creates new files, renames them to unused names, removes files
//! and reads metadata.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use crate::error::{Error, ErrorKind, Result};

/// Only the program's own user may read a tenant's data.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// The files that SQLite and this program make beside a database.
const COMPANIONS: [&str; 7] = ["-wal", "-shm", "-journal", ".part", ".part-wal", ".part-shm", ".part-journal"];

/// `path` with `suffix` appended to its last part.
pub(in crate::sqlite) fn path_beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Length of the file in bytes; 0 when there is none.
pub(in crate::sqlite) fn file_length(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).map_or(0, |m| m.len())
}

/// What is at a placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sqlite) enum FilePresence {
    /// No file, and perhaps no tenant's directory.
    Nothing,
    /// A regular file in a real directory.
    File,
}

/// Checks `path` without following links in its last two parts, which are made of ids.
///
/// # Errors
/// [`ErrorKind::Io`] when anything other than a file in a directory is there.
pub(in crate::sqlite) fn inspect_path(path: &Path) -> Result<FilePresence> {
    let directory = path.parent().unwrap_or(path);
    for (path, wanted) in [(directory, PathKind::Directory), (path, PathKind::File)] {
        let found = match std::fs::symlink_metadata(path) {
            Ok(found) => found.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(FilePresence::Nothing),
            Err(error) => return Err(io_fault("cannot check the database file", error)),
        };
        let fits = match wanted {
            PathKind::Directory => found.is_dir(),
            PathKind::File => found.is_file(),
        };
        if !fits {
            return Err(Error::new(
                ErrorKind::Io,
                format!("'{}' is not a {}; nothing was done", last_part(path), wanted.kind_noun()),
            ));
        }
    }
    Ok(FilePresence::File)
}

enum PathKind {
    Directory,
    File,
}

impl PathKind {
    fn kind_noun(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File => "regular file",
        }
    }
}

/// A new, private file under the `.part` name of `path`. An older one was left by a crash and is replaced. Two callers
/// never fill one placement, because a placement belongs to one attempt of one operation.
#[derive(Debug)]
pub(in crate::sqlite) struct PartFile {
    path: PathBuf,
    target: PathBuf,
    state: PartState,
}

#[derive(Debug, PartialEq, Eq)]
enum PartState {
    Unfinished,
    Renamed,
}

/// Whether a rename found an unused name.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sqlite) enum RenameOutcome {
    /// The file has its final name now.
    Yes,
    /// Another file already had the name and still has it; the part is removed.
    NameTaken,
}

impl PartFile {
    /// Makes the tenant's directory if needed, and the empty file in it.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] when the server's directory is missing, otherwise by the operating system's reason.
    pub(in crate::sqlite) fn create_part(target: &Path) -> Result<(Self, File)> {
        make_directory(target.parent().unwrap_or(target))?;
        let path = path_beside(target, ".part");
        for suffix in ["", "-wal", "-shm", "-journal"] {
            unlink_if_present(&path_beside(&path, suffix))?;
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(&path);
        let file = file.map_err(|e| io_fault("cannot create the database file", e))?;
        Ok((Self { path, target: target.to_path_buf(), state: PartState::Unfinished }, file))
    }

    /// Path of the file to write.
    pub(in crate::sqlite) fn part_path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its final name, unless another file has the name.
    ///
    /// # Errors
    /// By the operating system's reason; the part is then removed.
    pub(in crate::sqlite) fn rename_to_target(mut self) -> Result<RenameOutcome> {
        // A log without its database would be replayed into the next file with that name.
        if file_length(&path_beside(&self.target, "-wal")) > 0 && file_length(&self.target) == 0 {
            return Err(Error::new(ErrorKind::AlreadyExists, "a write-ahead log of another database has this name"));
        }
        match rustix::fs::renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.state = PartState::Renamed;
                Ok(RenameOutcome::Yes)
            }
            Err(rustix::io::Errno::EXIST) => Ok(RenameOutcome::NameTaken),
            Err(errno) => Err(io_fault("cannot rename the new database", errno.into())),
        }
    }
}

impl Drop for PartFile {
    /// An unfinished part leaves nothing behind, not even an empty directory. A file that cannot be removed now is
    /// removed with the placement.
    fn drop(&mut self) {
        if self.state == PartState::Unfinished {
            for suffix in ["", "-wal", "-shm", "-journal"] {
                let _ = unlink_if_present(&path_beside(&self.path, suffix));
            }
            let _ = self.target.parent().map(std::fs::remove_dir);
        }
    }
}

/// Removes the database, all files that may be beside it, and the tenant's directory if it is then empty.
///
/// # Errors
/// By the operating system's reason; repeatable.
pub(in crate::sqlite) fn remove_files(path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(path);
    match std::fs::symlink_metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_fault("cannot check the tenant's directory", error)),
        Ok(found) if !found.is_dir() => {
            return Err(Error::new(
                ErrorKind::Io,
                format!("'{}' is not a directory; nothing was removed", last_part(directory)),
            ));
        }
        Ok(_) => {}
    }
    // The database goes first, so that the files that a crash leaves cannot be opened as a database.
    unlink_if_present(path)?;
    COMPANIONS.iter().try_for_each(|suffix| unlink_if_present(&path_beside(path, suffix)))?;
    match std::fs::remove_dir(directory) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(io_fault("cannot remove the tenant's directory", error))
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
        Err(error) => Err(io_fault("cannot create the tenant's directory", error)),
    }
}

/// Removes a file, or the link itself when it is a link; a missing file is a success.
fn unlink_if_present(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_fault("cannot remove a file", error)),
        _ => Ok(()),
    }
}

/// Translates an error of the operating system into this crate's error.
pub(in crate::sqlite) fn io_fault(what: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::Missing,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => ErrorKind::DiskFull,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnlyStorage,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("{what}: {error}")).with_source(error)
}

/// Errors name a file by its last part, because the rest of the path is internal to the server.
fn last_part(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
