//! [`PostgresLentTx`]: an open transaction that an application uses through `sqlx` itself.
//!
//! It is begun and ended here, so that it is a checked transaction: the connection is of the expected database, and a
//! commit succeeds only if this very transaction is still open. The message of the commit also resets the session.
//! Without a commit, `lease.rs` resets it in the background, or closes it. So nothing reaches the next borrower.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use sqlx::{Connection as _, PgConnection};

use super::connection::{SessionState, SessionTimeouts};
use super::counters::CloseReason;
use super::lease::{ConnectionPhase, PostgresLease};
use super::pool::PostgresPoolInner;
use super::transaction::{ROLLBACK_MAX, deadline_exceeded};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::error::{ends_connection, from_sqlx, sqlstate_code};
use crate::statement::{AccessMode, SessionLimits};

/// Begins the transaction and marks it with a setting that ends with it. A write also fails here, with a division by
/// zero, if the login may not write: a fence revokes that right before it ends the sessions.
const BEGIN_READ: &str = "begin isolation level repeatable read read only; set local fleet.lent = 'yes'";
const BEGIN_WRITE: &str = "begin; set local fleet.lent = 'yes'; \
    select 1 / coalesce(pg_catalog.pg_has_role(pg_catalog.to_regrole('fleet_write'), 'usage'), true)::int";

/// `division_by_zero` and `in_failed_sql_transaction`.
const DIVISION_BY_ZERO: &str = "22012";
const TRANSACTION_FAILED: &str = "25P02";

/// A call is repeated on a new connection if the session had ended before anything was sent.
const REPEATS_MAX: u32 = 3;

/// An open transaction on one connection. It lends the driver's connection by [`Deref`]. Dropped without a commit, it
/// rolls back.
#[derive(Debug)]
pub struct PostgresLentTx {
    lease: PostgresLease,
    until: Instant,
}

impl Deref for PostgresLentTx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.lease.lent_connection()
    }
}

impl DerefMut for PostgresLentTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.lease.lent_connection_mut()
    }
}

impl PostgresLentTx {
    pub(super) async fn begin(
        pool: &Arc<PostgresPoolInner>,
        access: AccessMode,
        limits: SessionLimits,
    ) -> Result<Self> {
        let now = Instant::now();
        let (deadline, until) = (now + limits.statement_timeout, now + limits.transaction_timeout);
        let timeouts = SessionTimeouts::from_limits(&limits);
        pool.connect_target().timeouts.set(timeouts);
        let mut repeats = 0;
        loop {
            let mut lease = pool.check_out(access, deadline).await?;
            let begun = tokio::time::timeout_at(deadline.into(), begin_on(&mut lease, access, timeouts)).await;
            let error = match begun {
                Ok(Ok(())) => return Ok(Self { lease, until }),
                Ok(Err(error)) => error,
                Err(_) => {
                    lease.close(CloseReason::TimedOut);
                    return Err(deadline_exceeded());
                }
            };
            if !ends_connection(&error) {
                return Err(begin_error(error));
            }
            // Nothing was sent that could have an effect, so another connection may try.
            lease.close(CloseReason::Broken);
            pool.forget_idle(access);
            repeats += 1;
            if repeats > REPEATS_MAX {
                return Err(begin_error(error));
            }
        }
    }

    /// Makes all changes durable and visible at once, and resets the session.
    ///
    /// # Errors
    /// When the commit fails, the time of the transaction is over, or the application's own SQL has ended the
    /// transaction. Everything that the transaction still held is then rolled back.
    pub async fn commit(mut self) -> Result<()> {
        if Instant::now() >= self.until {
            return Err(deadline_exceeded());
        }
        let committed = self.lease.use_connection(ConnectionPhase::Lent).commit_and_reset();
        match tokio::time::timeout_at(self.until.into(), committed).await {
            Ok(Ok(SessionState::Clean)) => {
                self.lease.mark_phase(ConnectionPhase::Clean);
                Ok(())
            }
            Ok(Ok(SessionState::Unknown)) => {
                self.lease.close(CloseReason::Broken);
                Ok(())
            }
            Ok(Err(error)) if ends_connection(&error) => {
                self.lease.close(CloseReason::Broken);
                let message = "the connection broke during the commit: the changes may or may not have been made";
                Err(Error::new(ErrorKind::ConnectionLost, message).with_source(error))
            }
            Ok(Err(error)) => Err(commit_error(error)),
            Err(_) => {
                self.lease.close(CloseReason::TimedOut);
                let message = "the server did not answer in time: the changes may or may not have been made";
                Err(Error::new(ErrorKind::ConnectionLost, message))
            }
        }
    }

    /// Rolls back all changes and waits for the end of the rollback.
    ///
    /// # Errors
    /// When the connection is lost; the server then rolls back by itself.
    pub async fn rollback(mut self) -> Result<()> {
        let connection = self.lease.use_connection(ConnectionPhase::Lent).driver_connection();
        let ended = sqlx::raw_sql("rollback").execute(connection);
        match tokio::time::timeout(ROLLBACK_MAX, ended).await {
            Ok(ended) => ended.map(drop).map_err(from_sqlx),
            Err(_) => {
                self.lease.close(CloseReason::TimedOut);
                let message = "the server did not answer in time; it rolls the transaction back";
                Err(Error::new(ErrorKind::ServerUnreachable, message))
            }
        }
    }
}

/// For an answer that may be left unread.
impl PostgresLentTx {
    /// The connection, to read an answer with. If the transaction is dropped before [`PostgresLentTx::end_reading`], the
    /// connection is closed: a reset would first read the rest of the answer, of any length.
    pub(super) fn begin_reading(&mut self) -> &mut PgConnection {
        self.lease.use_connection(ConnectionPhase::Statement).driver_connection()
    }

    /// The answer was read to its end, or there is none.
    pub(super) fn end_reading(&mut self) {
        self.lease.mark_phase(ConnectionPhase::Lent);
    }
}

async fn begin_on(lease: &mut PostgresLease, access: AccessMode, timeouts: SessionTimeouts) -> Result<(), sqlx::Error> {
    lease.use_connection(ConnectionPhase::Setting).set_timeouts(timeouts).await?;
    let begin = if access == AccessMode::Read { BEGIN_READ } else { BEGIN_WRITE };
    let connection = lease.use_connection(ConnectionPhase::Lent).driver_connection();
    if connection.is_in_transaction() {
        // The driver still counts the last lent transaction, so it begins this one as any other statement.
        return sqlx::raw_sql(begin).execute(connection).await.map(drop);
    }
    // The driver must count a transaction, so that `begin` of the application makes a savepoint. Its guard is forgotten:
    // this module ends the transaction.
    std::mem::forget(connection.begin_with(begin).await?);
    Ok(())
}

fn begin_error(error: sqlx::Error) -> Error {
    match sqlstate_code(&error).as_deref() {
        Some(DIVISION_BY_ZERO) => {
            Error::new(ErrorKind::Fenced, "the login of this database may not write at the moment").with_source(error)
        }
        _ => from_sqlx(error),
    }
}

fn commit_error(error: sqlx::Error) -> Error {
    let message = match sqlstate_code(&error).as_deref() {
        Some(DIVISION_BY_ZERO) => {
            "the application's own SQL has ended the transaction, or reset its settings; nothing more was committed: \
             use commit() and rollback() instead of COMMIT, ROLLBACK and RESET ALL"
        }
        Some(TRANSACTION_FAILED) => "an earlier statement failed, so the transaction was rolled back",
        _ => return from_sqlx(error),
    };
    Error::new(ErrorKind::Closed, message).with_source(error)
}
