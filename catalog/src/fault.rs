//! What a failure of the database underneath means to a caller.

use crate::error::{Error, ErrorKind};

/// SQLite's primary result codes that need an answer of their own.
mod sqlite {
    pub(super) const PERM: i64 = 3;
    pub(super) const BUSY: i64 = 5;
    pub(super) const LOCKED: i64 = 6;
    pub(super) const READONLY: i64 = 8;
    pub(super) const IOERR: i64 = 10;
    pub(super) const CORRUPT: i64 = 11;
    pub(super) const FULL: i64 = 13;
    pub(super) const CANTOPEN: i64 = 14;
    pub(super) const NOTADB: i64 = 26;
}

/// The primary result code; the driver gives the extended one.
fn primary(error: &sqlx::Error) -> Option<i64> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i64>().ok().map(|code| code & 0xff)
}

/// Somebody else holds the lock; trying again helps.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary(error), Some(sqlite::BUSY | sqlite::LOCKED))
}

/// A constraint refused the statement; the transaction is as it was before it.
pub(crate) fn is_constraint(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| !matches!(e.kind(), sqlx::error::ErrorKind::Other))
}

/// The error a caller gets; the driver's own is kept as its source.
pub(crate) fn of(error: sqlx::Error) -> Error {
    let (kind, message) = match &error {
        sqlx::Error::Database(cause) if is_constraint(&error) => constraint(cause.as_ref()),
        sqlx::Error::Database(cause) => storage(primary(&error), cause.message()),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
            (ErrorKind::Corrupt, format!("the catalog holds a row that cannot be read: {error}"))
        }
        other => (ErrorKind::Unavailable, format!("the catalog could not be reached: {other}")),
    };
    Error::new(kind, message).with_source(error)
}

fn constraint(cause: &dyn sqlx::error::DatabaseError) -> (ErrorKind, String) {
    match cause.kind() {
        sqlx::error::ErrorKind::UniqueViolation => {
            (ErrorKind::AlreadyExists, format!("the catalog already has it: {}", cause.message()))
        }
        sqlx::error::ErrorKind::ForeignKeyViolation => {
            (ErrorKind::NotFound, "something it refers to is not in the catalog".to_owned())
        }
        _ => (ErrorKind::Invalid, format!("the catalog refuses the value: {}", cause.message())),
    }
}

fn storage(code: Option<i64>, message: &str) -> (ErrorKind, String) {
    match code {
        Some(sqlite::BUSY | sqlite::LOCKED) => {
            (ErrorKind::Unavailable, "the catalog is locked by another process; try again".to_owned())
        }
        Some(sqlite::FULL) => (
            ErrorKind::Unavailable,
            "the disk that holds the catalog is full; free some space and try again".to_owned(),
        ),
        Some(sqlite::READONLY | sqlite::PERM) => (
            ErrorKind::ReadOnlyStorage,
            format!(
                "the catalog cannot be written ({message}): its directory or a file in it is read-only; check the permissions"
            ),
        ),
        Some(sqlite::CANTOPEN) => (
            ErrorKind::Unavailable,
            format!("the catalog cannot be opened ({message}): check the directory and its permissions"),
        ),
        Some(sqlite::IOERR) => (ErrorKind::Unavailable, format!("the disk that holds the catalog failed: {message}")),
        Some(sqlite::CORRUPT | sqlite::NOTADB) => (
            ErrorKind::Corrupt,
            format!("the catalog's file is damaged or is not a catalog ({message}): restore it from a backup"),
        ),
        _ => (ErrorKind::Corrupt, format!("the catalog's database refused a statement: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{AnyConnection, Connection as _};

    async fn failure(directory: &std::path::Path, parameters: &str, sql: &str) -> Error {
        sqlx::any::install_default_drivers();
        let url = format!("sqlite://{}?{parameters}", directory.join("x.db").display());
        let mut connection = AnyConnection::connect(&url).await.unwrap();
        of(sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap_err())
    }

    #[tokio::test]
    async fn faults_of_the_disk_are_told_from_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let fill = "create table t (x); pragma max_page_count = 3; insert into t values (zeroblob(100000))";
        let full = failure(directory.path(), "mode=rwc", fill).await;
        assert_eq!(full.kind(), ErrorKind::Unavailable);
        assert!(full.to_string().contains("disk") && full.to_string().contains("full"), "{full}");
        let read_only = failure(directory.path(), "mode=ro", "create table u (x)").await;
        assert_eq!(read_only.kind(), ErrorKind::ReadOnlyStorage);
        assert!(read_only.to_string().contains("permissions"), "{read_only}");
        std::fs::write(directory.path().join("x.db"), "no database, but long enough to be one".repeat(99)).unwrap();
        let damaged = failure(directory.path(), "mode=rw", "select * from t").await;
        assert_eq!(damaged.kind(), ErrorKind::Corrupt);
    }

    #[tokio::test]
    async fn constraints_are_told_from_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let schema = "pragma foreign_keys = on; create table a (id int primary key); \
            create table b (id int references a (id), n int check (n > 0));";
        for (sql, kind) in [
            ("insert into a values (1), (1)", ErrorKind::AlreadyExists),
            ("insert into b values (7, 1)", ErrorKind::NotFound),
            ("insert into b values (null, 0)", ErrorKind::Invalid),
            ("select * from nothing", ErrorKind::Corrupt),
        ] {
            let _ = std::fs::remove_file(directory.path().join("x.db"));
            let error = failure(directory.path(), "mode=rwc", &format!("{schema}{sql}")).await;
            assert_eq!(error.kind(), kind, "{sql}: {error}");
        }
    }
}
