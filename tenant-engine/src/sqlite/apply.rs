//! Applies one migration to one open database: its statements, under watch, and its ledger row, together.
//!
//! Called for a template in memory and for a tenant's file. [`Watch`] refuses statements that would break the
//! bookkeeping. [`References`] keeps foreign keys enforced, and the children of a table that the file makes anew.

use std::time::Instant;

use rusqlite::Connection;

use super::error::from_sqlite;
use super::full;
use super::ledger;
use super::open::BUSY_WAIT;
use super::references::{Children, References};
use super::row_contents::has_unique_key;
use super::schema;
use super::script::{self, Failure, Reason};
use super::watch::{Run, Watch, our_objects};
use super::writer::Writer;
use crate::error::{Error, ErrorKind, Result};
use crate::migration::{Migration, MigrationSet, pending};

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
}

/// Applies one version. After an error or a crash nothing of it is there, except of a version without transaction:
/// its ledger row then says that it did not finish.
///
/// # Errors
/// [`ErrorKind::MigrationFailed`] naming version, line and SQLite's words; those of [`pending`] and of the guard;
/// [`ErrorKind::Busy`] and other faults of the database as they are.
pub(super) fn apply(writer: &mut Writer, rules: &Rules<'_>, migration: &Migration) -> Result<Outcome> {
    if migration.transactional { apply_whole(writer, rules, migration) } else { apply_bare(writer, rules, migration) }
}

/// The usual way. A file that makes a table anew and inserts into the children's table is run once more at least: as
/// it is written if that loses nothing, else with its children kept.
fn apply_whole(writer: &mut Writer, rules: &Rules<'_>, migration: &Migration) -> Result<Outcome> {
    let outcome = match attempt(writer, rules, migration, Children::KeepUnlessFilled) {
        Err(Stop::StartOver) => match attempt(writer, rules, migration, Children::LeaveToFile) {
            Ok(outcome) => Ok(outcome),
            Err(Stop::Doubles(table)) => Err(Stop::Doubles(table)),
            Err(_) => attempt(writer, rules, migration, Children::Keep),
        },
        outcome => outcome,
    };
    outcome.map_err(|stop| match stop {
        // A deferred foreign key speaks up at COMMIT.
        Stop::Failed(error) if error.kind() == ErrorKind::Constraint => failed(migration, None, &error),
        Stop::Doubles(table) => failed(migration, None, &doubles(&table)),
        stop => stop.into(),
    })
}

/// Guard, ledger, statements and ledger row in one transaction.
fn attempt(writer: &mut Writer, rules: &Rules<'_>, migration: &Migration, to: Children) -> Result<Outcome, Stop> {
    let started = Instant::now();
    writer.transaction(|db| {
        if is_applied(db, rules, migration)? {
            return Ok(Outcome::AlreadyThere);
        }
        run_watched(db, migration, Some(to)).map_err(|stopped| stopped.stop)?;
        ledger::insert(db, migration, true, nanoseconds(started))?;
        Ok(Outcome::Applied)
    })
}

/// Why a migration's transaction is rolled back.
#[derive(Debug)]
enum Stop {
    /// It must run again, with the next of [`Children`].
    StartOver,
    /// The file loses rows of this table, and with its rows kept it would insert some a second time.
    Doubles(String),
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
            Stop::StartOver => Self::new(ErrorKind::Internal, "a migration did not start over"),
            Stop::Doubles(table) => Self::new(ErrorKind::MigrationFailed, doubles(&table)),
        }
    }
}

/// `-- no-transaction`: the ledger says that the version has begun before its first statement runs, so that an
/// interrupted one is found and never run again by itself. sqlx reads such a row as dirty, too.
fn apply_bare(writer: &mut Writer, rules: &Rules<'_>, migration: &Migration) -> Result<Outcome> {
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
    let ran = run_watched(writer.database(), migration, None).and_then(|()| ended(writer.database(), migration));
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
    fn at_end(stop: impl Into<Stop>) -> Self {
        Self { done: usize::MAX, stop: stop.into() }
    }
}

/// Without `children`, the file runs outside a transaction and looks after its foreign keys itself.
fn run_watched(db: &Connection, migration: &Migration, children: Option<Children>) -> Result<(), Stopped> {
    let not_begun = |error: Error| Stopped { done: 0, stop: error.into() };
    let ours = our_objects(db).map_err(not_begun)?;
    let to = children.unwrap_or(Children::Keep);
    let looked_after = if children.is_some() { migration.sql.as_str() } else { "" };
    let mut references = References::enforced_on(db, to, looked_after).map_err(not_begun)?;
    let run = if children.is_some() { Run::Whole } else { Run::Bare };
    let watch = Watch::install(db, run).map_err(not_begun)?;
    let guard = children.is_some().then_some(&mut references);
    script::run(db, &migration.sql, guard).map_err(|Failure { line, done, error }| {
        let stop = match (watch.verdict(), error) {
            (Some(why), _) => failed(migration, Some(line), &why).into(),
            (None, Reason::StartOver) => Stop::StartOver,
            (None, error) => statement_failed(db, migration, line, error).into(),
        };
        Stopped { done, stop }
    })?;
    if children.is_some() {
        settle(db, migration, references).map_err(Stopped::at_end)?;
    }
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

fn statement_failed(db: &Connection, migration: &Migration, line: usize, reason: Reason) -> Error {
    match reason {
        Reason::Sqlite(error) => its_fault(migration, Some(line), full::explained(db, from_sqlite(error))),
        Reason::Engine(error) => its_fault(migration, Some(line), error),
        Reason::TooComplex(why) => failed(migration, Some(line), &why),
        Reason::Refused(why) => failed(migration, Some(line), &why),
        Reason::StartOver => Stop::StartOver.into(),
    }
}

/// Faults of the storage and a busy writer stay what they are; everything else is the migration's own fault.
fn its_fault(migration: &Migration, line: Option<usize>, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Busy
        | ErrorKind::Corrupt
        | ErrorKind::DiskFull
        | ErrorKind::MemoryMax
        | ErrorKind::ReadOnlyStorage
        | ErrorKind::Io
        | ErrorKind::Missing => error,
        _ => failed(migration, line, &error).with_source(error),
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

/// The end of a file: see [`References::settle`].
fn settle(db: &Connection, migration: &Migration, mut references: References<'_>) -> Result<(), Stop> {
    let its_fault = |error| its_fault(migration, None, error);
    let lost = references.lost().map_err(its_fault)?;
    for table in &lost {
        if !has_unique_key(db, table).map_err(its_fault)? {
            return Err(Stop::Doubles(table.clone()));
        }
    }
    if !lost.is_empty() {
        return Err(Stop::StartOver);
    }
    match references.settle().map_err(its_fault)? {
        None => Ok(()),
        Some(why) => Err(failed(migration, None, &format!("FOREIGN KEY constraint failed: {why}")).into()),
    }
}

fn doubles(table: &str) -> String {
    format!(
        "rows of '{table}' are deleted together with a table that is dropped, and the file does not bring back all of them. \
         '{table}' has no unique key, so whether an INSERT adds a row or brings one back cannot be told: make the table anew \
         in one version, and insert rows into '{table}' in the next"
    )
}

fn nanoseconds(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_nanos()).unwrap_or(i64::MAX)
}
