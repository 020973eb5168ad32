//! Runs files marked `-- no-transaction`: their statements one by one, and the recovery of an interrupted file.
//!
//! A row with `success = false` is committed before the first statement, so that an interrupted version is found. sqlx
//! treats such a row as dirty, too. If every statement may run twice, as building an index concurrently may, the next
//! call removes the half-built indexes and runs the file again. Otherwise a person must check the database. The session
//! holds the migrators' lock meanwhile, so that the identity cannot be replaced.

use std::time::{Duration, Instant};

use super::apply::{LedgerView, MigrationJob, elapsed_nanoseconds};
use super::failure::{SentMigration, migration_failed, stopped_at};
use super::ledger;
use super::rules::{self, RerunEffect};
use super::script::{self, ScriptStatement};
use crate::error::{Error, ErrorKind, Result};
use crate::migration::{AppliedMigration, Migration, MigrationSet};
use crate::postgres::error::AdminConnectionError;
use crate::postgres::migration_lock::lock_key;
use crate::postgres::servers::admin_connection::{AdminConnection, StoppedScript};
use crate::postgres::servers::prepare::OWNER;
use crate::postgres::sql::{sql_literal, text_column};

/// An index of a large table takes hours, and blocks no other session meanwhile.
const STATEMENT_MAX: Duration = Duration::from_secs(12 * 3600);
/// A concurrent build waits for old transactions to end, and that blocks no other session either.
const CONCURRENT_LOCK_MAX: Duration = Duration::from_secs(3600);

/// The version whose file was interrupted, has not changed since, and may simply be run again.
pub(super) fn resumable_version(set: &MigrationSet, applied: &[AppliedMigration]) -> Option<i64> {
    let row = applied.iter().find(|row| !row.success)?;
    let migration = set.get(row.version)?;
    let same = migration.checksum == row.checksum && !migration.transactional;
    (same && is_repeatable(&script::split_statements(&migration.sql))).then_some(row.version)
}

