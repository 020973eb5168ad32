//! Applies one migration to one open database: its statements, checked by a guard, and its ledger row, together.
//!
//! Called for a template in memory and for a tenant's file. [`MigrationGuard`] refuses statements that would break the
//! engine's own records. [`MigrationForeignKeys`] keeps foreign keys enforced, and keeps the child rows of a table that
//! the file rebuilds.

use std::time::Instant;

use rusqlite::Connection;

use super::ledger;
use super::migration_guard::{MigrationGuard, RunMode, our_objects};
use super::references::{ChildHandling, MigrationForeignKeys};
use super::row_contents::has_unique_key;
use super::rules::migration_refusals;
use super::script::{self, ScriptFailure, ScriptStopReason};
use crate::error::{Error, ErrorKind, Result};
use crate::migration::{Migration, MigrationSet, pending_migrations};
use crate::sqlite::error::from_sqlite;
use crate::sqlite::limits::schema;
use crate::sqlite::storage::disk_full;
use crate::sqlite::storage::open::BUSY_WAIT;
use crate::sqlite::storage::writer::DatabaseWriter;

/// Whether a call applied the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sqlite) enum ApplyOutcome {
    /// The version was applied, and its ledger row was committed with it.
    Applied,
    /// Another worker had already applied the version.
    AlreadyThere,
}

/// The checks that every transaction of a migration makes before it changes anything.
pub(in crate::sqlite) struct ApplyRules<'a> {
    /// The identity check; does nothing for a template, which belongs to no tenant.
    pub(in crate::sqlite) guard: &'a dyn Fn(&Connection) -> Result<()>,
    /// The set that the ledger must match.
    pub(in crate::sqlite) set: &'a MigrationSet,
}

/// Applies one version. After an error or a crash nothing of the version remains. The exception is a version without a
/// transaction: its ledger row then says that it did not finish.
///
/// # Errors
/// [`ErrorKind::MigrationFailed`] naming version, line and SQLite's message; those of [`pending_migrations`] and of the
/// guard; [`ErrorKind::Busy`] and other faults of the database unchanged.
pub(in crate::sqlite) fn apply_migration(
    writer: &mut DatabaseWriter,
    rules: &ApplyRules<'_>,
    migration: &Migration,
) -> Result<ApplyOutcome> {
    if migration.transactional { apply_whole(writer, rules, migration) } else { apply_bare(writer, rules, migration) }
}

/// Applies a version in one transaction. A file that rebuilds a table and inserts into a child table is run at least
/// once more: as it is written if that loses no rows, otherwise with the child rows kept.
fn apply_whole(writer: &mut DatabaseWriter, rules: &ApplyRules<'_>, migration: &Migration) -> Result<ApplyOutcome> {
    let outcome = match attempt_whole(writer, rules, migration, ChildHandling::KeepUnlessFilled) {
        Err(RollbackReason::StartOver) => match attempt_whole(writer, rules, migration, ChildHandling::LeaveToFile) {
            Ok(outcome) => Ok(outcome),
            Err(RollbackReason::Doubles(table)) => Err(RollbackReason::Doubles(table)),
            Err(_) => attempt_whole(writer, rules, migration, ChildHandling::Keep),
        },
        outcome => outcome,
    };
    outcome.map_err(|stop| match stop {
        // A deferred foreign key fails at COMMIT.
        RollbackReason::Failed(error) if error.kind() == ErrorKind::Constraint => {
            migration_failed(migration, None, &error)
        }
        RollbackReason::Doubles(table) => migration_failed(migration, None, &doubles_message(&table)),
        stop => stop.into(),
    })
}

/// Runs guard, ledger check, statements and ledger row in one transaction.
fn attempt_whole(
    writer: &mut DatabaseWriter,
    rules: &ApplyRules<'_>,
    migration: &Migration,
    to: ChildHandling,
) -> Result<ApplyOutcome, RollbackReason> {
    let started = Instant::now();
    writer.write_transaction(|db| {
        if is_applied(db, rules, migration)? {
            return Ok(ApplyOutcome::AlreadyThere);
        }
        run_watched(db, migration, Some(to)).map_err(|stopped| stopped.stop)?;
        ledger::insert_row(db, migration, true, elapsed_nanoseconds(started))?;
        Ok(ApplyOutcome::Applied)
    })
}

