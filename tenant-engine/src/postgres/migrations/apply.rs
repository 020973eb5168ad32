//! Applies the pending versions to one database: one transaction per version, on one connection of the login that
//! migrates this database (`servers/migrator.rs`).
//!
//! A version costs two round trips. The first sends its text as it is in the file. The second sends its ledger row with
//! the commit, and begins the next transaction. [`view_sql`] begins a transaction and reads lock, identity and ledger
//! in it; [`apply_version`] runs the text; `no_transaction.rs` runs the files that must run outside a transaction.
//! Called for a tenant's database, and by `actions/template.rs` for a database that has no tenant.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::failure::{SentMigration, migration_failed, stopped_at};
use super::{layout, ledger, no_transaction, rules, script};
use crate::engine::MigrationOutcome;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::ExpectedIdentity;
use crate::migration::{AppliedMigration, Migration, MigrationSet, pending_to};
use crate::postgres::error::AdminConnectionError;
use crate::postgres::identity;
use crate::postgres::migration_lock::lock_key;
use crate::postgres::servers::admin_connection::{AdminConnection, StoppedScript};
use crate::postgres::servers::migrator;
use crate::postgres::servers::prepare::OWNER;
use crate::postgres::servers::server_state::PostgresServerState;
use crate::postgres::sql::text_column;

/// The database to migrate, and the version to stop at.
pub(in crate::postgres) struct MigrationJob<'a> {
    pub(in crate::postgres) site: &'a PostgresServerState,
    pub(in crate::postgres) database: &'a str,
    /// `None` for a template, which has no tenant.
    pub(in crate::postgres) expected: Option<&'a ExpectedIdentity>,
    pub(in crate::postgres) set: &'a MigrationSet,
    pub(in crate::postgres) target: Option<i64>,
}

/// Applies the pending versions.
pub(in crate::postgres) async fn apply_pending(job: &MigrationJob<'_>) -> Result<MigrationOutcome> {
    let mut work = migrator::enter_as_migrator(job.site, job.database).await?;
    let outcome = match run_migrations(job, &mut work).await {
        // The ledger was dropped, or sqlx's command line made it again.
        Err(error) if error.kind() == ErrorKind::ServerPrivilege => {
            repair_ledger(job).await?;
            work.run_sql("rollback").await?;
            run_migrations(job, &mut work).await
        }
        outcome => outcome,
    };
    leave_connection(job, work, &outcome).await;
    outcome
}

/// Rolls back and releases the locks first, because closing a connection releases them only some milliseconds later,
/// and the next migration must not find them. A committed migration holds no locks.
async fn leave_connection(job: &MigrationJob<'_>, mut work: AdminConnection, outcome: &Result<MigrationOutcome>) {
    let committed = outcome.as_ref().is_ok_and(|migrated| !migrated.applied.is_empty());
    let lost = outcome
        .as_ref()
        .is_err_and(|error| matches!(error.kind(), ErrorKind::ConnectionLost | ErrorKind::ServerUnreachable));
    if !committed && !lost {
        let _ = work.run_sql("rollback; select pg_catalog.pg_advisory_unlock_all();").await;
    }
    if !lost {
        migrator::leave_and_dismiss(job.site, job.database, work).await;
    }
}

async fn run_migrations(job: &MigrationJob<'_>, work: &mut AdminConnection) -> Result<MigrationOutcome> {
    let mut look = begin_view(job, work).await?;
    let from_version = ledger::newest_version(&look.finished_versions());
    let mut applied = Vec::new();
    loop {
        let todo = pending_to(job.set, &look.finished_versions(), job.target)?;
        let Some(migration) = todo.first() else { break };
        if migration.transactional {
            apply_version(job, work, migration, &look, todo.len() == 1).await?.store_view(&mut look);
        } else {
            no_transaction::apply_without_transaction(job, work, migration, &look).await?;
            if todo.len() > 1 {
                look = begin_view(job, work).await?;
            }
        }
        applied.push(migration.version);
        if todo.len() == 1 {
            break;
        }
    }
    let to_version = applied.iter().copied().max().max(from_version);
    Ok(MigrationOutcome { from_version, to_version, applied, size_bytes: None })
}

/// The state that a new transaction reads.
pub(super) struct LedgerView {
    /// Id of the transaction, to recognize it later.
    id: String,
    applied: Vec<AppliedMigration>,
    /// A version that began outside a transaction, was interrupted, and can continue without a person.
    pub(super) resumes: Option<i64>,
}

impl LedgerView {
    /// The ledger without the version that will continue.
    fn finished_versions(&self) -> Vec<AppliedMigration> {
        self.applied.iter().filter(|row| Some(row.version) != self.resumes).cloned().collect()
    }
}

/// The state after a version was applied.
enum NextVersion {
    Look(LedgerView),
    /// It was the last version.
    Done,
}

impl NextVersion {
    fn store_view(self, look: &mut LedgerView) {
        if let Self::Look(next) = self {
            *look = next;
        }
    }
}

/// SQL that begins a transaction, takes the migrators' lock, and reads identity and ledger. It tries the lock without
/// waiting: its holder is migrating, or replacing the identity. It also resets the session settings of an earlier file.
fn view_sql(job: &MigrationJob<'_>) -> String {
    format!(
        "begin;
         reset all;
         set local role {OWNER};
         select pg_catalog.pg_try_advisory_xact_lock({}), pg_catalog.pg_current_xact_id();
         {};
         {};
         {};",
        lock_key(job.database),
        identity::READ,
        ledger::RECORD,
        ledger::read(job.set.ledger())
    )
}

