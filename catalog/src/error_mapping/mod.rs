//! Maps errors of the catalog's database to errors of this crate.

mod postgres;
mod sqlite;

use std::io::ErrorKind as Io;

use crate::error::{Error, ErrorKind};

/// True when another process holds the lock; a retry helps.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    match postgres::sql_state(error) {
        Some(state) => postgres::is_busy(state),
        None => sqlite::is_busy(error),
    }
}

/// True when the connection is unusable; the last statement may or may not have been applied.
pub(crate) fn is_lost(error: &sqlx::Error) -> bool {
    match postgres::sql_state(error) {
        Some(state) => postgres::ends_the_connection(state),
        None => matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed),
    }
}

/// True when the server is restarting or full at this moment, so that a new connection may help.
pub(crate) fn is_passing(error: &sqlx::Error) -> bool {
    match (postgres::sql_state(error), error) {
        (Some(state), _) => postgres::is_passing(state),
        (None, sqlx::Error::Io(cause)) => matches!(
            cause.kind(),
            Io::ConnectionRefused | Io::ConnectionReset | Io::ConnectionAborted | Io::UnexpectedEof | Io::BrokenPipe
        ),
        _ => false,
    }
}

/// True when the server is running, but all its connections are in use.
pub(crate) fn has_no_connection(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<sqlx::Error>());
    source.and_then(postgres::sql_state) == Some("53300")
}

/// True when the disk of a file is full.
pub(crate) fn is_full(error: &sqlx::Error) -> bool {
    postgres::sql_state(error).is_none() && sqlite::is_full(error)
}

/// True when a constraint refused the statement.
pub(crate) fn is_constraint(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| !matches!(e.kind(), sqlx::error::ErrorKind::Other))
}

/// The error for the caller, with the driver's error as its source.
pub(crate) fn catalog_error(error: sqlx::Error) -> Error {
    let (kind, message) = match &error {
        sqlx::Error::Database(cause) if is_constraint(&error) => constraint_error(cause.as_ref()),
        sqlx::Error::Database(cause) => match postgres::sql_state(&error) {
            Some(state) => postgres::explain_sql_state(state, cause.message()),
            None => sqlite::explain_result_code(&error, cause.message()),
        },
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
            (ErrorKind::Corrupt, format!("the catalog contains a row that cannot be read: {error}"))
        }
        sqlx::Error::Tls(cause) => tls_error(cause),
        // The driver reports an untrusted certificate as invalid data.
        sqlx::Error::Io(cause) if cause.kind() == Io::InvalidData => tls_error(cause),
        sqlx::Error::Io(cause) => (
            ErrorKind::Unavailable,
            format!("the catalog cannot be reached ({cause}): check that its server runs, and its address"),
        ),
        other => (ErrorKind::Unavailable, format!("the catalog could not be reached: {other}")),
    };
    Error::new(kind, message).with_source(error)
}

/// The error of a commit. When the answer was lost, the commit may or may not have been applied.
pub(crate) fn commit_error(error: sqlx::Error) -> Error {
    if !is_lost(&error) {
        return catalog_error(error);
    }
    let message = "the connection was lost during a commit of the catalog: the change may or may not have been made; \
                   check before repeating it";
    Error::new(ErrorKind::Unavailable, message).with_source(error)
}

fn tls_error(cause: &dyn std::fmt::Display) -> (ErrorKind, String) {
    let advice = "check sslmode and sslrootcert of its address";
    (ErrorKind::Refused, format!("no TLS with the catalog's server ({cause}): {advice}"))
}

fn constraint_error(cause: &dyn sqlx::error::DatabaseError) -> (ErrorKind, String) {
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
        catalog_error(sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap_err())
    }

    #[tokio::test]
    async fn faults_of_the_disk_are_told_from_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let fill = "create table t (x); pragma max_page_count = 3; insert into t values (zeroblob(100000))";
        let full = failure(directory.path(), "mode=rwc", fill).await;
        assert_eq!(full.kind(), ErrorKind::DiskFull);
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