/// Why a migration's transaction is rolled back.
#[derive(Debug)]
enum RollbackReason {
    /// The file must run again, with the next variant of [`ChildHandling`].
    StartOver,
    /// The file loses rows of this table. With the rows kept, it would insert some of them a second time.
    Doubles(String),
    Failed(Error),
}

impl From<Error> for RollbackReason {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<RollbackReason> for Error {
    fn from(stop: RollbackReason) -> Self {
        match stop {
            RollbackReason::Failed(error) => error,
            RollbackReason::StartOver => Self::new(ErrorKind::Internal, "a migration did not start over"),
            RollbackReason::Doubles(table) => Self::new(ErrorKind::MigrationFailed, doubles_message(&table)),
        }
    }
}

/// Applies a file marked `-- no-transaction`. The ledger records that the version has begun before its first statement
/// runs. So an interrupted version is found and never run again automatically. sqlx treats such a row as dirty, too.
fn apply_bare(writer: &mut DatabaseWriter, rules: &ApplyRules<'_>, migration: &Migration) -> Result<ApplyOutcome> {
    // A refused statement must not leave half of the file applied.
    if let Some(refused) = migration_refusals(migration).first() {
        return Err(migration_failed(migration, Some(refused.line), &refused.why));
    }
    let begun: Result<ApplyOutcome> = writer.write_transaction(|db| {
        if is_applied(db, rules, migration)? {
            return Ok(ApplyOutcome::AlreadyThere);
        }
        ledger::insert_row(db, migration, false, -1)?;
        Ok(ApplyOutcome::Applied)
    });
    if begun? == ApplyOutcome::AlreadyThere {
        return Ok(ApplyOutcome::AlreadyThere);
    }
    writer.expect_log()?;
    let started = Instant::now();
    let ran = run_watched(writer.inner_database(), migration, None)
        .and_then(|()| require_ended(writer.inner_database(), migration));
    writer.restore_connection()?;
    match ran {
        Ok(()) => writer.write_transaction(|db| ledger::finish_row(db, migration, elapsed_nanoseconds(started)))?,
        // A statement is atomic: when the first one fails, nothing has changed.
        Err(failed) if failed.done == 0 => {
            writer.write_transaction(|db| ledger::forget_row(db, migration))?;
            return Err(failed.stop.into());
        }
        Err(failed) => return Err(half_done(migration, &failed.stop.into())),
    }
    Ok(ApplyOutcome::Applied)
}

/// Checks the guard and the ledger, inside the transaction that is about to change the database.
fn is_applied(db: &Connection, rules: &ApplyRules<'_>, migration: &Migration) -> Result<bool> {
    (rules.guard)(db)?;
    let applied = ledger::read_for(db, rules.set)?;
    ledger::create_ledger(db, rules.set.ledger())?;
    let todo = pending_migrations(rules.set, &applied)?;
    Ok(todo.iter().all(|m| m.version != migration.version))
}

struct StoppedMigration {
    /// Number of statements that ran before.
    done: usize,
    stop: RollbackReason,
}

impl StoppedMigration {
    fn at_end(stop: impl Into<RollbackReason>) -> Self {
        Self { done: usize::MAX, stop: stop.into() }
    }
}

/// Without `children`, the file runs outside a transaction and handles its foreign keys itself.
fn run_watched(
    db: &Connection,
    migration: &Migration,
    children: Option<ChildHandling>,
) -> Result<(), StoppedMigration> {
    let not_begun = |error: Error| StoppedMigration { done: 0, stop: error.into() };
    let ours = our_objects(db, &migration.ledger).map_err(not_begun)?;
    let to = children.unwrap_or(ChildHandling::Keep);
    let looked_after = if children.is_some() { migration.sql.as_str() } else { "" };
    let mut references = MigrationForeignKeys::enforced_on(db, to, looked_after).map_err(not_begun)?;
    let run = if children.is_some() { RunMode::Whole } else { RunMode::Bare };
    let watch = MigrationGuard::install_guard(db, run, &migration.ledger).map_err(not_begun)?;
    let guard = children.is_some().then_some(&mut references);
    script::run_script(db, &migration.sql, guard).map_err(|ScriptFailure { line, done, error }| {
        let stop = match (watch.first_objection(), error) {
            (Some(why), _) => migration_failed(migration, Some(line), &why).into(),
            (None, ScriptStopReason::StartOver) => RollbackReason::StartOver,
            (None, error) => statement_failed(db, migration, line, error).into(),
        };
        StoppedMigration { done, stop }
    })?;
    if children.is_some() {
        finish_references(db, migration, references).map_err(StoppedMigration::at_end)?;
    }
    drop(watch);
    // The file may have set another timeout, and a worker thread would wait as long.
    db.busy_timeout(BUSY_WAIT).map_err(|error| StoppedMigration::at_end(from_sqlite(error)))?;
    if let Some(why) = schema::too_large(db).map_err(StoppedMigration::at_end)? {
        return Err(StoppedMigration::at_end(migration_failed(migration, None, &why)));
    }
    match our_objects(db, &migration.ledger) {
        Ok(now) if now == ours => Ok(()),
        Ok(_) => Err(StoppedMigration::at_end(migration_failed(
            migration,
            None,
            &"a table may not take a name of the engine's",
        ))),
        Err(error) => Err(StoppedMigration::at_end(error)),
    }
}

/// A file with its own BEGIN must also contain its COMMIT.
fn require_ended(db: &Connection, migration: &Migration) -> Result<(), StoppedMigration> {
    if db.is_autocommit() {
        return Ok(());
    }
    let _ = db.execute_batch("rollback");
    Err(StoppedMigration::at_end(migration_failed(
        migration,
        None,
        &"the file ends inside a transaction it began; it was rolled back",
    )))
}

fn statement_failed(db: &Connection, migration: &Migration, line: usize, reason: ScriptStopReason) -> Error {
    match reason {
        ScriptStopReason::Sqlite(error) => {
            its_fault(migration, Some(line), disk_full::explain_disk_full(db, from_sqlite(error)))
        }
        ScriptStopReason::Engine(error) => its_fault(migration, Some(line), error),
        ScriptStopReason::TooComplex(why) => migration_failed(migration, Some(line), &why),
        ScriptStopReason::Refused(why) => migration_failed(migration, Some(line), &why),
        ScriptStopReason::StartOver => RollbackReason::StartOver.into(),
    }
}

/// Faults of the storage and a busy writer keep their kinds. Every other error is the fault of the migration.
fn its_fault(migration: &Migration, line: Option<usize>, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Busy
        | ErrorKind::Corrupt
        | ErrorKind::DiskFull
        | ErrorKind::MemoryMax
        | ErrorKind::ReadOnlyStorage
        | ErrorKind::Io
        | ErrorKind::Missing => error,
        _ => migration_failed(migration, line, &error).with_source(error),
    }
}

