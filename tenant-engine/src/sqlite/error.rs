//! Translates SQLite's errors into this crate's errors. Every file of this engine that calls SQLite uses it.

use std::path::Path;

use rusqlite::Error as Sqlite;
use rusqlite::ffi::{self, ErrorCode};
use rustix::fs::{Access, access};

use crate::disk::DiskSpace;
use crate::error::{Error, ErrorKind};

/// The beginning of the message with which a function of `limits/functions/` refuses a call. The error is recognized by
/// it.
pub(super) const TOO_EXPENSIVE: &str = "this call would take too long or too much memory: ";

/// An error from a statement or an operation on an open database.
pub(crate) fn from_sqlite(error: Sqlite) -> Error {
    let kind = kind_of(&error);
    Error::new(kind, message_of(kind, &error)).with_source(error)
}

/// An error that code of an application got from `rusqlite`. A refusal of this crate is unwrapped from it.
#[must_use]
pub fn from_rusqlite(error: Sqlite) -> Error {
    match error {
        Sqlite::UserFunctionError(inside) => match inside.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => from_sqlite(Sqlite::UserFunctionError(other)),
        },
        other => from_sqlite(other),
    }
}

/// An error of this crate for code that expects one of `rusqlite`. SQLite's own errors stay themselves.
pub(super) fn to_rusqlite(error: Error) -> Sqlite {
    Sqlite::UserFunctionError(Box::new(error))
}

/// An error from opening `path`. A missing file, a full disk and a read-only folder are distinguished from other
/// faults.
pub(crate) fn from_open(error: Sqlite, path: &Path) -> Error {
    about_file(from_sqlite(error), path)
}

/// As [`from_open`], for an error of the first statement: SQLite opens a write-ahead log only then.
pub(crate) fn about_file(error: Error, path: &Path) -> Error {
    if error.kind() != ErrorKind::Io {
        return error;
    }
    // Only a successful check can show that the file is missing; a refused check proves nothing.
    if matches!(path.try_exists(), Ok(false)) {
        return Error::new(ErrorKind::Missing, "there is no database at its placement").with_source(error);
    }
    // Even a reader needs the write-ahead log and its shared memory beside the file. If SQLite cannot make them for
    // lack of space, the disk has no fault.
    if path.parent().is_some_and(|folder| DiskSpace::at_path(folder).is_ok_and(|space| space.is_full())) {
        let message = "the disk is full: there is no room for the log of the database, which its readers need, too";
        return Error::new(ErrorKind::DiskFull, message).with_source(error);
    }
    if path.parent().is_some_and(|folder| access(folder, Access::WRITE_OK).is_err()) {
        let message = "the folder of the database is read-only, and SQLite keeps its log there: make it writable";
        return Error::new(ErrorKind::ReadOnlyStorage, message).with_source(error);
    }
    error
}

/// True for SQLITE_BUSY and SQLITE_LOCKED: another connection holds the lock, and waiting may help.
pub(crate) fn is_busy(error: &Sqlite) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn kind_of(error: &Sqlite) -> ErrorKind {
    match error {
        Sqlite::SqliteFailure(failure, message) => kind_of_code(failure, message.as_deref()),
        Sqlite::SqlInputError { error, msg, .. } => kind_of_code(error, Some(msg)),
        Sqlite::MultipleStatement | Sqlite::NulError(_) => ErrorKind::SqlInvalid,
        Sqlite::InvalidParameterCount(..) | Sqlite::InvalidParameterName(_) => ErrorKind::ParameterMismatch,
        _ => ErrorKind::Internal,
    }
}

fn kind_of_code(failure: &ffi::Error, message: Option<&str>) -> ErrorKind {
    match failure.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => ErrorKind::Busy,
        ErrorCode::ConstraintViolation => ErrorKind::Constraint,
        ErrorCode::AuthorizationForStatementDenied => ErrorKind::SqlForbidden,
        ErrorCode::OperationInterrupted => ErrorKind::DeadlineExceeded,
        ErrorCode::DatabaseCorrupt if message.is_some_and(is_large_schema) => ErrorKind::SqlTooComplex,
        // The index of a virtual table and its content differ, but the pages of the file are intact.
        ErrorCode::DatabaseCorrupt if failure.extended_code == ffi::SQLITE_CORRUPT_VTAB => ErrorKind::SqlInvalid,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => ErrorKind::Corrupt,
        ErrorCode::DiskFull => ErrorKind::DiskFull,
        // There is no space for the shared memory of the write-ahead log.
        ErrorCode::SystemIoFailure if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => ErrorKind::DiskFull,
        ErrorCode::OutOfMemory => ErrorKind::MemoryMax,
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => ErrorKind::ReadOnlyStorage,
        ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::FileLockingProtocolFailed => ErrorKind::Io,
        ErrorCode::ParameterOutOfRange => ErrorKind::ParameterMismatch,
        ErrorCode::TypeMismatch | ErrorCode::SchemaChanged => ErrorKind::SqlInvalid,
        ErrorCode::TooBig if message.is_some_and(|text| text.starts_with("statement")) => ErrorKind::SqlTooComplex,
        ErrorCode::TooBig => ErrorKind::BytesMax,
        ErrorCode::Unknown => generic_error_kind(message),
        _ => ErrorKind::Internal,
    }
}

/// The beginnings of SQLite's messages when one of its own limits on the size of a statement is reached.
const COMPLEXITY_WORDS: [&str; 6] = [
    "Expression tree is too large",
    "too many terms in compound SELECT",
    "too many FROM clause terms",
    "too many columns in",
    "too many levels of trigger recursion",
    "parser stack overflow",
];

