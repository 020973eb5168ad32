//! One transaction of an asynchronous caller: each call is one job on a worker.
//!
//! BEGIN and the identity check are part of the first call. If another process has locked the database, the session
//! waits here, without a worker. Dropping a session, even in the middle of a call, makes no one wait: its lease rolls
//! back by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commit_decision::CommitDecision;
use super::lease::SqliteLease;
use super::pool::SqlitePoolInner;
use super::transaction::{
    HopOutcome, SqliteSessionCall, SqliteTx, begin_and_proceed, deadline_exceeded, proceed_in_transaction,
};
use super::transaction_deadlines::{DeadlineWatch, SqliteIdleTransaction};
use crate::answers::AnswerShare;
use crate::error::{Error, ErrorKind, Result};
use crate::statement::{AccessMode, AfterStatements, SessionLimits, SqlStatement};
use crate::value::Rows;

/// First and longest pause of a request that found the database locked by another process.
const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// One transaction on one connection.
#[derive(Debug)]
pub struct SqliteSession {
    pool: Arc<SqlitePoolInner>,
    access: AccessMode,
    limits: SessionLimits,
    answers: AnswerShare,
    state: SqliteSessionState,
}

#[derive(Debug)]
enum SqliteSessionState {
    /// No statement was run yet.
    New,
    /// The transaction is open between two calls.
    Open(SqliteOpenTransaction),
    Over(SqliteTransactionEnding),
}

#[derive(Debug)]
struct SqliteOpenTransaction {
    kept: Arc<SqliteIdleTransaction>,
    until: Instant,
    _watch: DeadlineWatch,
}

#[derive(Debug, Clone, Copy)]
enum SqliteTransactionEnding {
    Committed,
    RolledBack,
    Expired,
}

impl SqliteSession {
    pub(super) fn new(
        pool: Arc<SqlitePoolInner>,
        access: AccessMode,
        limits: SessionLimits,
        answers: AnswerShare,
    ) -> Self {
        Self { pool, access, limits, answers, state: SqliteSessionState::New }
    }

    pub(crate) async fn run_statements(
        &mut self,
        statements: Vec<SqlStatement>,
        after: AfterStatements,
    ) -> Result<Vec<Rows>> {
        self.run_call(after, move |tx| statements.iter().map(|s| tx.query(&s.sql, &s.params)).collect()).await
    }

    /// As [`SqliteSession::run_statements`], on the fleet's own tables.
    pub(crate) async fn run_own_statements(
        &mut self,
        statements: Vec<SqlStatement>,
        after: AfterStatements,
    ) -> Result<Vec<Rows>> {
        self.run_call(after, move |tx| tx.run_own_statements(&statements)).await
    }

    pub(crate) async fn commit(&mut self) -> Result<()> {
        match &self.state {
            SqliteSessionState::New | SqliteSessionState::Over(SqliteTransactionEnding::Committed) => Ok(()),
            SqliteSessionState::Open(_) | SqliteSessionState::Over(_) => {
                self.run_call(AfterStatements::Commit, |_| Ok(())).await
            }
        }
    }

    pub(crate) async fn rollback(&mut self) -> Result<()> {
        let SqliteSessionState::Open(open) =
            std::mem::replace(&mut self.state, SqliteSessionState::Over(SqliteTransactionEnding::RolledBack))
        else {
            return Ok(());
        };
        let Some(lease) = open.kept.take_lease() else { return Ok(()) };
        let pool = Arc::clone(&self.pool);
        let hop = move || {
            lease.end_lease();
            Ok(())
        };
        pool.engine_inner().workers.run_job(pool.worker_lane(), hop).await
    }

