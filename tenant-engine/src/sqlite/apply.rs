//! Applies one migration to one open database: its statements, under watch, and its ledger row, together.
//!
//! Called for a template in memory and for a tenant's file. [`Watch`] refuses statements that would break the
//! bookkeeping, and notices a table being dropped or renamed while foreign keys are enforced: rebuilding a table that
//! way would fire `ON DELETE CASCADE` and lose the children's rows. Such a version is rolled back and run again with
//! foreign keys off, and committed only if it leaves no violation that was not there before. [`Rebuilds`] remembers
//! it, so that the next database starts right.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::error::from_sqlite;
use super::foreign_keys::violations;
use super::ledger;
use super::open::BUSY_WAIT;
use super::schema;
use super::script::{self, Failure, Reason};
use super::watch::{Run, Verdict, Watch, our_objects};
use super::workers::lock;
use super::writer::Writer;
use crate::error::{Error, ErrorKind, Result};
use crate::migration::{Migration, MigrationSet, pending};

/// Versions remembered: far more than one program meets; past it the memory starts over and costs one extra rollback.
const REBUILDS_MAX: usize = 10_000;

/// The versions that drop or rename a table, by the checksum of their file. Clones are one memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Rebuilds(Arc<Mutex<HashSet<Vec<u8>>>>);

impl Rebuilds {
    fn run_for(&self, migration: &Migration) -> Run {
        match migration.transactional {
            false => Run::Bare,
            true if lock(&self.0).contains(&migration.checksum) => Run::Unenforced,
            true => Run::Enforced,
        }
    }

    fn remember(&self, migration: &Migration) {
        let mut known = lock(&self.0);
        if known.len() >= REBUILDS_MAX {
            known.clear();
        }
        known.insert(migration.checksum.clone());
    }
}

/// Whether a version had to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was, and its ledger row committed with it.
    Applied,
    /// Another worker did it first.
    AlreadyThere,
}

/// What every transaction of a migration looks at before it changes anything.
pub(super) struct Rules<'a> {
    /// The identity check; nothing for a template, which belongs to nobody.
    pub(super) guard: &'a dyn Fn(&Connection) -> Result<()>,
    /// The set the ledger must agree with.
    pub(super) set: &'a MigrationSet,
    /// What is known about versions that rebuild tables.
    pub(super) rebuilds: &'a Rebuilds,
}

/// Applies one version. After an error or a crash nothing of it is there, except of a version without transaction:
/// its ledger row then says that it did not finish.
///
/// # Errors
/// [`ErrorKind::MigrationFailed`] naming version, line and SQLite's words; those of [`pending`] and of the guard;
/// [`ErrorKind::Busy`] and other faults of the database as they are.
pub(super) fn apply(writer: &mut Writer, rules: &Rules<'_>, migration: &Migration) -> Result<Outcome> {
    match rules.rebuilds.run_for(migration) {
        Run::Bare => apply_bare(writer, rules, migration),
        run => match apply_whole(writer, rules, migration, run) {
            Err(Stop::Rebuild) => {
                rules.rebuilds.remember(migration);
                Ok(apply_whole(writer, rules, migration, Run::Unenforced)?)
            }
            outcome => Ok(outcome?),
        },
    }
}

/// Why a migration's transaction is rolled back.
#[derive(Debug)]
enum Stop {
    /// It drops or renames a table while foreign keys are enforced.
    Rebuild,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Failed(error) => error,
            Stop::Rebuild => Self::new(ErrorKind::Internal, "a rebuild was noticed with foreign keys already off"),
        }
    }
}

/// The usual way: guard, ledger, statements and ledger row in one transaction.
fn apply_whole(writer: &mut Writer, rules: &Rules<'_>, migration: &Migration, run: Run) -> Result<Outcome, Stop> {
    enforce_foreign_keys(writer.database(), run == Run::Enforced)?;
    let started = Instant::now();
    let outcome = writer.transaction(|db| {
        if is_applied(db, rules, migration)? {
            return Ok(Outcome::AlreadyThere);
        }
        let before = (run == Run::Unenforced).then(|| violations(db)).transpose()?;
        run_watched(db, migration, run).map_err(|stopped| stopped.stop)?;
        if let Some(before) = before {
            refuse(migration, violations(db)?.grown_since(&before))?;
        }
        ledger::insert(db, migration, true, nanoseconds(started))?;
        Ok(Outcome::Applied)
    });
    outcome.map_err(|stop| match stop {
        // A deferred foreign key speaks up at COMMIT.
        Stop::Failed(error) if error.kind() == ErrorKind::Constraint => failed(migration, None, &error).into(),
        other => other,
    })
}