fn migration_failed(migration: &Migration, line: Option<usize>, why: &dyn std::fmt::Display) -> Error {
    let line = line.map_or_else(String::new, |line| format!(", line {line}"));
    let text = format!("version {} ({}){line}: {why}", migration.version, migration.description);
    Error::new(ErrorKind::MigrationFailed, text)
}

fn half_done(migration: &Migration, error: &Error) -> Error {
    Error::new(
        ErrorKind::MigrationDirty,
        format!(
            "{error}; the statements before it have run, because the file is marked '-- no-transaction': finish or \
             undo version {} by hand, then set success to 1 in its row of {}, or delete the row to have it run again",
            migration.version, migration.ledger
        ),
    )
}

/// Handles the end of a file: see [`MigrationForeignKeys::settle_orphans`].
fn finish_references(
    db: &Connection,
    migration: &Migration,
    mut references: MigrationForeignKeys<'_>,
) -> Result<(), RollbackReason> {
    let its_fault = |error| its_fault(migration, None, error);
    let lost = references.lost_tables().map_err(its_fault)?;
    for table in &lost {
        if !has_unique_key(db, table).map_err(its_fault)? {
            return Err(RollbackReason::Doubles(table.clone()));
        }
    }
    if !lost.is_empty() {
        return Err(RollbackReason::StartOver);
    }
    match references.settle_orphans().map_err(its_fault)? {
        None => Ok(()),
        Some(why) => Err(migration_failed(migration, None, &format!("FOREIGN KEY constraint failed: {why}")).into()),
    }
}

fn doubles_message(table: &str) -> String {
    format!(
        "rows of '{table}' are deleted together with a table that is dropped, and the file does not bring back all of them. \
         '{table}' has no unique key, so whether an INSERT adds a row or brings one back cannot be told: make the table anew \
         in one version, and insert rows into '{table}' in the next"
    )
}

fn elapsed_nanoseconds(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_nanos()).unwrap_or(i64::MAX)
}
