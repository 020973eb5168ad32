//! The catalog's file: its path and its creation. Only SQLite opens it once it has content.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind as Io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::error::{Error, ErrorKind, Result};

/// Closing any descriptor of a file releases all locks of this process on it, including SQLite's. So this process may
/// not check for a catalog while another task has just created it and still has it open.
static MAKING: Mutex<()> = Mutex::new(());

/// Resolves the path's directory, because a URL would shorten `..`.
pub(crate) fn resolve_path(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| Error::new(ErrorKind::Invalid, "the catalog's path has no file name"))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match directory.canonicalize() {
        Ok(directory) => Ok(directory.join(name)),
        Err(error) if error.kind() == Io::NotFound => Err(not_initialised(path)),
        Err(error) => Err(file_unavailable(path, error)),
    }
}

/// Creates the directory for a new catalog, accessible only for its owner.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) else { return Ok(()) };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| file_unavailable(path, error))
}

/// The driver's address of an existing file.
pub(crate) fn sqlite_url(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| Error::new(ErrorKind::Invalid, "the catalog's path is not UTF-8"))?;
    let mut url = String::from("sqlite://");
    for byte in text.bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => url.push(char::from(byte)),
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    Ok(url + "?mode=rw")
}

/// Creates an empty file that only its owner can read, from the first moment.
pub(crate) fn create_if_missing(path: &Path) -> Result<()> {
    let _making = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match create_file(path) {
        Err(error) if error.kind() == Io::AlreadyExists => Ok(()),
        other => other.map_err(|error| file_unavailable(path, error)),
    }
}

/// Creates a new, empty file for a copy; fails when the path exists.
pub(crate) fn create_new(path: &Path) -> Result<()> {
    create_file(path).map_err(|error| match error.kind() {
        Io::AlreadyExists => Error::new(ErrorKind::AlreadyExists, format!("{} already exists", path.display())),
        _ => file_unavailable(path, error),
    })
}

/// Length of a file; 0 when there is none.
pub(crate) fn file_length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

/// Syncs a finished copy, so that it survives power loss.
pub(crate) fn sync_file(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .and_then(|()| sync_directory(path))
        .map_err(|error| file_unavailable(path, error))
}

/// Fails with `NotInitialised` when the file does not exist.
pub(crate) fn must_exist(path: &Path) -> Result<()> {
    let _making = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(Error::new(ErrorKind::Corrupt, format!("{} is not a file", path.display()))),
        Err(error) if error.kind() == Io::NotFound => Err(not_initialised(path)),
        Err(error) => Err(file_unavailable(path, error)),
    }
}

fn create_file(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    sync_directory(path)
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn not_initialised(path: &Path) -> Error {
    Error::new(
        ErrorKind::NotInitialised,
        format!("there is no catalog at {}: run `fleetctl init` first", path.display()),
    )
}

fn file_unavailable(path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
        _ => ErrorKind::Unavailable,
    };
    let message = format!("the catalog at {} cannot be used: {error}", path.display());
    Error::new(kind, message).with_source(error)
}
