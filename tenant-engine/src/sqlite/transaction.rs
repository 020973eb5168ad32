//! One transaction on one connection: begin, prove whose database it is, run, end.
//!
//! Everything here blocks and runs on worker threads, called by `session.rs`.

use std::sync::Arc;
use std::time::Instant;

use super::connection::Conn;
use super::error::from_sqlite;
use super::fate::Fate;
use super::identity::Fence;
use super::lease::Lease;
use super::statement;
use crate::answers::AnswerShare;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::IdentityState;
use crate::pool::{Access, After, Limits};
use crate::value::{Rows, Value};

const BEGIN_READ: &str = "/*fleet*/ begin deferred";
const BEGIN_WRITE: &str = "/*fleet*/ begin immediate";
const COMMIT: &str = "/*fleet*/ commit";
const ROLLBACK: &str = "/*fleet*/ rollback";

/// An open transaction, as a closure on a worker sees it: the sandboxed connection, never the raw one.
#[derive(Debug)]
pub struct SqliteTx<'a> {
    conn: &'a Conn,
    access: Access,
    limits: &'a Limits,
    answers: &'a AnswerShare,
}

impl SqliteTx<'_> {
    /// Runs one statement and returns all it answers.
    ///
    /// # Errors
    /// Every kind under "the caller's SQL" of [`ErrorKind`], and those of the database. After an error the
    /// transaction may be over; then every later statement fails, and so does the commit.
    pub fn query(&self, sql: &str, params: &[Value]) -> Result<Rows> {
        if !self.conn.in_transaction() {
            return Err(already_over());
        }
        if self.conn.guard().expired() {
            return Err(deadline());
        }
        self.conn.guard().check_disk()?;
        statement::execute(self.conn, self.access, self.limits, self.answers.hold(), sql, params)
    }

    /// Runs one statement and returns how many rows it changed.
    ///
    /// # Errors
    /// As [`SqliteTx::query`].
    pub fn execute(&self, sql: &str, params: &[Value]) -> Result<u64> {
        self.query(sql, params).map(|rows| rows.rows_affected)
    }
}

/// What one hop to a worker is told.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) access: Access,
    pub(super) limits: Limits,
    pub(super) answers: AnswerShare,
    pub(super) after: After,
    /// Of the statements; ending the transaction takes as long as it takes.
    pub(super) deadline: Instant,
    /// Decides between the commit and an answer that says that nothing was done.
    pub(super) fate: Arc<Fate>,
}

/// How a hop ended when nothing is wrong. Done: the connection is back in the pool already.
pub(super) enum Outcome<T, W> {
    Done(T),
    Kept(T, Lease),
    /// Somebody else holds the lock; nothing has begun and `W` may be tried again.
    Busy(Lease, W, Error),
}

/// Begins, checks the identity and goes on with [`proceed`].
pub(super) fn begin_and_proceed<T, W>(mut lease: Lease, call: Call, work: W) -> Result<Outcome<T, W>>
where
    W: FnOnce(&SqliteTx<'_>) -> Result<T>,
{
    call.fate.begin();
    let begun = lease.open_with(|conn, pool| {
        conn.guard().set_deadline(call.deadline);
        if call.access == Access::Write {
            pool.may_write(conn)?;
        }
        begin(conn, call.access, pool.fence())
    });
    match begun {
        Ok(()) => proceed(lease, call, work),
        Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::LogMax) => {
            lease.roll_back();
            Ok(Outcome::Busy(lease, work, error))
        }
        Err(error) => {
            let error = lease.explain(error);
            lease.end();
            Err(error)
        }
    }
}

/// Runs `work` in the transaction that is open on the lease.
pub(super) fn proceed<T, W>(mut lease: Lease, call: Call, work: W) -> Result<Outcome<T, W>>
where
    W: FnOnce(&SqliteTx<'_>) -> Result<T>,
{
    call.fate.begin();
    let ended = lease.with(|conn| {
        conn.guard().set_deadline(call.deadline);
        let stoppable = call.fate.stoppable(conn.interrupt());
        let value = work(&SqliteTx { conn, access: call.access, limits: &call.limits, answers: &call.answers })?;
        drop(stoppable);
        if call.after == After::Commit {
            call.fate.commit()?;
            commit(conn)?;
        } else if !conn.in_transaction() {
            return Err(already_over());
        }
        Ok(value)
    });
    match (ended, call.after) {
        (Ok(value), After::Keep) => Ok(Outcome::Kept(value, lease)),
        (ended, _) => {
            if ended.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::DiskFull | ErrorKind::DiskLow)) {
                lease.shrink();
            }
            lease.end();
            ended.map(Outcome::Done)
        }
    }
}

fn begin(conn: &Conn, access: Access, fence: &Fence) -> Result<()> {
    let sql = match access {
        Access::Read => BEGIN_READ,
        Access::Write => BEGIN_WRITE,
    };
    conn.internal(sql).map_err(from_sqlite)?;
    let state = fence.check(conn.db())?;
    match (access, state) {
        (_, IdentityState::Active) | (Access::Read, IdentityState::Frozen) => Ok(()),
        (_, state) => Err(Error::new(
            ErrorKind::Fenced,
            format!("the database is {state}: {}", if access == Access::Read { "not served" } else { "no writes" }),
        )),
    }
}

fn commit(conn: &Conn) -> Result<()> {
    if !conn.in_transaction() {
        return Err(already_over());
    }
    conn.guard().clear_deadline();
    conn.internal(COMMIT).map_err(from_sqlite)
}

/// Leaves no transaction open.
///
/// # Errors
/// SQLite's; the connection is then of no more use.
pub(super) fn rollback(conn: &Conn) -> rusqlite::Result<()> {
    conn.guard().clear_deadline();
    if conn.in_transaction() { conn.internal(ROLLBACK) } else { Ok(()) }
}

fn already_over() -> Error {
    Error::new(ErrorKind::Closed, "the transaction was rolled back by an earlier error")
}

/// The error of a call that came, or came to its turn, too late.
pub(super) fn deadline() -> Error {
    Error::new(ErrorKind::DeadlineExceeded, "the time allowed for this is over")
}
