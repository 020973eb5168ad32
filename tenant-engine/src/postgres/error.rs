//! Translates failures of the driver or the server into this crate's errors. Messages never hold a parameter's value.
//! The server's message may name a table or a constraint; its detail, which quotes values, is left out.

use std::io;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::sqlstate::ServerErrorReport;
use crate::error::{Error, ErrorKind};

/// `admin_shutdown`: someone ended this session. The session itself sends it, at a point where no work is half done.
const ENDED: &str = "57P01";

/// Why a statement of an engine operation failed.
#[derive(Debug)]
pub(super) enum AdminConnectionError {
    /// The server refused a statement, or the connection broke.
    Sql(sqlx::Error),
    /// The server does not answer.
    Silent(Error),
}

impl AdminConnectionError {
    /// The error for a statement of the maintenance role.
    pub(super) fn into_ours(self) -> Error {
        match self {
            Self::Sql(error) => from_ours(error),
            Self::Silent(error) => error,
        }
    }

    /// The SQLSTATE; empty when the server sent none.
    pub(super) fn sqlstate_code(&self) -> String {
        match self {
            Self::Sql(error) => sqlstate_code(error).unwrap_or_default(),
            Self::Silent(_) => String::new(),
        }
    }
}

/// The error of a failed statement, connection or transaction.
#[must_use]
pub fn from_sqlx(error: sqlx::Error) -> Error {
    let (kind, message) = match &error {
        sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
            Some(server) => from_server(server),
            None => (ErrorKind::Internal, "another driver's error".to_owned()),
        },
        sqlx::Error::Io(io) => from_io(io),
        sqlx::Error::Tls(cause) => (ErrorKind::ServerTls, format!("no trusted connection to the server: {cause}")),
        sqlx::Error::Protocol(text) => {
            (ErrorKind::ConnectionLost, format!("the server sent an invalid answer: {text}"))
        }
        sqlx::Error::Configuration(cause) => (ErrorKind::ServerInvalid, format!("the connection string: {cause}")),
        other => (ErrorKind::Internal, format!("the database driver failed: {other}")),
    };
    Error::new(kind, message).with_source(error)
}

/// The error of an attempt to connect: no connection existed yet, so no connection was lost.
pub(super) fn from_connect(error: sqlx::Error) -> Error {
    let error = from_sqlx(error);
    match error.kind() {
        ErrorKind::ConnectionLost => server_unreachable(error),
        _ => error,
    }
}

/// The error of a repeated failure after a login was accepted: if every new session is ended, the server has no fault.
pub(super) fn never_stood(error: Error) -> Error {
    match error.kind() {
        ErrorKind::ConnectionLost if was_ended(&error) => {
            let message = "the sessions of this database are being ended, usually by a fence";
            Error::new(ErrorKind::Fenced, message).with_source(error)
        }
        ErrorKind::ConnectionLost => server_unreachable(error),
        _ => error,
    }
}

fn server_unreachable(error: Error) -> Error {
    Error::new(ErrorKind::ServerUnreachable, error.message().to_owned()).with_source(error)
}

/// True for `admin_shutdown`: someone ended this session.
pub(super) fn was_ended(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<sqlx::Error>());
    source.is_some_and(is_ended)
}

/// As [`was_ended`], but only when the server itself raised the state: a function may raise it, too.
pub(super) fn is_ended(error: &sqlx::Error) -> bool {
    ends_connection(error) && !is_raised(error) && sqlstate_code(error).as_deref() == Some(ENDED)
}

/// True when the statement itself chose the SQLSTATE of this error.
pub(super) fn is_raised(error: &sqlx::Error) -> bool {
    let server = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    server.is_some_and(|server| error_report(server).is_raised())
}

/// The error of a statement that this program runs as the maintenance role; a missing right is a right of that role.
pub(super) fn from_ours(error: sqlx::Error) -> Error {
    let error = from_sqlx(error);
    match error.kind() {
        ErrorKind::SqlForbidden => lacking_privilege(error),
        _ => error,
    }
}

/// Names the missing right and how to grant it.
fn lacking_privilege(error: Error) -> Error {
    let words = error.message();
    let grant = match words {
        _ if words.contains("create database") => "alter role … createdb",
        _ if words.contains("role") => {
            "alter role … createrole, and make it a member of fleet_owner, fleet_read and fleet_write"
        }
        _ => "grant … to the role, or make it the owner",
    };
    let message = format!("the role that maintains this server lacks a right: {words} (as an administrator: {grant})");
    Error::new(ErrorKind::ServerPrivilege, message).with_source(error)
}

/// The SQLSTATE, when the server sent one.
pub(super) fn sqlstate_code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}

/// True when the session has ended, whatever the statement did.
pub(super) fn ends_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            database.try_downcast_ref::<PgDatabaseError>().is_none_or(|error| error_report(error).ends_session)
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Encode(_) => false,
        _ => true,
    }
}

fn from_io(error: &io::Error) -> (ErrorKind, String) {
    use io::ErrorKind as Io;
    match error.kind() {
        Io::ConnectionRefused | Io::NotFound | Io::TimedOut | Io::HostUnreachable | Io::NetworkUnreachable => {
            (ErrorKind::ServerUnreachable, format!("the server cannot be reached: {error}"))
        }
        Io::InvalidData => (ErrorKind::ServerTls, format!("no trusted connection to the server: {error}")),
        Io::PermissionDenied => {
            (ErrorKind::ServerUnreachable, format!("the server's socket cannot be opened: {error}"))
        }
        _ => (ErrorKind::ConnectionLost, format!("the connection to the server broke: {error}")),
    }
}

fn from_server(error: &PgDatabaseError) -> (ErrorKind, String) {
    (error_report(error).kind(), error.message().to_owned())
}

fn error_report(error: &PgDatabaseError) -> ServerErrorReport<'_> {
    ServerErrorReport {
        state: error.code(),
        message: error.message(),
        file: error.file().unwrap_or_default(),
        routine: error.routine().unwrap_or_default(),
        ends_session: matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic),
    }
}