    async fn run_call<T, W>(&mut self, after: AfterStatements, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&SqliteTx<'_>) -> Result<T> + Send + 'static,
    {
        // If the call is cancelled or fails from here on, the transaction is over.
        match std::mem::replace(&mut self.state, SqliteSessionState::Over(SqliteTransactionEnding::RolledBack)) {
            SqliteSessionState::New => self.begin_transaction(after, work).await,
            SqliteSessionState::Open(open) => self.go_on(open, after, work).await,
            SqliteSessionState::Over(ending) => {
                self.state = SqliteSessionState::Over(ending);
                Err(transaction_over(ending))
            }
        }
    }

    async fn begin_transaction<T, W>(&mut self, after: AfterStatements, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&SqliteTx<'_>) -> Result<T> + Send + 'static,
    {
        let now = Instant::now();
        let call = self.call_from(now, after, now + self.limits.transaction_timeout);
        let (value, lease) = begin_call(&self.pool, call, work).await?;
        match lease {
            Some(lease) => {
                self.state =
                    SqliteSessionState::Open(self.keep_transaction(lease, now + self.limits.transaction_timeout))
            }
            None => self.state = SqliteSessionState::Over(SqliteTransactionEnding::Committed),
        }
        Ok(value)
    }

    async fn go_on<T, W>(&mut self, open: SqliteOpenTransaction, after: AfterStatements, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&SqliteTx<'_>) -> Result<T> + Send + 'static,
    {
        let Some(lease) = open.kept.take_lease() else {
            self.state = SqliteSessionState::Over(SqliteTransactionEnding::Expired);
            return Err(transaction_over(SqliteTransactionEnding::Expired));
        };
        let call = self.call_from(Instant::now(), after, open.until);
        let (fate, until) = (Arc::clone(&call.fate), call.deadline);
        match fate.run_on_worker(&self.pool, until, move || proceed_in_transaction(lease, call, work)).await? {
            HopOutcome::Kept(value, lease) => {
                open.kept.put_lease(lease);
                self.state = SqliteSessionState::Open(open);
                Ok(value)
            }
            HopOutcome::Done(value) => {
                self.state = SqliteSessionState::Over(SqliteTransactionEnding::Committed);
                Ok(value)
            }
            HopOutcome::Busy(_, _, error) => Err(error),
        }
    }

    fn keep_transaction(&self, lease: SqliteLease, until: Instant) -> SqliteOpenTransaction {
        let kept = SqliteIdleTransaction::new_in_use();
        kept.put_lease(lease);
        let watch = self.pool.engine_inner().clock.watch_deadline(until, Arc::clone(&kept));
        SqliteOpenTransaction { kept, until, _watch: watch }
    }

    fn call_from(&self, now: Instant, after: AfterStatements, until: Instant) -> SqliteSessionCall {
        let deadline = until.min(now + self.limits.statement_timeout);
        let fate = CommitDecision::new(&self.pool.engine_inner().stuck);
        SqliteSessionCall {
            access: self.access,
            limits: self.limits,
            answers: self.answers.clone(),
            after,
            deadline,
            fate,
        }
    }
}

/// Runs `work` in a transaction of its own.
pub(super) async fn with_transaction<T, W>(
    pool: &Arc<SqlitePoolInner>,
    access: AccessMode,
    limits: SessionLimits,
    answers: &AnswerShare,
    work: W,
) -> Result<T>
where
    T: Send + 'static,
    W: FnOnce(&SqliteTx<'_>) -> Result<T> + Send + 'static,
{
    let deadline = Instant::now() + limits.statement_timeout.min(limits.transaction_timeout);
    let fate = CommitDecision::new(&pool.engine_inner().stuck);
    let call =
        SqliteSessionCall { access, limits, answers: answers.clone(), after: AfterStatements::Commit, deadline, fate };
    begin_call(pool, call, work).await.map(|(value, _)| value)
}

/// Takes a connection and makes the first call; repeats it while another process has locked the database.
async fn begin_call<T, W>(
    pool: &Arc<SqlitePoolInner>,
    call: SqliteSessionCall,
    mut work: W,
) -> Result<(T, Option<SqliteLease>)>
where
    T: Send + 'static,
    W: FnOnce(&SqliteTx<'_>) -> Result<T> + Send + 'static,
{
    let mut lease = pool.check_out(call.access, call.deadline).await?;
    let mut pause = PAUSE_FIRST;
    loop {
        let this_call = call.clone();
        let hop = move || begin_and_proceed(lease, this_call, work);
        match call.fate.run_on_worker(pool, call.deadline, hop).await? {
            HopOutcome::Done(value) => return Ok((value, None)),
            HopOutcome::Kept(value, lease) => return Ok((value, Some(lease))),
            HopOutcome::Busy(_, _, error) if Instant::now() + pause >= call.deadline => return Err(error),
            HopOutcome::Busy(same_lease, same_work, _) => (lease, work) = (same_lease, same_work),
        }
        tokio::time::sleep(pause).await;
        pause = PAUSE_MAX.min(2 * pause);
    }
}

fn transaction_over(ending: SqliteTransactionEnding) -> Error {
    match ending {
        SqliteTransactionEnding::Committed => {
            Error::new(ErrorKind::Closed, "the transaction is over: it was committed")
        }
        SqliteTransactionEnding::RolledBack => {
            Error::new(ErrorKind::Closed, "the transaction is over: it was rolled back")
        }
        SqliteTransactionEnding::Expired => deadline_exceeded(),
    }
}
