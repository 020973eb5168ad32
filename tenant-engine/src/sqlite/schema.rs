//! Bounds on a schema that no migration of ours has checked: it came back from a backup, or another program wrote it.
//!
//! SQLite reads every text of a schema by recursion when it opens a file, and puts views and triggers into the statements
//! that use them. So the length of a text and the time to read them all are bounded first ([`bound`], [`load`]). Then the
//! texts are measured ([`require_bounded`]) wherever a verb or a request would use them. Deleting, stamping and looking
//! at such a database go on. The limits are wider than those of a migration (`views.rs`): what was made before serves.

use std::time::{Duration, Instant};

use rusqlite::limits::Limit;
use rusqlite::{Connection, OptionalExtension};

use super::complexity;
use super::error::from_sqlite;
use super::views;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of one text: some 80,000 levels, which a worker's stack holds when SQLite parses them.
pub(super) const TEXT_BYTES_MAX: i32 = 1_000_000;

/// What a migration's own statements may have: SQLite's default.
const STATEMENT_BYTES_MAX: i32 = 1_000_000_000;

/// Operations of one statement, some 240 MB: generated columns that use each other multiply.
const OPERATIONS_MAX: i32 = 10_000_000;

/// Reading ten thousand objects takes less than a second; the time grows with the square.
const LOAD_TIME_MAX: Duration = Duration::from_secs(10);
const STEPS_PER_LOOK: i32 = 1_000;

/// Views that use each other, and uses of views, in a file.
const CHAIN_MAX: usize = 1_000;
const USES_MAX: usize = 50_000;

/// Prepares a connection of a verb, before its first statement.
///
/// # Errors
/// SQLite's.
pub(super) fn bound(db: &Connection) -> Result<()> {
    let set = |limit, value| db.set_limit(limit, value).map(drop);
    set(Limit::SQLITE_LIMIT_SQL_LENGTH, TEXT_BYTES_MAX).map_err(from_sqlite)?;
    set(Limit::SQLITE_LIMIT_VDBE_OP, OPERATIONS_MAX).map_err(from_sqlite)?;
    let end = Instant::now() + LOAD_TIME_MAX;
    db.progress_handler(STEPS_PER_LOOK, Some(move || Instant::now() >= end)).map_err(from_sqlite)
}

/// Reads the schema within these bounds, and lifts those that are not for what comes.
///
/// # Errors
/// [`ErrorKind::SqlTooComplex`] for too many objects; otherwise SQLite's.
pub(super) fn load(db: &Connection) -> Result<()> {
    db.execute_batch("select 1 from main.sqlite_schema limit 1").map_err(unloaded)?;
    db.progress_handler(0, None::<fn() -> bool>).map_err(from_sqlite)?;
    db.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, STATEMENT_BYTES_MAX).map(drop).map_err(from_sqlite)
}

/// An error of the first statement.
pub(super) fn unloaded(error: rusqlite::Error) -> Error {
    let error = from_sqlite(error);
    match error.kind() {
        ErrorKind::DeadlineExceeded => refused("it has so many objects that reading them takes too long"),
        ErrorKind::BytesMax => refused("one of its texts is longer than 1 MB"),
        ErrorKind::SqlTooComplex => refused(error.message()),
        _ => error,
    }
}

/// Refuses a schema whose views or triggers nest too deep or grow too large inside a statement.
///
/// # Errors
/// [`ErrorKind::SqlTooComplex`] with the name; otherwise SQLite's.
pub(super) fn require_bounded(db: &Connection) -> Result<()> {
    let sql = "select name, sql from main.sqlite_schema where type in ('view', 'trigger') and sql is not null";
    let mut statement = db.prepare(sql).map_err(unloaded)?;
    let mut rows = statement.query([]).map_err(from_sqlite)?;
    let mut found = false;
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        found = true;
        let (name, sql): (String, String) = (row.get(0).map_err(from_sqlite)?, row.get(1).map_err(from_sqlite)?);
        complexity::check_stored(&sql).map_err(|why| refused(&format!("'{name}': {why}")))?;
    }
    match if found { views::larger_than(db, CHAIN_MAX, USES_MAX)? } else { None } {
        Some(why) => Err(refused(&why)),
        None => Ok(()),
    }
}

/// Says what a migration has made that later connections would refuse, if it has.
///
/// # Errors
/// SQLite's.
pub(super) fn too_large(db: &Connection) -> Result<Option<String>> {
    let sql = "select name from main.sqlite_schema where length(cast(sql as blob)) > ?1 limit 1";
    let long = db.query_row(sql, [TEXT_BYTES_MAX], |row| row.get::<_, String>(0)).optional().map_err(from_sqlite)?;
    match long {
        Some(name) => Ok(Some(format!("the text of '{name}' is longer than 1 MB"))),
        None => views::too_deep(db),
    }
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::SqlTooComplex, format!("the schema of this database is refused: {why}"))
}
