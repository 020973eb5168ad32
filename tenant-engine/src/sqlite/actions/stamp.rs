//! Implements [`crate::Engine::stamp_identity`] and [`crate::Engine::freeze_database`]: writes the identity row, and
//! the fence that stops a writer that does not check the row.
//!
//! A frozen database has triggers that refuse every change of every table. They are committed together with the row, so
//! a writer that was already waiting for the lock is stopped by them. Any later stamp removes them, unless it also
//! freezes.

use rusqlite::Connection;

use crate::error::{Error, ErrorKind, Result};
use crate::identity::{ExpectedIdentity, Identity, IdentityState};
use crate::own_tables::is_own_table;
use crate::placement::Placement;
use crate::sqlite::SqliteEngine;
use crate::sqlite::error::from_sqlite;
use crate::sqlite::identity;
use crate::sqlite::migrations::ledger;
use crate::sqlite::migrations::migration_guard::is_ours;
use crate::sqlite::storage::shared_state::FlushNeed;
use crate::sqlite::storage::writer::DatabaseWriter;

/// The prefix of the names of all fence triggers.
const FENCE: &str = "_fleet_fence_";

/// Whether the stamp also sets the fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StampFence {
    /// The fence exists once the transaction has committed.
    Up,
    /// The fence is gone once the transaction has committed.
    Down,
}

/// See [`crate::Engine::stamp_identity`].
pub(in crate::sqlite) async fn stamp_identity(
    engine: &SqliteEngine,
    at: &Placement,
    expected: &ExpectedIdentity,
    new: &Identity,
) -> Result<()> {
    let (expected, new) = (expected.clone(), new.clone());
    engine.run_durably(at, move |at| replace_identity(at, &expected, &new, StampFence::Down)).await
}

/// See [`crate::Engine::freeze_database`].
pub(in crate::sqlite) async fn freeze_database(
    engine: &SqliteEngine,
    at: &Placement,
    expected: &ExpectedIdentity,
    new: &Identity,
) -> Result<()> {
    let (expected, new) = (expected.clone(), new.clone());
    engine.run_durably(at, move |at| replace_identity(at, &expected, &new, StampFence::Up)).await
}

fn replace_identity(
    at: &Placement,
    expected: &ExpectedIdentity,
    new: &Identity,
    fence: StampFence,
) -> Result<((), FlushNeed)> {
    let mut writer = DatabaseWriter::open(at)?;
    set_identity(&mut writer, expected, new, fence)?;
    Ok(((), writer.finish_writing()?))
}

/// Writes row and fence in one transaction.
pub(super) fn set_identity(
    writer: &mut DatabaseWriter,
    expected: &ExpectedIdentity,
    new: &Identity,
    fence: StampFence,
) -> Result<()> {
    if fence == StampFence::Up && new.state != IdentityState::Frozen {
        return Err(Error::new(ErrorKind::Internal, format!("freeze was asked to stamp '{}'", new.state)));
    }
    writer.write_transaction(|db| {
        let found = identity::read_identity(db)?;
        if !found.same_as(new) {
            expected.check_identity(&found)?;
            identity::write_identity(db, new)?;
        }
        match fence {
            StampFence::Up => raise_fence(db),
            StampFence::Down => lower_fence(db),
        }
    })
}

/// Adds the fence to every table that does not have it.
fn raise_fence(db: &Connection) -> Result<()> {
    lower_fence(db)?;
    // A virtual table can have no trigger and no page; it writes to its shadow tables. The PRAGMA `table_list` is not
    // used, because it prepares every view, and that may never end for views of a file from elsewhere.
    let tables = read_names(db, "select name from main.sqlite_schema where type = 'table' and rootpage > 0")?;
    let ledger = ledger::name(db)?;
    let tables =
        tables.iter().filter(|name| is_own_table(name) || !is_ours(name, &ledger) && !name.starts_with("sqlite_"));
    for (number, table) in tables.enumerate() {
        for verb in ["insert", "update", "delete"] {
            let sql = format!(
                "create trigger main.{FENCE}{verb}_{number} before {verb} on {} \
                 begin select raise(abort, 'frozen'); end",
                quoted_name(table)
            );
            db.execute_batch(&sql).map_err(from_sqlite)?;
        }
    }
    Ok(())
}

/// Removes the fence. Without a fence this reads the schema and changes nothing.
///
/// # Errors
/// SQLite's.
pub(super) fn lower_fence(db: &Connection) -> Result<()> {
    let sql = "select name from main.sqlite_schema where type = 'trigger' and substr(name, 1, 13) = '_fleet_fence_'";
    for trigger in read_names(db, sql)? {
        db.execute_batch(&format!("drop trigger main.{}", quoted_name(&trigger))).map_err(from_sqlite)?;
    }
    Ok(())
}

fn read_names(db: &Connection, sql: &str) -> Result<Vec<String>> {
    let mut statement = db.prepare(sql).map_err(from_sqlite)?;
    let rows = statement.query_map([], |row| row.get(0)).map_err(from_sqlite)?;
    rows.collect::<rusqlite::Result<_>>().map_err(from_sqlite)
}

fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
