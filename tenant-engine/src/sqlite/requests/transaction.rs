//! One transaction on one connection: begin, check the identity, run, end.
//!
//! Everything here blocks and runs on worker threads, called by `session.rs`.

use std::sync::Arc;
use std::time::Instant;

use super::commit_decision::CommitDecision;
use super::connection::SqliteTenantConnection;
use super::lease::SqliteLease;
use super::lent::RusqliteTx;
use super::{own_statement, statement};
use crate::answers::AnswerShare;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::IdentityState;
use crate::row_reader::RowReader;
use crate::row_stream::RowSender;
use crate::sqlite::error::from_sqlite;
use crate::sqlite::identity::IdentityFence;
use crate::statement::{AccessMode, AfterStatements, SessionLimits, SqlStatement};
use crate::value::{Rows, SqlValue};

const BEGIN_READ: &str = "/*fleet*/ begin deferred";
const BEGIN_WRITE: &str = "/*fleet*/ begin immediate";
const COMMIT: &str = "/*fleet*/ commit";
const ROLLBACK: &str = "/*fleet*/ rollback";

/// An open transaction for a closure on a worker: it offers the sandboxed connection, never the raw one.
#[derive(Debug)]
pub struct SqliteTx<'a> {
    conn: &'a SqliteTenantConnection,
    access: AccessMode,
    limits: &'a SessionLimits,
    answers: &'a AnswerShare,
}

impl SqliteTx<'_> {
    /// Runs one statement and returns its whole answer.
    ///
    /// # Errors
    /// Every kind under "the caller's SQL" of [`ErrorKind`], and those of the database. An error may end the
    /// transaction; then every later statement fails, and so does the commit.
    pub fn query(&self, sql: &str, params: &[SqlValue]) -> Result<Rows> {
        self.require_open()?;
        statement::execute_statement(self.conn, self.access, self.limits, self.answers.new_hold(), sql, params)
    }

    /// Runs one statement and returns the number of rows that it changed.
    ///
    /// # Errors
    /// As [`SqliteTx::query`].
    pub fn execute(&self, sql: &str, params: &[SqlValue]) -> Result<u64> {
        self.query(sql, params).map(|rows| rows.rows_affected)
    }

    /// Runs statements on the fleet's own tables, which a writing transaction makes if they are missing.
    pub(super) fn run_own_statements(&self, statements: &[SqlStatement]) -> Result<Vec<Rows>> {
        self.require_open()?;
        let ready = own_statement::prepare_own_tables(self.conn, self.access)?;
        let run = |statement: &SqlStatement| match ready {
            true => own_statement::execute_own(self.conn, self.access, self.limits, self.answers.new_hold(), statement),
            false => Ok(Rows::default()),
        };
        statements.iter().map(run).collect()
    }

    fn require_open(&self) -> Result<()> {
        if !self.conn.in_transaction() {
            return Err(already_over());
        }
        if self.conn.sandbox_guard().deadline_passed() {
            return Err(deadline_exceeded());
        }
        self.conn.sandbox_guard().check_disk()
    }

    /// Runs one reading statement, and gives each of its rows to `reader`.
    ///
    /// # Errors
    /// As [`SqliteTx::query`].
    pub(super) fn read_query(&self, statement: &SqlStatement, reader: &mut impl RowReader) -> Result<()> {
        self.require_open()?;
        let SqlStatement { sql, params } = statement;
        statement::read_statement(self.conn, self.limits, self.answers.new_hold(), (sql, params), reader)
    }

    /// Runs one statement, and gives its rows to `send` in chunks. Returns the last chunk.
    ///
    /// # Errors
    /// As [`SqliteTx::query`], and those of `send`.
    pub(super) fn stream_query(
        &self,
        statement: &SqlStatement,
        sender: &RowSender,
        send: impl Fn(Rows) -> Result<()>,
    ) -> Result<Rows> {
        let SqlStatement { sql, params } = statement;
        statement::stream_statement(self.conn, self.limits, sql, params, &|| sender.new_hold(), &send)
    }

    /// Runs code that uses `rusqlite` in this transaction. It must not wait for anything but the database.
    ///
    /// # Errors
    /// Those of `work`. The caller ends the transaction.
    pub fn with_rusqlite<T, E>(&self, work: impl FnOnce(&RusqliteTx<'_>) -> Result<T, E>) -> Result<T, E> {
        work(&RusqliteTx::new(self.conn, self.access, self.limits))
    }
}