/// `-- no-transaction`: the ledger says that the version has begun before its first statement runs, so that an
/// interrupted one is found and never run again by itself. sqlx reads such a row as dirty, too.
fn apply_bare(writer: &mut Writer, rules: &Rules<'_>, migration: &Migration) -> Result<Outcome> {
    enforce_foreign_keys(writer.database(), true)?;
    let begun: Result<Outcome> = writer.transaction(|db| {
        if is_applied(db, rules, migration)? {
            return Ok(Outcome::AlreadyThere);
        }
        ledger::insert(db, migration, false, -1)?;
        Ok(Outcome::Applied)
    });
    if begun? == Outcome::AlreadyThere {
        return Ok(Outcome::AlreadyThere);
    }
    writer.expect_log()?;
    let started = Instant::now();
    let ran = run_watched(writer.database(), migration, Run::Bare).and_then(|()| ended(writer.database(), migration));
    writer.restore()?;
    match ran {
        Ok(()) => writer.transaction(|db| ledger::finish(db, migration, nanoseconds(started)))?,
        // A statement is atomic: when the first one fails, nothing has happened.
        Err(failed) if failed.done == 0 => {
            writer.transaction(|db| ledger::forget(db, migration))?;
            return Err(failed.stop.into());
        }
        Err(failed) => return Err(half_done(migration, &failed.stop.into())),
    }
    Ok(Outcome::Applied)
}

/// The guard and the ledger, inside the transaction that is about to change the database.
fn is_applied(db: &Connection, rules: &Rules<'_>, migration: &Migration) -> Result<bool> {
    (rules.guard)(db)?;
    ledger::create(db)?;
    let todo = pending(rules.set, &ledger::read(db)?)?;
    Ok(todo.iter().all(|m| m.version != migration.version))
}

struct Stopped {
    /// Statements that ran before.
    done: usize,
    stop: Stop,
}

impl Stopped {
    fn at_end(error: Error) -> Self {
        Self { done: usize::MAX, stop: error.into() }
    }
}

fn run_watched(db: &Connection, migration: &Migration, run: Run) -> Result<(), Stopped> {
    let not_begun = |error: Error| Stopped { done: 0, stop: error.into() };
    let ours = our_objects(db).map_err(not_begun)?;
    let watch = Watch::install(db, run).map_err(not_begun)?;
    script::run(db, &migration.sql).map_err(|Failure { line, done, error }| {
        let stop = match watch.verdict() {
            Some(Verdict::Rebuild) => Stop::Rebuild,
            Some(Verdict::Forbidden(why)) => failed(migration, Some(line), &why).into(),
            None => statement_failed(migration, line, error).into(),
        };
        Stopped { done, stop }
    })?;
    drop(watch);
    // The file may have set another one, and a worker would wait as long.
    db.busy_timeout(BUSY_WAIT).map_err(|error| Stopped::at_end(from_sqlite(error)))?;
    if let Some(why) = schema::too_large(db).map_err(Stopped::at_end)? {
        return Err(Stopped::at_end(failed(migration, None, &why)));
    }
    match our_objects(db) {
        Ok(now) if now == ours => Ok(()),
        Ok(_) => Err(Stopped::at_end(failed(migration, None, &"a table may not take a name of the engine's"))),
        Err(error) => Err(Stopped::at_end(error)),
    }
}

/// A file with its own BEGIN must also hold its COMMIT.
fn ended(db: &Connection, migration: &Migration) -> Result<(), Stopped> {
    if db.is_autocommit() {
        return Ok(());
    }
    let _ = db.execute_batch("rollback");
    Err(Stopped::at_end(failed(migration, None, &"the file ends inside a transaction it began; it was rolled back")))
}

/// Faults of the storage and a busy writer stay what they are; everything else is the migration's own fault.
fn statement_failed(migration: &Migration, line: usize, reason: Reason) -> Error {
    let error = match reason {
        Reason::Sqlite(error) => from_sqlite(error),
        Reason::TooComplex(why) => return failed(migration, Some(line), &why),
    };
    match error.kind() {
        ErrorKind::Busy
        | ErrorKind::Corrupt
        | ErrorKind::DiskFull
        | ErrorKind::MemoryMax
        | ErrorKind::ReadOnlyStorage
        | ErrorKind::Io
        | ErrorKind::Missing => error,
        _ => failed(migration, Some(line), &error).with_source(error),
    }
}

fn failed(migration: &Migration, line: Option<usize>, why: &dyn std::fmt::Display) -> Error {
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
            migration.version,
            ledger::TABLE
        ),
    )
}

fn refuse(migration: &Migration, grown: Option<String>) -> Result<()> {
    grown.map_or(Ok(()), |grown| Err(failed(migration, None, &format!("FOREIGN KEY constraint failed: {grown}"))))
}

fn enforce_foreign_keys(db: &Connection, on: bool) -> Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, on).map_err(from_sqlite)?;
    Ok(())
}

fn nanoseconds(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_nanos()).unwrap_or(i64::MAX)
}
