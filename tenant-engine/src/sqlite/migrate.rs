//! The verb `migrate`: what is pending, one transaction per version, one flush for all callers at the end.

use super::SqliteEngine;
use super::apply::{Outcome, Rules, apply};
use super::ledger;
use super::open::check;
use super::schema;
use super::verbs::Flush;
use super::writer::Writer;
use crate::engine::Migrated;
use crate::error::Result;
use crate::identity::Expected;
use crate::migration::{Applied, MigrationSet, pending_to};
use crate::placement::Placement;

/// See [`crate::Engine::migrate`].
pub(super) async fn migrate(
    engine: &SqliteEngine,
    at: &Placement,
    expected: &Expected,
    set: &MigrationSet,
    target: Option<i64>,
) -> Result<Migrated> {
    let (expected, set) = (expected.clone(), set.clone());
    // What a migration writes is not known before. It must not begin where tenants may not write either.
    engine.durably_taking(at, 0, move |at| run(at, &expected, &set, target)).await
}

fn run(at: &Placement, expected: &Expected, set: &MigrationSet, target: Option<i64>) -> Result<(Migrated, Flush)> {
    let mut writer = Writer::open(at)?;
    let migrated = bring(&mut writer, expected, set, target)?;
    Ok((migrated, writer.finish()?))
}

/// Applies what is pending to an open database.
pub(super) fn bring(
    writer: &mut Writer,
    expected: &Expected,
    set: &MigrationSet,
    target: Option<i64>,
) -> Result<Migrated> {
    // Looks before it asks for the write lock: with nothing to do, an application that writes is not disturbed.
    let ledger = writer.database().read(Some(expected), |db, _| {
        schema::require_bounded(db)?;
        ledger::read(db)
    })?;
    let todo = pending_to(set, &ledger, target)?;
    let rules = Rules { guard: &|db| check(db, Some(expected)).map(drop), set };
    let mut applied = Vec::new();
    for migration in &todo {
        if apply(writer, &rules, migration)? == Outcome::Applied {
            applied.push(migration.version);
        }
    }
    let from_version = newest(&ledger);
    let to_version = todo.last().map(|m| m.version).max(from_version);
    Ok(Migrated { from_version, to_version, applied })
}

/// The newest version of a ledger.
pub(super) fn newest(ledger: &[Applied]) -> Option<i64> {
    ledger.iter().map(|row| row.version).max()
}
