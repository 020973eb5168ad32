//! The verb `migrate`: what is pending, one transaction per version, on one connection of the login that migrates this
//! database (`migrator.rs`).
//!
//! A version costs two round trips: its text as it is in the file, and its ledger row with the commit and the look for
//! the next one. [`look`] begins a transaction and sees lock, identity and ledger in it; [`apply`] runs the text;
//! `bare.rs` runs the files that want no transaction. Called for a tenant's database, and by `template.rs` for a
//! database that is nobody's yet.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::failure::{Sent, failed, stopped_at};
use super::prepare::OWNER;
use super::site::Site;
use super::sql::text;
use super::work::{Stopped, Why, Work};
use super::{PostgresEngine, bare, identity, layout, ledger, migrator, rules, script};
use crate::engine::Migrated;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Expected;
use crate::migration::{Applied, Migration, MigrationSet, pending_to};
use crate::placement::Placement;

/// See [`crate::Engine::migrate`].
pub(super) async fn migrate(
    engine: &PostgresEngine,
    at: &Placement,
    expected: &Expected,
    set: &MigrationSet,
    target: Option<i64>,
) -> Result<Migrated> {
    let (site, database) = engine.site(at)?;
    let _slot = site.slot().await?;
    bring(&Job { site: &site, database, expected: Some(expected), set, target }).await
}

/// What is to be migrated, and how far.
pub(super) struct Job<'a> {
    pub(super) site: &'a Site,
    pub(super) database: &'a str,
    /// `None` for a template, which is nobody's.
    pub(super) expected: Option<&'a Expected>,
    pub(super) set: &'a MigrationSet,
    pub(super) target: Option<i64>,
}

/// Applies what is pending.
pub(super) async fn bring(job: &Job<'_>) -> Result<Migrated> {
    let mut work = migrator::enter(job.site, job.database).await?;
    let outcome = match run(job, &mut work).await {
        // A ledger that somebody dropped, or that sqlx's command line made anew.
        Err(error) if error.kind() == ErrorKind::ServerPrivilege => {
            repair_ledger(job).await?;
            work.run("rollback").await?;
            run(job, &mut work).await
        }
        outcome => outcome,
    };
    leave(job, work, &outcome).await;
    outcome
}

/// Whoever comes next must not find our locks, which would fall some milliseconds after the connection is closed. Of a
/// migration that was committed nothing is left.
async fn leave(job: &Job<'_>, mut work: Work, outcome: &Result<Migrated>) {
    let committed = outcome.as_ref().is_ok_and(|migrated| !migrated.applied.is_empty());
    let lost = outcome
        .as_ref()
        .is_err_and(|error| matches!(error.kind(), ErrorKind::ConnectionLost | ErrorKind::ServerUnreachable));
    if !committed && !lost {
        let _ = work.run("rollback; select pg_catalog.pg_advisory_unlock_all();").await;
    }
    if !lost {
        migrator::leave(job.site, job.database, work).await;
    }
}

async fn run(job: &Job<'_>, work: &mut Work) -> Result<Migrated> {
    let mut look = begin(job, work).await?;
    let from_version = ledger::newest(&look.finished());
    let mut applied = Vec::new();
    loop {
        let todo = pending_to(job.set, &look.finished(), job.target)?;
        let Some(migration) = todo.first() else { break };
        if migration.transactional {
            apply(job, work, migration, &look, todo.len() == 1).await?.store(&mut look);
        } else {
            bare::apply(job, work, migration, &look).await?;
            if todo.len() > 1 {
                look = begin(job, work).await?;
            }
        }
        applied.push(migration.version);
        if todo.len() == 1 {
            break;
        }
    }
    let to_version = applied.iter().copied().max().max(from_version);
    Ok(Migrated { from_version, to_version, applied })
}

/// What a transaction that has begun sees.
pub(super) struct Look {
    /// Of the transaction, to know it again.
    id: String,
    applied: Vec<Applied>,
    /// A version begun outside a transaction, cut off, that can go on by itself.
    pub(super) resumes: Option<i64>,
}

impl Look {
    /// The ledger without the version that is to go on.
    fn finished(&self) -> Vec<Applied> {
        self.applied.iter().filter(|row| Some(row.version) != self.resumes).cloned().collect()
    }
}

/// What came after a version.
enum Next {
    Look(Look),
    /// It was the last one.
    Done,
}

impl Next {
    fn store(self, look: &mut Look) {
        if let Self::Look(next) = self {
            *look = next;
        }
    }
}

/// Begins a transaction that holds the migrators' lock and sees identity and ledger. The lock is tried, not waited
/// for: whoever has it is migrating, or replacing the identity. What an earlier file set for the session is undone.
fn look(database: &str) -> String {
    format!(
        "begin;
         reset all;
         set local role {OWNER};
         select pg_catalog.pg_try_advisory_xact_lock({}), pg_catalog.pg_current_xact_id();
         {};
         {};",
        ledger::lock_key(database),
        identity::READ,
        ledger::READ
    )
}

