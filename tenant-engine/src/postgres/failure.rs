//! What is said about a migration that stopped: its version, the line, the server's reason; and whose fault it is.

use super::work::{Stopped, Why};
use super::{error, script};
use crate::error::{Error, ErrorKind};
use crate::migration::Migration;

/// A text of a migration that went to the server as one.
pub(super) struct Sent<'a> {
    pub(super) migration: &'a Migration,
    pub(super) sql: &'a str,
    /// Of the file, where the text begins.
    pub(super) line: usize,
}

impl Sent<'_> {
    /// The line of the token that the server points at.
    fn pointed_at(&self, error: &sqlx::Error) -> Option<usize> {
        use sqlx::postgres::{PgDatabaseError, PgErrorPosition};
        let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
        let Some(PgErrorPosition::Original(character)) = error.position() else { return None };
        let byte = self.sql.char_indices().nth(character.saturating_sub(1)).map(|(byte, _)| byte)?;
        Some(self.line - 1 + script::line_at(self.sql, byte))
    }

    /// The line of the statement after so many that ran.
    fn line_after(&self, done: usize) -> Option<usize> {
        script::statements(self.sql).get(done).map(|statement| self.line - 1 + statement.line)
    }
}

/// Faults of the server and a busy application stay what they are; everything else is the migration's own fault.
pub(super) fn stopped_at(sent: &Sent<'_>, stopped: Stopped) -> Error {
    let cause = match stopped.why {
        Why::Silent(error) => return error,
        Why::Sql(cause) => cause,
    };
    let line = sent.pointed_at(&cause).or_else(|| sent.line_after(stopped.done));
    let (migration, hint) = (sent.migration, hint(&cause));
    let error = error::from_sqlx(cause);
    match error.kind() {
        ErrorKind::Busy
        | ErrorKind::ConnectionLost
        | ErrorKind::ServerUnreachable
        | ErrorKind::ServerFull
        | ErrorKind::Corrupt
        | ErrorKind::DiskFull
        | ErrorKind::MemoryMax
        | ErrorKind::Io => {
            let message = told(migration, line, error.message());
            Error::new(error.kind(), message).with_source(error)
        }
        _ => failed(migration, line, &format!("{}{hint}", error.message())).with_source(error),
    }
}

fn hint(error: &sqlx::Error) -> &'static str {
    match error::code(error).as_deref() {
        _ if error::is_raised(error) => "",
        Some("42501") if is_of_extension(&error.to_string()) => EXTENSION_CURE,
        Some("25001") => " ('-- no-transaction' as the first line of the file runs it outside of one)",
        Some("57014") => " (see statement_timeout of the engine)",
        _ => "",
    }
}

/// Appended where the server refuses an extension.
pub(super) const EXTENSION_CURE: &str = " (only a superuser may create this extension: create it in the database \
    fleet_template, which new databases are copies of, and in the tenants' databases that exist; 'fleetctl server \
    prepare' prints the script)";

/// PURE: whether the server refused to create an extension.
pub(super) fn is_of_extension(reason: &str) -> bool {
    reason.contains("permission denied to create extension")
}

pub(super) fn failed(migration: &Migration, line: Option<usize>, why: &str) -> Error {
    Error::new(ErrorKind::MigrationFailed, told(migration, line, why))
}

fn told(migration: &Migration, line: Option<usize>, why: &str) -> String {
    let line = line.map_or_else(String::new, |line| format!(", line {line}"));
    format!("version {} ({}){line}: {why}", migration.version, migration.description)
}
