//! Maps the error states of Postgres, called SQLSTATE in its documentation.

use crate::error::ErrorKind;

/// The five-character state, when the error comes from Postgres itself.
#[cfg(feature = "postgres")]
pub(super) fn sql_state(error: &sqlx::Error) -> Option<&str> {
    let answered = error.as_database_error()?.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?;
    Some(answered.code())
}

/// No error comes from Postgres.
#[cfg(not(feature = "postgres"))]
pub(super) fn sql_state(_error: &sqlx::Error) -> Option<&str> {
    None
}

/// True for a lock that was not free in time, and for two conflicting transactions.
pub(super) fn is_busy(state: &str) -> bool {
    matches!(state, "55P03" | "40001" | "40P01")
}

/// True when the server closes the connection after this error.
pub(super) fn ends_the_connection(state: &str) -> bool {
    state.starts_with("08") || matches!(state, "57P01" | "57P02" | "57P03" | "57P05" | "25P03")
}

/// True when the server is restarting, shutting down, or has no free connection.
pub(super) fn is_passing(state: &str) -> bool {
    matches!(state, "57P01" | "57P02" | "57P03" | "53300")
}

/// The kind of such an error, and advice. Postgres's own messages name roles, databases and tables, but no secrets.
pub(super) fn explain_sql_state(state: &str, message: &str) -> (ErrorKind, String) {
    use ErrorKind::{Corrupt, DiskFull, Invalid, ReadOnlyStorage, Refused, Unavailable};
    let (kind, advice) = match state {
        "28P01" => (Refused, "the catalog's server rejected the password: correct the catalog's address"),
        "28000" if message.contains("no encryption") => {
            (Refused, "the catalog's server requires TLS: add ?sslmode=require to the catalog's address")
        }
        "28000" => {
            (Refused, "the catalog's server rejected this user: check its pg_hba.conf and the catalog's address")
        }
        "3D000" => (Refused, "the catalog's database does not exist: create it, or correct the catalog's address"),
        "3F000" => (Refused, "the catalog's database has no schema to put tables in: check the role's search_path"),
        "42501" => (Refused, "the catalog's role lacks a privilege: make it the owner of the catalog's database"),
        "53300" => (
            Unavailable,
            "the catalog's server has no connection left: raise max_connections (a control plane takes up to 7), or \
             find who holds them",
        ),
        "57P01" | "57P02" | "57P03" => (Unavailable, "the catalog's server is restarting or shutting down; try again"),
        "57014" => (Unavailable, "the catalog's server took too long for a statement and ended it"),
        "25P03" => (Unavailable, "the catalog's server ended a transaction that was idle for too long"),
        "53100" => (DiskFull, "the disk that holds the catalog is full; free some space and try again"),
        "55P03" | "40001" | "40P01" => (Unavailable, "the catalog is locked by another process; try again"),
        "25006" => (
            ReadOnlyStorage,
            "the catalog's server is read-only: it is a standby, or set to default_transaction_read_only",
        ),
        "22021" | "22P05" => (Invalid, "a text contains a character that the catalog cannot store"),
        _ => match state.get(..2) {
            Some("08") => (Unavailable, "the connection to the catalog was lost"),
            Some("53" | "54" | "58") => (Unavailable, "the catalog's server is out of resources"),
            Some("22") => (Invalid, "the catalog refuses a value"),
            Some("XX") => (Corrupt, "the catalog's database is damaged: restore it from a backup"),
            _ => (Corrupt, "the catalog's database refused a statement"),
        },
    };
    (kind, format!("{advice} ({message})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_that_need_a_human_are_told_from_those_that_pass() {
        for (state, kind) in [
            ("28P01", ErrorKind::Refused),
            ("3D000", ErrorKind::Refused),
            ("53300", ErrorKind::Unavailable),
            ("57P03", ErrorKind::Unavailable),
            ("08006", ErrorKind::Unavailable),
            ("53100", ErrorKind::DiskFull),
            ("25006", ErrorKind::ReadOnlyStorage),
            ("22021", ErrorKind::Invalid),
            ("XX001", ErrorKind::Corrupt),
            ("", ErrorKind::Corrupt),
        ] {
            assert_eq!(explain_sql_state(state, "said").0, kind, "{state}");
        }
        assert!(
            explain_sql_state("28000", "no pg_hba.conf entry for host, no encryption").1.contains("sslmode=require")
        );
    }

    #[test]
    fn only_what_passes_is_worth_another_connection() {
        assert!(is_passing("57P03") && is_passing("53300"));
        assert!(!is_passing("28P01") && !is_passing("3D000"));
        assert!(ends_the_connection("57P01") && ends_the_connection("08006") && !ends_the_connection("23505"));
    }
}