fn is_repeatable(statements: &[ScriptStatement<'_>]) -> bool {
    statements.iter().all(|statement| rules::rerun_effect(statement) != RerunEffect::Unknown)
}

/// Runs one file. It ends the transaction that the caller began.
pub(super) async fn apply_without_transaction(
    job: &MigrationJob<'_>,
    work: &mut AdminConnection,
    migration: &Migration,
    look: &LedgerView,
) -> Result<()> {
    rules::check_migration(migration)
        .map_err(|refused| migration_failed(migration, Some(refused.line), &refused.why))?;
    let resumed = look.resumes == Some(migration.version);
    work.run_sql(begin_sql(job.database, migration, resumed)).await?;
    let statements = script::split_statements(&migration.sql);
    let started = Instant::now();
    if resumed {
        clear_leftovers(work, &statements).await?;
    }
    for (done, statement) in statements.iter().enumerate() {
        if let Err(why) = run_statement(work, job, statement, resumed).await {
            return Err(statement_stopped(work, migration, &statements, done, why).await);
        }
    }
    let end = ledger::finish_row(migration, elapsed_nanoseconds(started));
    work.run_sql(format!("{end} {}", unlock_sql(job.database))).await
}

/// SQL for the row that says that the version has begun, and for the lock of the session. The transaction already holds
/// that lock.
fn begin_sql(database: &str, migration: &Migration, resumed: bool) -> String {
    let row = if resumed { String::new() } else { ledger::insert_row(migration, false, -1) };
    format!(
        "{row} select pg_catalog.pg_advisory_lock({}); commit; set role {OWNER}; set statement_timeout = '{}ms';",
        lock_key(database),
        STATEMENT_MAX.as_millis()
    )
}

fn unlock_sql(database: &str) -> String {
    format!("select pg_catalog.pg_advisory_unlock({});", lock_key(database))
}

async fn run_statement(
    work: &mut AdminConnection,
    job: &MigrationJob<'_>,
    statement: &ScriptStatement<'_>,
    resumed: bool,
) -> Result<(), AdminConnectionError> {
    let concurrent = statement.words.iter().any(|word| word == "CONCURRENTLY");
    let lock = if concurrent { CONCURRENT_LOCK_MAX } else { job.site.patience.lock };
    work.try_answers(format!("set lock_timeout = '{}ms';", lock.as_millis())).await?;
    match work.run_script(statement.text, STATEMENT_MAX).await {
        Ok(()) => Ok(()),
        Err(stopped) if resumed && is_done(work, statement, &stopped.why).await => Ok(()),
        Err(stopped) => Err(stopped.why),
    }
}

/// Whether an earlier, interrupted run already did this: the index of this name is valid and on this table, the index
/// to drop is gone, the value is in the type. For any other object, an equal message is a failure.
async fn is_done(work: &mut AdminConnection, statement: &ScriptStatement<'_>, why: &AdminConnectionError) -> bool {
    match (why.sqlstate_code().as_str(), rules::rerun_effect(statement)) {
        ("42P07", RerunEffect::Index { name, table }) => is_built(work, &name, &table).await.unwrap_or(false),
        ("42704", _) => statement.begins_with(&["DROP", "INDEX"]),
        ("42710", _) => statement.begins_with(&["ALTER", "TYPE"]) && statement.words.iter().any(|word| word == "ADD"),
        _ => false,
    }
}

async fn is_built(work: &mut AdminConnection, name: &str, table: &str) -> Result<bool> {
    let sql = format!(
        "select 1::text from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
         where i.indisvalid and c.relname = {} and i.indrelid = pg_catalog.to_regclass({})",
        sql_literal(&stored_name(name)),
        sql_literal(table)
    );
    Ok(work.fetch_answers(sql).await?.iter().any(|rows| !rows.is_empty()))
}

/// Whether a statement that failed in this way certainly changed nothing: the server reported the error, and the
/// statement does not commit by itself on its way.
fn did_nothing(statement: &ScriptStatement<'_>, why: &AdminConnectionError) -> bool {
    let refused = matches!(why, AdminConnectionError::Sql(error) if !crate::postgres::error::ends_connection(error));
    refused && !statement.begins_with(&["CALL"]) && !statement.begins_with(&["DO"])
}

/// Handles a failed statement. Nothing has changed before the first statement, and a file that may be run again is
/// resumed by itself.
async fn statement_stopped(
    work: &mut AdminConnection,
    migration: &Migration,
    statements: &[ScriptStatement<'_>],
    done: usize,
    why: AdminConnectionError,
) -> Error {
    let statement = &statements[done];
    let sent = SentMigration { migration, sql: statement.text, line: statement.line };
    let nothing_happened = done == 0 && did_nothing(statement, &why);
    let error = stopped_at(&sent, StoppedScript { done: 0, why });
    let repeatable = is_repeatable(statements);
    if repeatable && clear_leftovers(work, statements).await.is_err() {
        return error;
    }
    if nothing_happened {
        let _ = work.run_sql(ledger::forget_row(migration)).await;
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
             undo version {version} by hand, then set success to true in its row of {}, or delete the \
             row to have it run again",
            migration.ledger
        ),
    )
}

/// Drops the indexes of these statements that an interrupted build left invalid.
async fn clear_leftovers(work: &mut AdminConnection, statements: &[ScriptStatement<'_>]) -> Result<()> {
    for statement in statements {
        let filter = match rules::rerun_effect(statement) {
            RerunEffect::Index { name, table } => format!(
                "c.relname = {} and i.indrelid = pg_catalog.to_regclass({})",
                sql_literal(&stored_name(&name)),
                sql_literal(&table)
            ),
            _ if statement.begins_with(&["REINDEX"]) => r"c.relname ~ '_cc(new|old)\d*$'".to_owned(),
            _ => continue,
        };
        for index in invalid_indexes(work, &filter).await? {
            work.run_sql(format!("drop index concurrently if exists {index};")).await?;
        }
    }
    Ok(())
}

/// The names of invalid indexes, qualified and quoted by the server.
async fn invalid_indexes(work: &mut AdminConnection, filter: &str) -> Result<Vec<String>> {
    let sql = format!(
        "select pg_catalog.format('%I.%I', n.nspname, c.relname) from pg_catalog.pg_index i
         join pg_catalog.pg_class c on c.oid = i.indexrelid
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         where not i.indisvalid and c.relkind = 'i' and {filter}"
    );
    let answers = work.fetch_answers(sql).await?;
    answers.iter().flatten().map(|row| text_column(row, 0)).collect()
}

/// The name as the server stores it, from its spelling in the file.
fn stored_name(written: &str) -> String {
    match written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => written.to_lowercase(),
    }
}
