//! The ledger: the rows that list the applied versions of a database, exactly as sqlx 0.9 writes them.
//!
//! Called by the engine operations inside their own transactions; the only module that names the table in SQL. A
//! database whose ledger does not have sqlx's own name records the name in `_fleet_ledger` when it is made.

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::{Error, ErrorKind, Result};
use crate::migration::{AppliedMigration, LedgerName, Migration, MigrationSet};
use crate::sqlite::error::from_sqlite;

/// More rows than any set has migrations; a larger table is not a ledger.
const ROWS_MAX: usize = 20_000;

const RECORD: &str =
    "create table main._fleet_ledger(one integer primary key check(one = 1), name text not null) strict";

/// sqlx's own text, so that the schema of a database does not depend on the program that made it.
fn create_sql(name: &LedgerName) -> String {
    format!(
        "
CREATE TABLE IF NOT EXISTS {} (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
                ",
        name.sql()
    )
}

/// Records the ledger's name in a database that is being made, and makes the table.
///
/// # Errors
/// SQLite's.
pub(in crate::sqlite) fn begin(db: &Connection, name: &LedgerName) -> Result<()> {
    if !name.is_usual() {
        db.execute_batch(RECORD).map_err(from_sqlite)?;
        let sql = "insert into main._fleet_ledger(one, name) values (1, ?1)";
        db.execute(sql, [name.as_str()]).map_err(from_sqlite)?;
    }
    create_ledger(db, name)
}

/// Makes the table if there is none.
///
/// # Errors
/// SQLite's.
pub(super) fn create_ledger(db: &Connection, name: &LedgerName) -> Result<()> {
    db.execute_batch(&create_sql(name)).map_err(from_sqlite)
}

/// The name that this database records.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when the record is not a valid name; otherwise SQLite's.
pub(in crate::sqlite) fn name(db: &Connection) -> Result<LedgerName> {
    if !exists(db, "_fleet_ledger")? {
        return Ok(LedgerName::default());
    }
    let sql = "/*fleet*/ select name from main._fleet_ledger where one = 1";
    let mut statement = db.prepare_cached(sql).map_err(from_sqlite)?;
    let recorded: String = statement.query_row([], |row| row.get(0)).map_err(from_sqlite)?;
    LedgerName::stored(&recorded).map_err(|why| Error::new(ErrorKind::Corrupt, format!("the name of the ledger {why}")))
}

fn exists(db: &Connection, table: &str) -> Result<bool> {
    let sql = "/*fleet*/ select 1 from main.sqlite_schema where type = 'table' and name = ?1 collate nocase";
    let found = db.prepare_cached(sql).and_then(|mut s| s.query_row([table], |_| Ok(())).optional());
    Ok(found.map_err(from_sqlite)?.is_some())
}

/// The rows by version, of a database to which this set is applied.
///
/// # Errors
/// [`ErrorKind::MigrationInvalid`] when the set names another ledger; those of [`read_ledger`].
pub(in crate::sqlite) fn read_for(db: &Connection, set: &MigrationSet) -> Result<Vec<AppliedMigration>> {
    set.require_ledger(&name(db)?)?;
    read_ledger(db)
}

/// The rows by version; empty when there is no table.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when the table is not a ledger; otherwise SQLite's.
pub(in crate::sqlite) fn read_ledger(db: &Connection) -> Result<Vec<AppliedMigration>> {
    let name = name(db)?;
    if !exists(db, name.as_str())? {
        return Ok(Vec::new());
    }
    let rows = format!("select version, checksum, success from main.{} order by version limit ?1", name.sql());
    let mut statement = db.prepare_cached(&rows).map_err(from_sqlite)?;
    let rows = statement
        .query_map([ROWS_MAX as i64 + 1], |row| {
            Ok(AppliedMigration { version: row.get(0)?, checksum: row.get(1)?, success: row.get(2)? })
        })
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .map_err(|error| not_a_ledger(&name, error))?;
    if rows.len() > ROWS_MAX {
        return Err(Error::new(ErrorKind::Corrupt, format!("{name} holds more than {ROWS_MAX} rows")));
    }
    Ok(rows)
}

/// Writes the row of a version that was applied, or (`success` false) is being applied outside a transaction.
///
/// # Errors
/// SQLite's.
pub(super) fn insert_row(db: &Connection, migration: &Migration, success: bool, nanoseconds: i64) -> Result<()> {
    db.execute(
        &format!(
            "insert into main.{}(version, description, success, checksum, execution_time) values (?1, ?2, ?3, ?4, ?5)",
            migration.ledger.sql()
        ),
        params![migration.version, migration.description, success, migration.checksum, nanoseconds],
    )
    .map_err(from_sqlite)?;
    Ok(())
}

/// Marks a version that began outside a transaction as finished.
///
/// # Errors
/// [`ErrorKind::MigrationDirty`] when its row is missing; otherwise SQLite's.
pub(super) fn finish_row(db: &Connection, migration: &Migration, nanoseconds: i64) -> Result<()> {
    let ledger = migration.ledger.sql();
    let sql = format!("update main.{ledger} set success = 1, execution_time = ?2 where version = ?1");
    match db.execute(&sql, params![migration.version, nanoseconds]).map_err(from_sqlite)? {
        1 => Ok(()),
        _ => Err(Error::new(
            ErrorKind::MigrationDirty,
            format!("the ledger row of version {} vanished while it ran", migration.version),
        )),
    }
}

/// Removes the row of a version that began and changed nothing.
///
/// # Errors
/// SQLite's.
pub(super) fn forget_row(db: &Connection, migration: &Migration) -> Result<()> {
    let sql = format!("delete from main.{} where version = ?1 and success = 0", migration.ledger.sql());
    db.execute(&sql, [migration.version]).map_err(from_sqlite)?;
    Ok(())
}

fn not_a_ledger(name: &LedgerName, error: rusqlite::Error) -> Error {
    match error {
        rusqlite::Error::InvalidColumnType(_, column, found) => {
            Error::new(ErrorKind::Corrupt, format!("{name}.{column} holds {found}, which is not what sqlx writes"))
        }
        other => from_sqlite(other),
    }
}