async fn begin_view(job: &MigrationJob<'_>, work: &mut AdminConnection) -> Result<LedgerView> {
    let answers = work.try_answers(view_sql(job)).await.map_err(without_layout)?;
    parse_view(job, &answers)
}

/// Parses the answers to [`view_sql`].
fn parse_view(job: &MigrationJob<'_>, answers: &[Vec<sqlx::postgres::PgRow>]) -> Result<LedgerView> {
    let [_, _, _, ours, identity, record, ledger] = answers else {
        return Err(Error::new(ErrorKind::Internal, "a transaction of a migration answered something else"));
    };
    let ours = |column| ours.first().map_or_else(|| Ok(String::new()), |row| text_column(row, column));
    if let Some(expected) = job.expected {
        expected.check_identity(&identity::from_rows(identity)?)?;
    }
    if ours(0)? != "t" {
        return Err(Error::new(ErrorKind::Busy, "another migration of this database is running"));
    }
    job.set.require_ledger(&ledger::recorded(record)?)?;
    let applied = ledger::from_rows(ledger)?;
    let resumes = no_transaction::resumable_version(job.set, &applied);
    Ok(LedgerView { id: ours(1)?, applied, resumes })
}

/// Runs one version in the open transaction, writes its row and commits. Then it begins the next transaction, unless
/// this is the last version.
async fn apply_version(
    job: &MigrationJob<'_>,
    work: &mut AdminConnection,
    migration: &Migration,
    look: &LedgerView,
    last: bool,
) -> Result<NextVersion> {
    rules::check_migration(migration)
        .map_err(|refused| migration_failed(migration, Some(refused.line), &refused.why))?;
    let started = Instant::now();
    let whole = statement_max(job, migration);
    let text = rules::effective_text(&migration.sql);
    let sent = SentMigration { migration, sql: &text, line: 1 };
    work.run_script(sent.sql, whole).await.map_err(|stopped| stopped_at(&sent, stopped))?;
    let mut end = still_ours(&look.id);
    end.push_str(if job.site.sees_all_rows.load(Ordering::Relaxed) { "select 0;" } else { NOT_FORCED });
    end.push_str(&ledger::insert_row(migration, true, elapsed_nanoseconds(started)));
    end.push_str("commit;");
    if !last {
        end.push_str(&self::view_sql(job));
    }
    let answers = work.try_answers(end).await.map_err(|why| at_the_end(&sent, why))?;
    // Both guards, the row and the commit have answers, too.
    if last { Ok(NextVersion::Done) } else { parse_view(job, &answers[4..]).map(NextVersion::Look) }
}

/// Fails with the name of a table for which this transaction forced row level security on its owner: the role for dumps
/// could not read it. A maintenance role that bypasses policies may continue.
const NOT_FORCED: &str = "
    select coalesce(pg_catalog.max(c.oid::pg_catalog.regclass::text)::integer, 0) from pg_catalog.pg_class c
    where c.relforcerowsecurity and c.relrowsecurity and c.xmin = pg_catalog.pg_current_xact_id()::pg_catalog.xid;";

/// Fails, with everything after it, when the transaction is a different one: the file ended the transaction in a way
/// that `rules.rs` did not detect.
fn still_ours(id: &str) -> String {
    format!("select 1 / (pg_catalog.pg_current_xact_id()::text = '{id}')::int;")
}

/// The error for such a table; the server's message names it.
fn forced_row_security(why: &AdminConnectionError) -> String {
    let message = match why {
        AdminConnectionError::Sql(error) => error.as_database_error().map_or("", |error| error.message()),
        AdminConnectionError::Silent(_) => "",
    };
    let table = message.split_once(": ").map_or("a table", |(_, table)| table.trim_matches('"'));
    format!(
        "{table} forces row level security on its owner, so it could not be backed up: leave out 'force' (the logins of \
         requests are not its owner, policies hold for them anyway)"
    )
}

fn at_the_end(sent: &SentMigration<'_>, why: AdminConnectionError) -> Error {
    match why.sqlstate_code().as_str() {
        "22012" => migration_failed(
            sent.migration,
            None,
            "the file ended its own transaction; what it changed may be committed",
        ),
        "22P02" => migration_failed(sent.migration, None, &forced_row_security(&why)),
        _ => stopped_at(&SentMigration { sql: "", ..*sent }, StoppedScript { done: 0, why }),
    }
}

/// The longest time that a script of many statements may take as a whole.
fn statement_max(job: &MigrationJob<'_>, migration: &Migration) -> Duration {
    let statements = script::split_statements(&migration.sql).len().max(1);
    job.site.patience.statement.saturating_mul(u32::try_from(statements).unwrap_or(u32::MAX))
}

pub(super) fn elapsed_nanoseconds(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_nanos()).unwrap_or(i64::MAX)
}

/// `undefined_table`: identity or ledger is missing, and only the maintenance role can find out which.
fn without_layout(why: AdminConnectionError) -> Error {
    match why.sqlstate_code().as_str() {
        "42P01" => Error::new(ErrorKind::ServerPrivilege, "the database lacks a table of the fleet's own"),
        _ => why.into_ours(),
    }
}

/// Works as the maintenance role: checks the identity first, then creates the ledger or grants its rights again.
async fn repair_ledger(job: &MigrationJob<'_>) -> Result<()> {
    let mut work = job.site.open_connection(job.database).await?;
    if let Some(expected) = job.expected {
        identity::check_identity(work.driver_connection(), expected).await?;
    }
    let answers = work.fetch_answers(format!("{};", ledger::RECORD)).await?;
    job.set.require_ledger(&ledger::recorded(answers.first().map_or(&[], Vec::as_slice))?)?;
    work.run_sql(layout::ledger_again(job.set.ledger())).await?;
    work.close().await;
    Ok(())
}
