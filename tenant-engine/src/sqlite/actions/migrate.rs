//! Implements [`crate::Engine::migrate_database`]: applies the pending versions, one transaction per version, with one
//! flush for all callers at the end.

use super::snapshot;
use crate::engine::MigrationOutcome;
use crate::error::Result;
use crate::identity::ExpectedIdentity;
use crate::migration::{AppliedMigration, MigrationSet, pending_to};
use crate::placement::Placement;
use crate::sqlite::SqliteEngine;
use crate::sqlite::limits::schema;
use crate::sqlite::migrations::apply::{ApplyOutcome, ApplyRules, apply_migration};
use crate::sqlite::migrations::ledger;
use crate::sqlite::storage::open::check_identity;
use crate::sqlite::storage::shared_state::FlushNeed;
use crate::sqlite::storage::writer::DatabaseWriter;

/// See [`crate::Engine::migrate_database`].
pub(in crate::sqlite) async fn migrate_database(
    engine: &SqliteEngine,
    at: &Placement,
    expected: &ExpectedIdentity,
    set: &MigrationSet,
    target: Option<i64>,
) -> Result<MigrationOutcome> {
    let (expected, set) = (expected.clone(), set.clone());
    // The space that a migration needs is not known before. It must not begin on a disk where tenants may not write.
    engine.durably_taking(at, 0, move |at| migrate_placement(at, &expected, &set, target)).await
}

fn migrate_placement(
    at: &Placement,
    expected: &ExpectedIdentity,
    set: &MigrationSet,
    target: Option<i64>,
) -> Result<(MigrationOutcome, FlushNeed)> {
    let mut writer = DatabaseWriter::open(at)?;
    match apply_pending(&mut writer, expected, set, target) {
        Ok(migrated) => Ok((migrated, writer.finish_writing()?)),
        Err(error) => {
            writer.abandon_writing();
            Err(error)
        }
    }
}

/// Applies the pending versions to an open database.
pub(super) fn apply_pending(
    writer: &mut DatabaseWriter,
    expected: &ExpectedIdentity,
    set: &MigrationSet,
    target: Option<i64>,
) -> Result<MigrationOutcome> {
    // Checks before it asks for the write lock: when nothing is pending, a writing application is not disturbed.
    let ledger = writer.inner_database().read_transaction(Some(expected), |db, _| {
        schema::require_bounded(db)?;
        ledger::read_for(db, set)
    })?;
    let todo = pending_to(set, &ledger, target)?;
    let rules = ApplyRules { guard: &|db| check_identity(db, Some(expected)).map(drop), set };
    let mut applied = Vec::new();
    for migration in &todo {
        if apply_migration(writer, &rules, migration)? == ApplyOutcome::Applied {
            applied.push(migration.version);
        }
    }
    let from_version = newest_version(&ledger);
    let to_version = todo.last().map(|m| m.version).max(from_version);
    // Read here, because another opening of the database costs as much as the migration of a small tenant.
    let size_bytes = match applied.is_empty() {
        true => None,
        false => snapshot::size_in_transaction(writer.inner_database()).ok(),
    };
    Ok(MigrationOutcome { from_version, to_version, applied, size_bytes })
}

/// The newest version in a ledger.
pub(super) fn newest_version(ledger: &[AppliedMigration]) -> Option<i64> {
    ledger.iter().map(|row| row.version).max()
}
