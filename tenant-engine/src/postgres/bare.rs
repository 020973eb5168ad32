//! Files marked `-- no-transaction`: their statements one by one, and how one that was cut off goes on.
//!
//! A row with `success = false` is committed before the first statement, so an interrupted version is found; sqlx reads
//! such a row as dirty, too. If every statement of the file may be run twice (building and dropping indexes
//! concurrently, mostly), the next call clears away what was left half-built and runs the file again; otherwise a human
//! must look.
//! The migrators' lock is held by the session here, so nobody replaces the identity meanwhile.

use std::time::{Duration, Instant};

use super::failure::{Sent, failed, stopped_at};
use super::ledger;
use super::migrate::{Job, Look, nanoseconds};
use super::prepare::OWNER;
use super::rules::{self, Again};
use super::script::{self, Statement};
use super::sql::{literal, text};
use super::work::{Stopped, Why, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::migration::{Applied, Migration, MigrationSet};

/// An index of a large table takes hours, and disturbs nobody meanwhile.
const STATEMENT_MAX: Duration = Duration::from_secs(12 * 3600);
/// Waiting for old transactions to end is part of a concurrent build, and blocks nobody either.
const CONCURRENT_LOCK_MAX: Duration = Duration::from_secs(3600);

/// The version whose file was cut off, unchanged since, and may simply be run again.
pub(super) fn resumable(set: &MigrationSet, applied: &[Applied]) -> Option<i64> {
    let row = applied.iter().find(|row| !row.success)?;
    let migration = set.get(row.version)?;
    let same = migration.checksum == row.checksum && !migration.transactional;
    (same && is_repeatable(&script::statements(&migration.sql))).then_some(row.version)
}

fn is_repeatable(statements: &[Statement<'_>]) -> bool {
    statements.iter().all(|statement| rules::again(statement) != Again::Unknown)
}

/// Runs one file; in the transaction of `look`, which this ends.
pub(super) async fn apply(job: &Job<'_>, work: &mut Work, migration: &Migration, look: &Look) -> Result<()> {
    rules::check(migration).map_err(|refused| failed(migration, Some(refused.line), refused.why))?;
    let resumed = look.resumes == Some(migration.version);
    work.run(begun(job.database, migration, resumed)).await?;
    let statements = script::statements(&migration.sql);
    let started = Instant::now();
    if resumed {
        clear_leftovers(work, &statements).await?;
    }
    for (done, statement) in statements.iter().enumerate() {
        if let Err(why) = run(work, job, statement, resumed).await {
            return Err(stopped(work, migration, &statements, done, why).await);
        }
    }
    let end = ledger::finish(migration, nanoseconds(started));
    work.run(format!("{end} {}", unlock(job.database))).await
}

/// The row that says it has begun, and the lock for the session; we hold it already for the transaction.
fn begun(database: &str, migration: &Migration, resumed: bool) -> String {
    let row = if resumed { String::new() } else { ledger::insert(migration, false, -1) };
    format!(
        "{row} select pg_catalog.pg_advisory_lock({}); commit; set role {OWNER}; set statement_timeout = '{}ms';",
        ledger::lock_key(database),
        STATEMENT_MAX.as_millis()
    )
}

fn unlock(database: &str) -> String {
    format!("select pg_catalog.pg_advisory_unlock({});", ledger::lock_key(database))
}

async fn run(work: &mut Work, job: &Job<'_>, statement: &Statement<'_>, resumed: bool) -> Result<(), Why> {
    let concurrent = statement.words.iter().any(|word| word == "CONCURRENTLY");
    let lock = if concurrent { CONCURRENT_LOCK_MAX } else { job.site.patience.lock };
    work.try_answers(format!("set lock_timeout = '{}ms';", lock.as_millis())).await?;
    match work.script(statement.text, STATEMENT_MAX).await {
        Ok(()) => Ok(()),
        Err(stopped) if resumed && is_done(work, statement, &stopped.why).await => Ok(()),
        Err(stopped) => Err(stopped.why),
    }
}

/// Whether an earlier run did it before it was cut off: the index of this name is on this table and valid, the one to
/// drop is gone, the value is in the type. The same words about anything else are a failure.
async fn is_done(work: &mut Work, statement: &Statement<'_>, why: &Why) -> bool {
    match (why.code().as_str(), rules::again(statement)) {
        ("42P07", Again::Index { name, table }) => is_built(work, &name, &table).await.unwrap_or(false),
        ("42704", _) => statement.begins(&["DROP", "INDEX"]),
        ("42710", _) => statement.begins(&["ALTER", "TYPE"]) && statement.words.iter().any(|word| word == "ADD"),
        _ => false,
    }
}

async fn is_built(work: &mut Work, name: &str, table: &str) -> Result<bool> {
    let sql = format!(
        "select 1::text from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
         where i.indisvalid and c.relname = {} and i.indrelid = pg_catalog.to_regclass({})",
        literal(&stored_name(name)),
        literal(table)
    );
    Ok(work.answers(sql).await?.iter().any(|rows| !rows.is_empty()))
}

/// Whether a statement that failed like this has certainly done nothing: the server said so, and it is none that commits
/// by itself on its way.
fn did_nothing(statement: &Statement<'_>, why: &Why) -> bool {
    let refused = matches!(why, Why::Sql(error) if !super::error::ends_connection(error));
    refused && !statement.begins(&["CALL"]) && !statement.begins(&["DO"])
}

/// A failed statement: nothing has happened before the first one, and a file that may be run again goes on by itself.
async fn stopped(work: &mut Work, migration: &Migration, statements: &[Statement<'_>], done: usize, why: Why) -> Error {
    let statement = &statements[done];
    let sent = Sent { migration, sql: statement.text, line: statement.line };
    let nothing_happened = done == 0 && did_nothing(statement, &why);
    let error = stopped_at(&sent, Stopped { done: 0, why });
    let repeatable = is_repeatable(statements);
    if repeatable && clear_leftovers(work, statements).await.is_err() {
        return error;
    }
    if nothing_happened {
        let _ = work.run(ledger::forget(migration)).await;
    } else if !repeatable && error.kind() == ErrorKind::MigrationFailed {
        return half_done(migration, &error);
    }
    error
}

fn half_done(migration: &Migration, error: &Error) -> Error {
    let version = migration.version;
    Error::new(
        ErrorKind::MigrationDirty,
        format!(
            "{error}; the statements before it have run, because the file is marked '-- no-transaction': finish or \
             undo version {version} by hand, then set success to true in its row of _sqlx_migrations, or delete the \
             row to have it run again"
        ),
    )
}

/// Drops the indexes of these statements that a cut-off build left invalid.
async fn clear_leftovers(work: &mut Work, statements: &[Statement<'_>]) -> Result<()> {
    for statement in statements {
        let filter = match rules::again(statement) {
            Again::Index { name, table } => format!(
                "c.relname = {} and i.indrelid = pg_catalog.to_regclass({})",
                literal(&stored_name(&name)),
                literal(&table)
            ),
            _ if statement.begins(&["REINDEX"]) => r"c.relname ~ '_cc(new|old)\d*$'".to_owned(),
            _ => continue,
        };
        for index in invalid_indexes(work, &filter).await? {
            work.run(format!("drop index concurrently if exists {index};")).await?;
        }
    }
    Ok(())
}

/// Their names, qualified and quoted by the server.
async fn invalid_indexes(work: &mut Work, filter: &str) -> Result<Vec<String>> {
    let sql = format!(
        "select pg_catalog.format('%I.%I', n.nspname, c.relname) from pg_catalog.pg_index i
         join pg_catalog.pg_class c on c.oid = i.indexrelid
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         where not i.indisvalid and c.relkind = 'i' and {filter}"
    );
    let answers = work.answers(sql).await?;
    answers.iter().flatten().map(|row| text(row, 0)).collect()
}

/// As the server keeps a name that was written like this.
fn stored_name(written: &str) -> String {
    match written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => written.to_lowercase(),
    }
}
