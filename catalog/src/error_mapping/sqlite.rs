//! Maps the result codes of SQLite.

use crate::error::ErrorKind;

const PERM: i64 = 3;
const BUSY: i64 = 5;
const LOCKED: i64 = 6;
const NOMEM: i64 = 7;
const READONLY: i64 = 8;
const IOERR: i64 = 10;
const IOERR_SHMSIZE: i64 = 4_874;
const CORRUPT: i64 = 11;
const FULL: i64 = 13;
const CANTOPEN: i64 = 14;
const NOTADB: i64 = 26;

/// The primary result code; the driver reports the extended one.
fn primary_code(error: &sqlx::Error) -> Option<i64> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i64>().ok().map(|code| code & 0xff)
}

/// True when another process holds the file's lock.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(BUSY | LOCKED))
}

/// True when the disk has no space for the file, its log or their shared memory.
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i64>().ok());
    primary_code(error) == Some(FULL) || code == Some(IOERR_SHMSIZE)
}

/// The kind of such an error, and advice.
pub(super) fn explain_result_code(error: &sqlx::Error, message: &str) -> (ErrorKind, String) {
    match primary_code(error) {
        _ if is_full(error) => disk_full(),
        Some(BUSY | LOCKED) => {
            (ErrorKind::Unavailable, "the catalog is locked by another process; try again".to_owned())
        }
        Some(NOMEM) => (
            ErrorKind::Unavailable,
            "there was not enough memory for the catalog's statement; nothing was changed, try again".to_owned(),
        ),
        Some(READONLY | PERM) => (
            ErrorKind::ReadOnlyStorage,
            format!(
                "the catalog cannot be written ({message}): its directory or a file in it is read-only; check the permissions"
            ),
        ),
        Some(CANTOPEN) => (
            ErrorKind::Unavailable,
            format!("the catalog cannot be opened ({message}): check the directory and its permissions"),
        ),
        Some(IOERR) => (ErrorKind::Unavailable, format!("the disk that holds the catalog failed: {message}")),
        Some(CORRUPT | NOTADB) => (
            ErrorKind::Corrupt,
            format!("the catalog's file is damaged or is not a catalog ({message}): restore it from a backup"),
        ),
        _ => (ErrorKind::Corrupt, format!("the catalog's database refused a statement: {message}")),
    }
}

fn disk_full() -> (ErrorKind, String) {
    (ErrorKind::DiskFull, "the disk that holds the catalog is full; free some space and try again".to_owned())
}
