//! Limits for a schema that no migration of this program has checked: it was restored from a backup, or another program
//! wrote it.
//!
//! SQLite reads every text of a schema by recursion when it opens a file, and inserts views and triggers into the
//! statements that use them. So the length of a text and the time to read all texts are limited first
//! ([`bound_schema`], [`load_schema`]). Then the texts are measured ([`require_bounded`]) wherever an operation or a
//! request would use them. Deleting, stamping and inspecting such a database remain possible. The limits are wider than
//! those of a migration (`views.rs`), so that existing databases continue to serve.

use std::time::{Duration, Instant};

use rusqlite::limits::Limit;
use rusqlite::{Connection, OptionalExtension};

use super::complexity;
use super::views;
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::error::from_sqlite;

/// Maximum bytes of one text: some 80,000 levels, which a worker's stack holds when SQLite parses them.
pub(in crate::sqlite) const TEXT_BYTES_MAX: i32 = 1_000_000;

/// Maximum bytes of a migration's own statements: SQLite's default.
const STATEMENT_BYTES_MAX: i32 = 1_000_000_000;

/// Maximum operations of one statement, some 240 MB: generated columns that use each other multiply.
const OPERATIONS_MAX: i32 = 10_000_000;

/// Reading ten thousand objects takes less than a second; the time grows with the square.
const LOAD_TIME_MAX: Duration = Duration::from_secs(10);
const STEPS_PER_LOOK: i32 = 1_000;

/// Maximum views that use each other, and uses of views, in a file.
const CHAIN_MAX: usize = 1_000;
const USES_MAX: usize = 50_000;

/// Prepares a connection of an engine operation, before its first statement.
///
/// # Errors
/// SQLite's.
pub(in crate::sqlite) fn bound_schema(db: &Connection) -> Result<()> {
    let set = |limit, value| db.set_limit(limit, value).map(drop);
    set(Limit::SQLITE_LIMIT_SQL_LENGTH, TEXT_BYTES_MAX).map_err(from_sqlite)?;
    set(Limit::SQLITE_LIMIT_VDBE_OP, OPERATIONS_MAX).map_err(from_sqlite)?;
    let end = Instant::now() + LOAD_TIME_MAX;
    db.progress_handler(STEPS_PER_LOOK, Some(move || Instant::now() >= end)).map_err(from_sqlite)
}

/// Reads the schema within these limits, and lifts the limits that must not apply to later statements.
///
/// # Errors
/// [`ErrorKind::SqlTooComplex`] for too many objects; otherwise SQLite's.
pub(in crate::sqlite) fn load_schema(db: &Connection) -> Result<()> {
    db.execute_batch("select 1 from main.sqlite_schema limit 1").map_err(load_error)?;
    db.progress_handler(0, None::<fn() -> bool>).map_err(from_sqlite)?;
    db.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, STATEMENT_BYTES_MAX).map(drop).map_err(from_sqlite)
}

/// The error of the first statement.
pub(in crate::sqlite) fn load_error(error: rusqlite::Error) -> Error {
    let error = from_sqlite(error);
    match error.kind() {
        ErrorKind::DeadlineExceeded => schema_refused("it has so many objects that reading them takes too long"),
        ErrorKind::BytesMax => schema_refused("one of its texts is longer than 1 MB"),
        ErrorKind::SqlTooComplex => schema_refused(error.message()),
        _ => error,
    }
}

/// Refuses a schema whose views or triggers nest too deeply, or grow too large inside a statement.
///
/// # Errors
/// [`ErrorKind::SqlTooComplex`] with the name; otherwise SQLite's.
pub(in crate::sqlite) fn require_bounded(db: &Connection) -> Result<()> {
    let sql = "select name, sql from main.sqlite_schema where type in ('view', 'trigger') and sql is not null";
    let mut statement = db.prepare(sql).map_err(load_error)?;
    let mut rows = statement.query([]).map_err(from_sqlite)?;
    let mut found = false;
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        found = true;
        let (name, sql): (String, String) = (row.get(0).map_err(from_sqlite)?, row.get(1).map_err(from_sqlite)?);
        complexity::check_stored(&sql).map_err(|why| schema_refused(&format!("'{name}': {why}")))?;
    }
    match if found { views::larger_than(db, CHAIN_MAX, USES_MAX)? } else { None } {
        Some(why) => Err(schema_refused(&why)),
        None => Ok(()),
    }
}

/// Names an object of a migration that later connections would refuse, if there is one.
///
/// # Errors
/// SQLite's.
pub(in crate::sqlite) fn too_large(db: &Connection) -> Result<Option<String>> {
    let sql = "select name from main.sqlite_schema where length(cast(sql as blob)) > ?1 limit 1";
    let long = db.query_row(sql, [TEXT_BYTES_MAX], |row| row.get::<_, String>(0)).optional().map_err(from_sqlite)?;
    match long {
        Some(name) => Ok(Some(format!("the text of '{name}' is longer than 1 MB"))),
        None => views::too_deep(db),
    }
}

fn schema_refused(why: &str) -> Error {
    Error::new(ErrorKind::SqlTooComplex, format!("the schema of this database is refused: {why}"))
}
