//! The verbs `stamp` and `freeze`: the identity row, and the fence that stops a writer that does not look at it.
//!
//! A frozen database carries triggers that refuse every change of every table. They commit together with the row, so
//! a writer that was already waiting for the lock meets them. Any later stamp takes them away again unless it freezes.

use rusqlite::Connection;

use super::SqliteEngine;
use super::error::from_sqlite;
use super::identity;
use super::verbs::Flush;
use super::watch::is_ours;
use super::writer::Writer;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Expected, Identity, IdentityState};
use crate::placement::Placement;

/// What every fence trigger's name starts with.
const FENCE: &str = "_fleet_fence_";

/// Whether the stamp also fences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fence {
    /// It stands when the transaction has committed.
    Up,
    /// It is gone then.
    Down,
}

/// See [`crate::Engine::stamp`].
pub(super) async fn stamp(engine: &SqliteEngine, at: &Placement, expected: &Expected, new: &Identity) -> Result<()> {
    let (expected, new) = (expected.clone(), new.clone());
    engine.durably(at, move |at| replace(at, &expected, &new, Fence::Down)).await
}

/// See [`crate::Engine::freeze`].
pub(super) async fn freeze(engine: &SqliteEngine, at: &Placement, expected: &Expected, new: &Identity) -> Result<()> {
    let (expected, new) = (expected.clone(), new.clone());
    engine.durably(at, move |at| replace(at, &expected, &new, Fence::Up)).await
}

fn replace(at: &Placement, expected: &Expected, new: &Identity, fence: Fence) -> Result<((), Flush)> {
    let mut writer = Writer::open(at)?;
    set(&mut writer, expected, new, fence)?;
    Ok(((), writer.finish()?))
}

/// Row and fence in one transaction.
pub(super) fn set(writer: &mut Writer, expected: &Expected, new: &Identity, fence: Fence) -> Result<()> {
    if fence == Fence::Up && new.state != IdentityState::Frozen {
        return Err(Error::new(ErrorKind::Internal, format!("freeze was asked to stamp '{}'", new.state)));
    }
    writer.transaction(|db| {
        let found = identity::read(db)?;
        if !found.same_as(new) {
            expected.check(&found)?;
            identity::write(db, new)?;
        }
        match fence {
            Fence::Up => raise(db),
            Fence::Down => lower(db),
        }
    })
}

/// Puts the fence before every table that does not have it.
fn raise(db: &Connection) -> Result<()> {
    lower(db)?;
    // Shadow tables are what a virtual table, which can have no trigger and no page, writes to. The PRAGMA `table_list` is
    // not asked: it prepares every view, and those of a file from elsewhere may never end.
    let tables = names(db, "select name from main.sqlite_schema where type = 'table' and rootpage > 0")?;
    let tables = tables.iter().filter(|name| !is_ours(name) && !name.starts_with("sqlite_"));
    for (number, table) in tables.enumerate() {
        for verb in ["insert", "update", "delete"] {
            let sql = format!(
                "create trigger main.{FENCE}{verb}_{number} before {verb} on {} \
                 begin select raise(abort, 'frozen'); end",
                quoted(table)
            );
            db.execute_batch(&sql).map_err(from_sqlite)?;
        }
    }
    Ok(())
}

/// Takes the fence away; without one this reads the schema and changes nothing.
///
/// # Errors
/// SQLite's.
pub(super) fn lower(db: &Connection) -> Result<()> {
    let sql = "select name from main.sqlite_schema where type = 'trigger' and substr(name, 1, 13) = '_fleet_fence_'";
    for trigger in names(db, sql)? {
        db.execute_batch(&format!("drop trigger main.{}", quoted(&trigger))).map_err(from_sqlite)?;
    }
    Ok(())
}

fn names(db: &Connection, sql: &str) -> Result<Vec<String>> {
    let mut statement = db.prepare(sql).map_err(from_sqlite)?;
    let rows = statement.query_map([], |row| row.get(0)).map_err(from_sqlite)?;
    rows.collect::<rusqlite::Result<_>>().map_err(from_sqlite)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