/// SQLite calls a schema malformed that it could read with wider limits; nothing is damaged.
fn is_large_schema(message: &str) -> bool {
    let reason = message.strip_prefix("malformed database schema").and_then(|rest| rest.split_once(" - "));
    reason.is_some_and(|(_, why)| {
        why.starts_with("string or blob too big") || COMPLEXITY_WORDS.iter().any(|words| why.starts_with(words))
    })
}

/// The plain SQLITE_ERROR is nearly always caused by the caller's SQL. These are the exceptions, recognized by their
/// text only.
fn generic_error_kind(message: Option<&str>) -> ErrorKind {
    match message {
        Some(text) if text.starts_with("cannot VACUUM") => ErrorKind::SqlForbidden,
        Some(text) if text.starts_with(TOO_EXPENSIVE) => ErrorKind::SqlTooComplex,
        // The schema itself, and the tables behind a full-text index.
        Some(text) if text.ends_with("may not be modified") => ErrorKind::SqlForbidden,
        Some(text) if COMPLEXITY_WORDS.iter().any(|words| text.starts_with(words)) => ErrorKind::SqlTooComplex,
        _ => ErrorKind::SqlInvalid,
    }
}

/// SQLite's own message when it is about the caller's SQL, this crate's message when it is about the file.
fn message_of(kind: ErrorKind, error: &Sqlite) -> String {
    let text = match error {
        Sqlite::SqliteFailure(failure, _) if failure.extended_code == ffi::SQLITE_CORRUPT_VTAB => {
            "the index of a virtual table does not match its content: rebuild that index".to_owned()
        }
        Sqlite::SqliteFailure(_, Some(text)) | Sqlite::SqlInputError { msg: text, .. } => text.clone(),
        Sqlite::SqliteFailure(failure, None) => failure.to_string(),
        Sqlite::MultipleStatement => "the text holds more than one statement; send them one by one".to_owned(),
        Sqlite::InvalidParameterCount(given, wanted) => {
            format!("the statement has {wanted} parameters, {given} were given")
        }
        other => other.to_string(),
    };
    match kind {
        ErrorKind::Busy => format!("another writer holds the database: {text}"),
        ErrorKind::Corrupt => format!("the database file is damaged: {text}"),
        ErrorKind::MemoryMax => "no memory is left for SQL statements; nothing was changed, try again".to_owned(),
        ErrorKind::DiskFull => format!("the disk is full: {text}"),
        ErrorKind::ReadOnlyStorage => format!("the storage does not allow writing: {text}"),
        ErrorKind::Io => format!("the database file cannot be used: {text}"),
        ErrorKind::DeadlineExceeded => "the statement ran longer than allowed and was stopped".to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    fn failure(code: i32) -> ErrorKind {
        from_sqlite(Sqlite::SqliteFailure(ffi::Error::new(code), None)).kind()
    }

    #[test]
    fn result_codes_have_a_kind() {
        let table = [
            (ffi::SQLITE_BUSY, ErrorKind::Busy),
            (ffi::SQLITE_BUSY_SNAPSHOT, ErrorKind::Busy),
            (ffi::SQLITE_LOCKED, ErrorKind::Busy),
            (ffi::SQLITE_CORRUPT, ErrorKind::Corrupt),
            (ffi::SQLITE_NOTADB, ErrorKind::Corrupt),
            (ffi::SQLITE_CORRUPT_INDEX, ErrorKind::Corrupt),
            (ffi::SQLITE_CORRUPT_VTAB, ErrorKind::SqlInvalid),
            (ffi::SQLITE_FULL, ErrorKind::DiskFull),
            (ffi::SQLITE_IOERR_SHMSIZE, ErrorKind::DiskFull),
            (ffi::SQLITE_READONLY, ErrorKind::ReadOnlyStorage),
            (ffi::SQLITE_PERM, ErrorKind::ReadOnlyStorage),
            (ffi::SQLITE_IOERR_FSYNC, ErrorKind::Io),
            (ffi::SQLITE_CANTOPEN, ErrorKind::Io),
            (ffi::SQLITE_CONSTRAINT_UNIQUE, ErrorKind::Constraint),
            (ffi::SQLITE_AUTH, ErrorKind::SqlForbidden),
            (ffi::SQLITE_INTERRUPT, ErrorKind::DeadlineExceeded),
            (ffi::SQLITE_TOOBIG, ErrorKind::BytesMax),
            (ffi::SQLITE_MISMATCH, ErrorKind::SqlInvalid),
            (ffi::SQLITE_NOMEM, ErrorKind::MemoryMax),
            (ffi::SQLITE_MISUSE, ErrorKind::Internal),
        ];
        for (code, kind) in table {
            assert_eq!(failure(code), kind, "result code {code}");
        }
    }

    #[test]
    fn the_words_of_sqlite_survive_where_they_help() {
        let db = Connection::open_in_memory().unwrap();
        let error = from_sqlite(db.execute_batch("selec 1").unwrap_err());
        assert_eq!((error.kind(), error.message()), (ErrorKind::SqlInvalid, "near \"selec\": syntax error"));
        db.execute_batch("create table t(a unique); insert into t values(1)").unwrap();
        let error = from_sqlite(db.execute_batch("insert into t values(1)").unwrap_err());
        assert_eq!((error.kind(), error.message()), (ErrorKind::Constraint, "UNIQUE constraint failed: t.a"));
    }

    #[test]
    fn a_missing_file_is_not_an_io_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none.db");
        let error = Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap_err();
        assert_eq!(from_open(error, &path).kind(), ErrorKind::Missing);
        let error = Connection::open_with_flags(dir.path(), rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap_err();
        assert_eq!(from_open(error, dir.path()).kind(), ErrorKind::Io);
    }
}
