//! Implements [`crate::Engine::inspect_database`]: identity, ledger, size and problems of one database. Changes
//! nothing.

use rusqlite::Connection;

use super::snapshot;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{ExpectedIdentity, Identity};
use crate::inspection::{Inspection, InspectionDepth};
use crate::placement::Placement;
use crate::sqlite::SqliteEngine;
use crate::sqlite::error::from_sqlite;
use crate::sqlite::migrations::{foreign_keys, ledger};
use crate::sqlite::storage::files;
use crate::sqlite::storage::open::{FileSharing, open_database};

/// A damaged file can have a problem in every cell; the first hundred are enough.
const PROBLEMS_MAX: u32 = 100;

/// See [`crate::Engine::inspect_database`].
pub(in crate::sqlite) async fn inspect_database(
    engine: &SqliteEngine,
    at: &Placement,
    expected: Option<&ExpectedIdentity>,
    depth: InspectionDepth,
) -> Result<Inspection> {
    let (on, expected) = (at.clone(), expected.cloned());
    engine.blocking_on(at, move || inspect_placement(&on, expected.as_ref(), depth)).await
}

/// See [`crate::Engine::database_size`].
pub(in crate::sqlite) async fn database_size(engine: &SqliteEngine, at: &Placement) -> Result<u64> {
    let at = at.clone();
    engine
        .run_blocking(move || {
            open_database(&at, FileSharing::Shared)?.read_transaction(None, |db, _| snapshot::size_in_transaction(db))
        })
        .await
}

fn inspect_placement(
    at: &Placement,
    expected: Option<&ExpectedIdentity>,
    depth: InspectionDepth,
) -> Result<Inspection> {
    let database = open_database(at, FileSharing::Shared)?;
    let size_bytes = files::file_length(&at.file_path()) + database.wal_bytes();
    database.read_transaction(expected, |db, identity| read_inspection(db, identity, depth, size_bytes))
}

/// The rest of an inspection, in the open transaction that read the identity.
pub(super) fn read_inspection(
    db: &Connection,
    identity: Identity,
    depth: InspectionDepth,
    size_bytes: u64,
) -> Result<Inspection> {
    let applied = ledger::read_ledger(db)?;
    let (problems, foreign_key_violations) = match depth {
        InspectionDepth::Ledger => (Vec::new(), 0),
        InspectionDepth::Full => {
            let problems = quick_check_problems(db, PROBLEMS_MAX)?;
            // In a damaged file, violations cannot be counted reliably.
            let violations = if problems.is_empty() { foreign_keys::count_violations(db)? } else { 0 };
            (problems, violations)
        }
    };
    Ok(Inspection { identity, applied, size_bytes, problems, foreign_key_violations })
}

/// Refuses a database in which `quick_check` finds a problem.
///
/// # Errors
/// [`ErrorKind::Corrupt`] with the first problem; otherwise SQLite's.
pub(super) fn require_sound(db: &Connection) -> Result<()> {
    match quick_check_problems(db, 1)?.first() {
        None => Ok(()),
        Some(problem) => Err(Error::new(ErrorKind::Corrupt, format!("the database is damaged: {problem}"))),
    }
}

/// The problems that `quick_check` finds; empty for an intact database. Damage that stops the check itself is also a
/// problem.
fn quick_check_problems(db: &Connection, max: u32) -> Result<Vec<String>> {
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