/// The arguments of one call to a worker.
#[derive(Debug, Clone)]
pub(super) struct SqliteSessionCall {
    pub(super) access: AccessMode,
    pub(super) limits: SessionLimits,
    pub(super) answers: AnswerShare,
    pub(super) after: AfterStatements,
    /// Deadline of the statements; ending the transaction has no deadline.
    pub(super) deadline: Instant,
    /// Decides between the commit and an answer that says that nothing was done.
    pub(super) fate: Arc<CommitDecision>,
}

/// The result of a call without an error. Done: the connection is already back in the pool.
pub(super) enum HopOutcome<T, W> {
    Done(T),
    Kept(T, SqliteLease),
    /// Another process holds the lock; nothing has begun and `W` may be tried again.
    Busy(SqliteLease, W, Error),
}

/// Begins, checks the identity and continues with [`proceed_in_transaction`].
pub(super) fn begin_and_proceed<T, W>(
    mut lease: SqliteLease,
    call: SqliteSessionCall,
    work: W,
) -> Result<HopOutcome<T, W>>
where
    W: FnOnce(&SqliteTx<'_>) -> Result<T>,
{
    call.fate.begin_work();
    let begun = lease.open_with(|conn, pool| {
        conn.sandbox_guard().set_deadline(call.deadline);
        if call.access == AccessMode::Write {
            pool.may_write(conn)?;
            conn.bound_size(call.limits.storage_bytes_max).map_err(from_sqlite)?;
        }
        begin_transaction(conn, call.access, pool.identity_fence())
    });
    match begun {
        Ok(()) => proceed_in_transaction(lease, call, work),
        Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::LogMax) => {
            lease.roll_back();
            Ok(HopOutcome::Busy(lease, work, error))
        }
        Err(error) => {
            let error = lease.explain_error(error);
            lease.end_lease();
            Err(error)
        }
    }
}

/// Runs `work` in the open transaction of the lease.
pub(super) fn proceed_in_transaction<T, W>(
    mut lease: SqliteLease,
    call: SqliteSessionCall,
    work: W,
) -> Result<HopOutcome<T, W>>
where
    W: FnOnce(&SqliteTx<'_>) -> Result<T>,
{
    call.fate.begin_work();
    let ended = lease.with_connection(|conn| {
        conn.sandbox_guard().set_deadline(call.deadline);
        let stoppable = call.fate.allow_stop(conn.interrupt_handle());
        let value = work(&SqliteTx { conn, access: call.access, limits: &call.limits, answers: &call.answers })?;
        drop(stoppable);
        if call.after == AfterStatements::Commit {
            call.fate.claim_commit()?;
            commit_transaction(conn)?;
        } else if !conn.in_transaction() {
            return Err(already_over());
        }
        Ok(value)
    });
    match (ended, call.after) {
        (Ok(value), AfterStatements::Keep) => Ok(HopOutcome::Kept(value, lease)),
        (ended, _) => {
            if ended.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::DiskFull | ErrorKind::DiskLow)) {
                lease.shrink_log();
            }
            lease.end_lease();
            ended.map(HopOutcome::Done)
        }
    }
}

fn begin_transaction(conn: &SqliteTenantConnection, access: AccessMode, fence: &IdentityFence) -> Result<()> {
    let sql = match access {
        AccessMode::Read => BEGIN_READ,
        AccessMode::Write => BEGIN_WRITE,
    };
    conn.run_internal(sql).map_err(from_sqlite)?;
    let state = fence.check_row(conn.raw_connection())?;
    match (access, state) {
        (_, IdentityState::Active) | (AccessMode::Read, IdentityState::Frozen) => Ok(()),
        (_, state) => Err(Error::new(
            ErrorKind::Fenced,
            format!("the database is {state}: {}", if access == AccessMode::Read { "not served" } else { "no writes" }),
        )),
    }
}

fn commit_transaction(conn: &SqliteTenantConnection) -> Result<()> {
    if !conn.in_transaction() {
        return Err(already_over());
    }
    conn.sandbox_guard().clear_deadline();
    conn.run_internal(COMMIT).map_err(from_sqlite)
}

/// Rolls back, so that no transaction is open.
///
/// # Errors
/// SQLite's; the connection can then not be used any more.
pub(super) fn rollback_transaction(conn: &SqliteTenantConnection) -> rusqlite::Result<()> {
    conn.sandbox_guard().clear_deadline();
    if conn.in_transaction() { conn.run_internal(ROLLBACK) } else { Ok(()) }
}

fn already_over() -> Error {
    Error::new(ErrorKind::Closed, "the transaction was rolled back by an earlier error")
}

/// The error of a call that started, or got its turn, after its deadline.
pub(super) fn deadline_exceeded() -> Error {
    Error::new(ErrorKind::DeadlineExceeded, "the time limit of this call has passed")
}
