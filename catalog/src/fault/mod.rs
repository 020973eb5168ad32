//! What a failure of the database underneath means to a caller.

mod postgres;
mod sqlite;

use std::io::ErrorKind as Io;

use crate::error::{Error, ErrorKind};

/// Somebody else holds the lock; trying again helps.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    match postgres::state(error) {
        Some(state) => postgres::is_busy(state),
        None => sqlite::is_busy(error),
    }
}

/// The connection is of no use any more; what was asked last may have been done or not.
pub(crate) fn is_lost(error: &sqlx::Error) -> bool {
    match postgres::state(error) {
        Some(state) => postgres::ends_the_connection(state),
        None => matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed),
    }
}

/// The server is restarting or full at this moment: worth another connection.
pub(crate) fn is_passing(error: &sqlx::Error) -> bool {
    match (postgres::state(error), error) {
        (Some(state), _) => postgres::is_passing(state),
        (None, sqlx::Error::Io(cause)) => matches!(
            cause.kind(),
            Io::ConnectionRefused | Io::ConnectionReset | Io::ConnectionAborted | Io::UnexpectedEof | Io::BrokenPipe
        ),
        _ => false,
    }
}

/// The server is there, and all its connections are taken.
pub(crate) fn has_no_connection(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<sqlx::Error>());
    source.and_then(postgres::state) == Some("53300")
}

/// The disk under a file has no room left.
pub(crate) fn is_full(error: &sqlx::Error) -> bool {
    postgres::state(error).is_none() && sqlite::is_full(error)
}

/// A constraint refused the statement.
pub(crate) fn is_constraint(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| !matches!(e.kind(), sqlx::error::ErrorKind::Other))
}

/// The error a caller gets; the driver's own is kept as its source.
pub(crate) fn of(error: sqlx::Error) -> Error {
    let (kind, message) = match &error {
        sqlx::Error::Database(cause) if is_constraint(&error) => constraint(cause.as_ref()),
        sqlx::Error::Database(cause) => match postgres::state(&error) {
            Some(state) => postgres::meaning(state, cause.message()),
            None => sqlite::meaning(&error, cause.message()),
        },
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
            (ErrorKind::Corrupt, format!("the catalog holds a row that cannot be read: {error}"))
        }
        sqlx::Error::Tls(cause) => no_tls(cause),
        // A certificate that is not believed comes as data that is not understood.
        sqlx::Error::Io(cause) if cause.kind() == Io::InvalidData => no_tls(cause),
        sqlx::Error::Io(cause) => (
            ErrorKind::Unavailable,
            format!("the catalog cannot be reached ({cause}): check that its server runs, and its address"),
        ),
        other => (ErrorKind::Unavailable, format!("the catalog could not be reached: {other}")),
    };
    Error::new(kind, message).with_source(error)
}

/// The error of a commit: when the answer was lost, nobody can know.
pub(crate) fn of_commit(error: sqlx::Error) -> Error {
    if !is_lost(&error) {
        return of(error);
    }
    let message = "the connection was lost while the catalog committed: whether it was done, nobody can know; look \
                   before doing it again";
    Error::new(ErrorKind::Unavailable, message).with_source(error)
}

fn no_tls(cause: &dyn std::fmt::Display) -> (ErrorKind, String) {
    let advice = "check sslmode and sslrootcert of its address";
    (ErrorKind::Refused, format!("no TLS with the catalog's server ({cause}): {advice}"))
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
