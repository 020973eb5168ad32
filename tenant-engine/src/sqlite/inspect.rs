//! The verb `inspect`: what one database says about itself. Changes nothing.

use rusqlite::Connection;

use super::SqliteEngine;
use super::error::from_sqlite;
use super::open::{Sharing, open};
use super::{files, foreign_keys, ledger, snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Expected, Identity};
use crate::inspection::{Depth, Inspection};
use crate::placement::Placement;

/// A damaged file can have a problem per cell; the first hundred tell enough.
const PROBLEMS_MAX: u32 = 100;

/// See [`crate::Engine::inspect`].
pub(super) async fn inspect(
    engine: &SqliteEngine,
    at: &Placement,
    expected: Option<&Expected>,
    depth: Depth,
) -> Result<Inspection> {
    let (on, expected) = (at.clone(), expected.cloned());
    engine.blocking_on(at, move || look(&on, expected.as_ref(), depth)).await
}

/// See [`crate::Engine::size`].
pub(super) async fn size(engine: &SqliteEngine, at: &Placement) -> Result<u64> {
    let at = at.clone();
    engine.blocking(move || open(&at, Sharing::Shared)?.read(None, |db, _| snapshot::size(db))).await
}

fn look(at: &Placement, expected: Option<&Expected>, depth: Depth) -> Result<Inspection> {
    let database = open(at, Sharing::Shared)?;
    let size_bytes = files::length(&at.path()) + database.wal_bytes();
    database.read(expected, |db, identity| read(db, identity, depth, size_bytes))
}

/// The rest of an inspection, in the open transaction that read the identity.
pub(super) fn read(db: &Connection, identity: Identity, depth: Depth, size_bytes: u64) -> Result<Inspection> {
    let applied = ledger::read(db)?;
    let (problems, foreign_key_violations) = match depth {
        Depth::Ledger => (Vec::new(), 0),
        Depth::Full => {
            let problems = problems(db, PROBLEMS_MAX)?;
            // A damaged file cannot be counted on for this.
            let violations = if problems.is_empty() { foreign_keys::count(db)? } else { 0 };
            (problems, violations)
        }
    };
    Ok(Inspection { identity, applied, size_bytes, problems, foreign_key_violations })
}

/// Refuses a database that `quick_check` finds fault with.
///
/// # Errors
/// [`ErrorKind::Corrupt`] with the first problem; otherwise SQLite's.
pub(super) fn require_sound(db: &Connection) -> Result<()> {
    match problems(db, 1)?.first() {
        None => Ok(()),
        Some(problem) => Err(Error::new(ErrorKind::Corrupt, format!("the database is damaged: {problem}"))),
    }
}

/// What `quick_check` says, empty when sound. Damage that stops the check itself is a problem like any other.
fn problems(db: &Connection, max: u32) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut check = || -> rusqlite::Result<()> {
        let mut statement = db.prepare(&format!("pragma quick_check({max})"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            found.push(row.get::<_, String>(0)?);
        }
        Ok(())
    };
    if let Err(error) = check().map_err(from_sqlite) {
        match error.kind() {
            ErrorKind::Corrupt => found.push(error.message().to_owned()),
            _ => return Err(error),
        }
    }
    found.retain(|line| line != "ok");
    found.truncate(max as usize);
    Ok(found)
}
