//! `_sqlx_migrations`: the rows that say which versions a database has, exactly as sqlx 0.9 writes them.
//!
//! Called by the verbs inside their own transactions; the only place that names the table in SQL.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::from_sqlite;
use crate::error::{Error, ErrorKind, Result};
use crate::migration::{Applied, Migration};

/// The table's name.
pub(super) const TABLE: &str = "_sqlx_migrations";
/// More than any set holds; a larger table is not a ledger.
const ROWS_MAX: usize = 20_000;

/// sqlx's own text, so that the schema of a database does not tell who made it.
const CREATE: &str = "
CREATE TABLE IF NOT EXISTS _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
                ";

/// Makes the table if there is none.
///
/// # Errors
/// SQLite's.
pub(super) fn create(db: &Connection) -> Result<()> {
    db.execute_batch(CREATE).map_err(from_sqlite)
}

/// The rows by version; empty when there is no table.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when the table is not a ledger; otherwise SQLite's.
pub(super) fn read(db: &Connection) -> Result<Vec<Applied>> {
    let exists = "select 1 from main.sqlite_schema where type = 'table' and name = ?1";
    let found = db.prepare_cached(exists).and_then(|mut s| s.query_row([TABLE], |_| Ok(())).optional());
    if found.map_err(from_sqlite)?.is_none() {
        return Ok(Vec::new());
    }
    let rows = "select version, checksum, success from main._sqlx_migrations order by version limit ?1";
    let mut statement = db.prepare_cached(rows).map_err(from_sqlite)?;
    let rows = statement
        .query_map([ROWS_MAX as i64 + 1], |row| {
            Ok(Applied { version: row.get(0)?, checksum: row.get(1)?, success: row.get(2)? })
        })
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .map_err(not_a_ledger)?;
    if rows.len() > ROWS_MAX {
        return Err(Error::new(ErrorKind::Corrupt, format!("{TABLE} holds more than {ROWS_MAX} rows")));
    }
    Ok(rows)
}

/// Writes the row of a version that was applied, or (`success` false) is being applied outside a transaction.
///
/// # Errors
/// SQLite's.
pub(super) fn insert(db: &Connection, migration: &Migration, success: bool, nanoseconds: i64) -> Result<()> {
    db.execute(
        "insert into main._sqlx_migrations(version, description, success, checksum, execution_time) \
         values (?1, ?2, ?3, ?4, ?5)",
        params![migration.version, migration.description, success, migration.checksum, nanoseconds],
    )
    .map_err(from_sqlite)?;
    Ok(())
}

/// Marks a version begun outside a transaction as finished.
///
/// # Errors
/// [`ErrorKind::MigrationDirty`] when its row is gone; otherwise SQLite's.
pub(super) fn finish(db: &Connection, migration: &Migration, nanoseconds: i64) -> Result<()> {
    let sql = "update main._sqlx_migrations set success = 1, execution_time = ?2 where version = ?1";
    match db.execute(sql, params![migration.version, nanoseconds]).map_err(from_sqlite)? {
        1 => Ok(()),
        _ => Err(Error::new(
            ErrorKind::MigrationDirty,
            format!("the ledger row of version {} vanished while it ran", migration.version),
        )),
    }
}

/// Removes the row of a version that was begun and changed nothing.
///
/// # Errors
/// SQLite's.
pub(super) fn forget(db: &Connection, migration: &Migration) -> Result<()> {
    let sql = "delete from main._sqlx_migrations where version = ?1 and success = 0";
    db.execute(sql, [migration.version]).map_err(from_sqlite)?;
    Ok(())
}

fn not_a_ledger(error: rusqlite::Error) -> Error {
    match error {
        rusqlite::Error::InvalidColumnType(_, column, found) => {
            Error::new(ErrorKind::Corrupt, format!("{TABLE}.{column} holds {found}, which is not what sqlx writes"))
        }
        other => from_sqlite(other),
    }
}