async fn begin(job: &Job<'_>, work: &mut Work) -> Result<Look> {
    let answers = work.try_answers(look(job.database)).await.map_err(without_layout)?;
    seen(job, &answers)
}

/// The answers to [`look`].
fn seen(job: &Job<'_>, answers: &[Vec<sqlx::postgres::PgRow>]) -> Result<Look> {
    let [_, _, _, ours, identity, ledger] = answers else {
        return Err(Error::new(ErrorKind::Internal, "a transaction of a migration answered something else"));
    };
    let ours = |column| ours.first().map_or_else(|| Ok(String::new()), |row| text(row, column));
    if let Some(expected) = job.expected {
        expected.check(&identity::from_rows(identity)?)?;
    }
    if ours(0)? != "t" {
        return Err(Error::new(ErrorKind::Busy, "another migration of this database is running"));
    }
    let applied = ledger::from_rows(ledger)?;
    let resumes = bare::resumable(job.set, &applied);
    Ok(Look { id: ours(1)?, applied, resumes })
}

/// Runs one version in the transaction that has begun, writes its row and commits; then looks for the next one, unless
/// this is the last.
async fn apply(job: &Job<'_>, work: &mut Work, migration: &Migration, look: &Look, last: bool) -> Result<Next> {
    rules::check(migration).map_err(|refused| failed(migration, Some(refused.line), refused.why))?;
    let started = Instant::now();
    let whole = statement_max(job, migration);
    let text = rules::effective(&migration.sql);
    let sent = Sent { migration, sql: &text, line: 1 };
    work.script(sent.sql, whole).await.map_err(|stopped| stopped_at(&sent, stopped))?;
    let mut end = still_ours(&look.id);
    end.push_str(if job.site.sees_all_rows.load(Ordering::Relaxed) { "select 0;" } else { NOT_FORCED });
    end.push_str(&ledger::insert(migration, true, nanoseconds(started)));
    end.push_str("commit;");
    if !last {
        end.push_str(&self::look(job.database));
    }
    let answers = work.try_answers(end).await.map_err(|why| at_the_end(&sent, why))?;
    // Both guards, the row and the commit answer, too.
    if last { Ok(Next::Done) } else { seen(job, &answers[4..]).map(Next::Look) }
}

/// Fails with the name of a table that this transaction made subject to row level security for its owner, too: the
/// role that dumps could not read it. A role of maintenance that no policy holds for may go on.
const NOT_FORCED: &str = "
    select coalesce(pg_catalog.max(c.oid::pg_catalog.regclass::text)::integer, 0) from pg_catalog.pg_class c
    where c.relforcerowsecurity and c.relrowsecurity and c.xmin = pg_catalog.pg_current_xact_id()::pg_catalog.xid;";

/// Fails, and with it everything after it, when the transaction is another one: the file ended ours in a way that
/// `rules.rs` did not see.
fn still_ours(id: &str) -> String {
    format!("select 1 / (pg_catalog.pg_current_xact_id()::text = '{id}')::int;")
}

/// The server's message names the table.
fn forced(why: &Why) -> String {
    let message = match why {
        Why::Sql(error) => error.as_database_error().map_or("", |error| error.message()),
        Why::Silent(_) => "",
    };
    let table = message.split_once(": ").map_or("a table", |(_, table)| table.trim_matches('"'));
    format!(
        "{table} forces row level security on its owner, so it could not be backed up: leave out 'force' (the logins of \
         requests are not its owner, policies hold for them anyway)"
    )
}

fn at_the_end(sent: &Sent<'_>, why: Why) -> Error {
    match why.code().as_str() {
        "22012" => failed(sent.migration, None, "the file ended its own transaction; what it changed may be committed"),
        "22P02" => failed(sent.migration, None, &forced(&why)),
        _ => stopped_at(&Sent { sql: "", ..*sent }, Stopped { done: 0, why }),
    }
}

/// A script of many statements may take this long as a whole.
fn statement_max(job: &Job<'_>, migration: &Migration) -> Duration {
    let statements = script::statements(&migration.sql).len().max(1);
    job.site.patience.statement.saturating_mul(u32::try_from(statements).unwrap_or(u32::MAX))
}

pub(super) fn nanoseconds(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_nanos()).unwrap_or(i64::MAX)
}

/// `undefined_table`: identity or ledger are gone, and only the maintenance role can say which.
fn without_layout(why: Why) -> Error {
    match why.code().as_str() {
        "42P01" => Error::new(ErrorKind::ServerPrivilege, "the database lacks a table of the fleet's own"),
        _ => why.into_ours(),
    }
}

/// As the maintenance role: the identity decides first, then the ledger is made or its rights are given again.
async fn repair_ledger(job: &Job<'_>) -> Result<()> {
    let mut work = job.site.enter(job.database).await?;
    if let Some(expected) = job.expected {
        identity::check(work.connection(), expected).await?;
    }
    work.run(layout::ledger_again()).await?;
    work.close().await;
    Ok(())
}
