//! The error of a migration that stopped: its version, the line, the server's reason, and whether the migration caused
//! it.

use super::script;
use crate::error::{Error, ErrorKind};
use crate::migration::Migration;
use crate::postgres::error;
use crate::postgres::error::AdminConnectionError;
use crate::postgres::servers::admin_connection::StoppedScript;

/// Text of a migration that was sent to the server in one piece.
pub(super) struct SentMigration<'a> {
    pub(super) migration: &'a Migration,
    pub(super) sql: &'a str,
    /// The line of the file where the text begins.
    pub(super) line: usize,
}

impl SentMigration<'_> {
    /// The line of the token that the server's error points at.
    fn pointed_at(&self, error: &sqlx::Error) -> Option<usize> {
        use sqlx::postgres::{PgDatabaseError, PgErrorPosition};
        let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
        let Some(PgErrorPosition::Original(character)) = error.position() else { return None };
        let byte = self.sql.char_indices().nth(character.saturating_sub(1)).map(|(byte, _)| byte)?;
        Some(self.line - 1 + script::line_at(self.sql, byte))
    }

    /// The line of the next statement after `done` statements.
    fn line_after(&self, done: usize) -> Option<usize> {
        script::split_statements(self.sql).get(done).map(|statement| self.line - 1 + statement.line)
    }
}

/// Faults of the server and a busy application keep their kinds. Every other error is the fault of the migration.
pub(super) fn stopped_at(sent: &SentMigration<'_>, stopped: StoppedScript) -> Error {
    let cause = match stopped.why {
        AdminConnectionError::Silent(error) => return error,
        AdminConnectionError::Sql(cause) => cause,
    };
    let line = sent.pointed_at(&cause).or_else(|| sent.line_after(stopped.done));
    let (migration, hint) = (sent.migration, format!("{}{}", failure_hint(&cause), told_more(&cause)));
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
            let message = describe_failure(migration, line, &format!("{}{hint}", error.message()));
            Error::new(error.kind(), message).with_source(error)
        }
        _ => migration_failed(migration, line, &format!("{}{hint}", error.message())).with_source(error),
    }
}

/// Maximum characters shown of the server's DETAIL or HINT.
const TOLD_CHARS_MAX: usize = 500;

/// The server's own DETAIL and HINT. A whole failing row is left out, because it is the tenant's data.
fn told_more(error: &sqlx::Error) -> String {
    use sqlx::postgres::PgDatabaseError;
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    let detail = error.and_then(PgDatabaseError::detail).filter(|text| !text.starts_with("Failing row contains"));
    let hint = error.and_then(PgDatabaseError::hint);
    let told = |name: &str, text: &str| {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let more = if line.chars().count() > TOLD_CHARS_MAX { " …" } else { "" };
        format!("; {name}: {}{more}", line.chars().take(TOLD_CHARS_MAX).collect::<String>())
    };
    let detail = detail.map_or_else(String::new, |text| told("detail", text));
    detail + &hint.map_or_else(String::new, |text| told("hint", text))
}

fn failure_hint(error: &sqlx::Error) -> &'static str {
    match error::sqlstate_code(error).as_deref() {
        _ if error::is_raised(error) => "",
        Some("42501") if is_of_extension(&error.to_string()) => EXTENSION_CURE,
        Some("25001") => " ('-- no-transaction' as the first line of the file runs it outside of one)",
        Some("55P04") => " (a version is one transaction: add the value in a version before this one)",
        Some("55006") if error.to_string().contains("pending trigger events") => {
            " (write 'set constraints all immediate;' before this statement, or move it into a version of its own)"
        }
        Some("57014") => " (see statement_timeout of the engine)",
        _ => "",
    }
}

/// Advice that is appended when the server refuses an extension.
pub(in crate::postgres) const EXTENSION_CURE: &str = " (only a superuser may create this extension: create it in the database \
    fleet_template, which new databases are copies of, and in the tenants' databases that exist; 'fleetctl server \
    prepare' prints the script)";

/// PURE: whether the server refused to create an extension.
pub(in crate::postgres) fn is_of_extension(reason: &str) -> bool {
    reason.contains("permission denied to create extension")
}

pub(super) fn migration_failed(migration: &Migration, line: Option<usize>, why: &str) -> Error {
    Error::new(ErrorKind::MigrationFailed, describe_failure(migration, line, why))
}

fn describe_failure(migration: &Migration, line: Option<usize>, why: &str) -> String {
    let line = line.map_or_else(String::new, |line| format!(", line {line}"));
    format!("version {} ({}){line}: {why}", migration.version, migration.description)
}
