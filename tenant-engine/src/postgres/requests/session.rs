//! One transaction of an asynchronous caller.
//!
//! Dropping a session, even in the middle of a call, makes no one wait: its lease cleans up by itself. Between two
//! calls a transaction is kept where its deadline and the end of the process can reach it, even if its holder does
//! nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::task::JoinHandle;

use super::lease::PostgresLease;
use super::own_statement;
use super::pool::{PostgresPoolInner, pool_closed};
use super::sandbox;
use super::transaction::{AllowedStatement, PostgresSessionCall, deadline_exceeded, first_call, go_on, roll_back};
use crate::answers::AnswerShare;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::servers::own_tables;
use crate::statement::{AccessMode, AfterStatements, SessionLimits, SqlStatement};
use crate::value::Rows;

/// One transaction on one connection.
#[derive(Debug)]
pub struct PostgresSession {
    pool: Arc<PostgresPoolInner>,
    access: AccessMode,
    limits: SessionLimits,
    answers: AnswerShare,
    state: PostgresSessionState,
}

#[derive(Debug)]
enum PostgresSessionState {
    /// No statement was sent yet.
    New,
    /// The transaction is open between two calls.
    Open(PostgresOpenTransaction),
    Over(PostgresTransactionEnding),
}

#[derive(Debug)]
struct PostgresOpenTransaction {
    kept: Arc<PostgresIdleTransaction>,
    until: Instant,
    _watch: DeadlineTask,
}

#[derive(Debug, Clone, Copy)]
enum PostgresTransactionEnding {
    Committed,
    RolledBack,
    Expired,
    Shutdown,
}

impl PostgresSession {
    pub(super) fn new(
        pool: Arc<PostgresPoolInner>,
        access: AccessMode,
        limits: SessionLimits,
        answers: AnswerShare,
    ) -> Self {
        Self { pool, access, limits, answers, state: PostgresSessionState::New }
    }

    pub(crate) async fn run_statements(
        &mut self,
        statements: Vec<SqlStatement>,
        after: AfterStatements,
    ) -> Result<Vec<Rows>> {
        self.run_allowed(check_statements(statements), after).await
    }

    /// Runs statements that were checked; a refusal ends the transaction.
    async fn run_allowed(
        &mut self,
        statements: Result<Vec<AllowedStatement>>,
        after: AfterStatements,
    ) -> Result<Vec<Rows>> {
        // If the call is cancelled or fails from here on, the transaction is over.
        match std::mem::replace(&mut self.state, PostgresSessionState::Over(PostgresTransactionEnding::RolledBack)) {
            PostgresSessionState::New => self.begin_transaction(statements, after).await,
            PostgresSessionState::Open(open) => self.go_on(open, statements, after).await,
            PostgresSessionState::Over(ending) => {
                self.state = PostgresSessionState::Over(ending);
                Err(transaction_over(ending))
            }
        }
    }

    /// As [`PostgresSession::run_statements`], on the fleet's own tables.
    pub(crate) async fn run_own_statements(
        &mut self,
        statements: Vec<SqlStatement>,
        after: AfterStatements,
    ) -> Result<Vec<Rows>> {
        if !self.prepare_own_tables().await? {
            return Ok(statements.iter().map(|_| Rows::default()).collect());
        }
        let statements = statements.into_iter().map(own_statement::allow_own).collect();
        self.run_allowed(Ok(statements), after).await
    }

    /// Whether the fleet's own tables exist; a writing session makes them. Their maker is the maintenance role, because a
    /// login of requests may create nothing. Nobody holds a lock on a table that does not exist, so this cannot wait for
    /// the session's own transaction.
    async fn prepare_own_tables(&mut self) -> Result<bool> {
        if self.pool.own_tables_exist() {
            return Ok(true);
        }
        let look = vec![own_statement::allow_own(own_statement::look_for_tables())];
        let found = self.run_allowed(Ok(look), AfterStatements::Keep).await?;
        let exist = own_statement::are_found(&found);
        if !exist && self.access == AccessMode::Write {
            let target = self.pool.connect_target();
            own_tables::make_own_tables(&target.server, &target.database, &target.expected).await?;
        }
        let exist = exist || self.access == AccessMode::Write;
        if exist {
            self.pool.remember_own_tables();
        }
        Ok(exist)
    }

    pub(crate) async fn commit(&mut self) -> Result<()> {
        match &self.state {
            PostgresSessionState::New | PostgresSessionState::Over(PostgresTransactionEnding::Committed) => Ok(()),
            PostgresSessionState::Open(_) | PostgresSessionState::Over(_) => {
                self.run_statements(Vec::new(), AfterStatements::Commit).await.map(drop)
            }
        }
    }

    pub(crate) async fn rollback(&mut self) -> Result<()> {
        let PostgresSessionState::Open(open) =
            std::mem::replace(&mut self.state, PostgresSessionState::Over(PostgresTransactionEnding::RolledBack))
        else {
            return Ok(());
        };
        match open.kept.take_lease() {
            Ok(lease) => roll_back(lease).await,
            Err(_) => Ok(()),
        }
    }

    async fn begin_transaction(
        &mut self,
        statements: Result<Vec<AllowedStatement>>,
        after: AfterStatements,
    ) -> Result<Vec<Rows>> {
        let statements = statements?;
        let now = Instant::now();
        let until = now + self.limits.transaction_timeout;
        let (rows, lease) = first_call(&self.pool, &self.call_from(now, after, until), &statements).await?;
        self.state = match lease {
            Some(lease) => PostgresSessionState::Open(self.keep_transaction(lease, until)),
            None => PostgresSessionState::Over(PostgresTransactionEnding::Committed),
        };
        Ok(rows)
    }

    async fn go_on(
        &mut self,
        open: PostgresOpenTransaction,
        statements: Result<Vec<AllowedStatement>>,
        after: AfterStatements,
    ) -> Result<Vec<Rows>> {
        let lease = open.kept.take_lease().map_err(|ending| {
            self.state = PostgresSessionState::Over(ending);
            transaction_over(ending)
        })?;
        // If a statement is refused, the lease is dropped, which rolls back.
        let statements = statements?;
        let call = self.call_from(Instant::now(), after, open.until);
        let (rows, lease) = go_on(&self.pool, lease, &call, &statements).await?;
        self.state = match lease {
            Some(lease) => {
                open.kept.put_lease(lease);
                PostgresSessionState::Open(open)
            }
            None => PostgresSessionState::Over(PostgresTransactionEnding::Committed),
        };
        Ok(rows)
    }

    fn keep_transaction(&self, lease: PostgresLease, until: Instant) -> PostgresOpenTransaction {
        let kept = Arc::new(PostgresIdleTransaction(Mutex::new(PostgresIdleState::Idle(lease))));
        let (watched, mut ending) = (Arc::clone(&kept), self.pool.server_pool().ending_signal());
        let watch = self.pool.server_pool().runtime_handle().spawn(async move {
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => watched.end_transaction(PostgresTransactionEnding::Expired),
                _ = ending.wait_for(|ending| *ending) => watched.end_transaction(PostgresTransactionEnding::Shutdown),
            }
        });
        PostgresOpenTransaction { kept, until, _watch: DeadlineTask(watch) }
    }

    fn call_from(&self, now: Instant, after: AfterStatements, until: Instant) -> PostgresSessionCall {
        let deadline = until.min(now + self.limits.statement_timeout);
        PostgresSessionCall { access: self.access, limits: self.limits, answers: self.answers.clone(), after, deadline }
    }
}

fn check_statements(statements: Vec<SqlStatement>) -> Result<Vec<AllowedStatement>> {
    let check = |statement: SqlStatement| sandbox::check_statement(&statement.sql).map(|verb| (statement, verb));
    statements.into_iter().map(check).collect()
}

/// A transaction between two calls.
#[derive(Debug)]
struct PostgresIdleTransaction(Mutex<PostgresIdleState>);

#[derive(Debug)]
enum PostgresIdleState {
    /// No call is using it.
    Idle(PostgresLease),
    /// A call is using it, and checks the deadline itself.
    Used,
    /// Rolled back, at the deadline or at the end of the process.
    Over(PostgresTransactionEnding),
}

impl PostgresIdleTransaction {
    /// Takes the lease for one call.
    fn take_lease(&self) -> Result<PostgresLease, PostgresTransactionEnding> {
        let mut keeping = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *keeping, PostgresIdleState::Used) {
            PostgresIdleState::Idle(lease) => Ok(lease),
            PostgresIdleState::Used => Err(PostgresTransactionEnding::RolledBack),
            PostgresIdleState::Over(ending) => {
                *keeping = PostgresIdleState::Over(ending);
                Err(ending)
            }
        }
    }

    /// Returns the lease after a call. If the transaction is already over, the lease is dropped, which rolls back.
    fn put_lease(&self, lease: PostgresLease) {
        let mut keeping = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let late = if matches!(*keeping, PostgresIdleState::Over(_)) { Some(lease) } else { keeping.put_lease(lease) };
        drop(keeping);
        drop(late);
    }

    fn end_transaction(&self, ending: PostgresTransactionEnding) {
        let mut keeping = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *keeping, PostgresIdleState::Over(ending));
        drop(keeping);
        drop(before);
    }
}

impl PostgresIdleState {
    fn put_lease(&mut self, lease: PostgresLease) -> Option<PostgresLease> {
        *self = Self::Idle(lease);
        None
    }
}

/// Ends the task that watches the deadline when dropped.
#[derive(Debug)]
struct DeadlineTask(JoinHandle<()>);

impl Drop for DeadlineTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn transaction_over(ending: PostgresTransactionEnding) -> Error {
    match ending {
        PostgresTransactionEnding::Committed => {
            Error::new(ErrorKind::Closed, "the transaction is over: it was committed")
        }
        PostgresTransactionEnding::RolledBack => {
            Error::new(ErrorKind::Closed, "the transaction is over: it was rolled back")
        }
        PostgresTransactionEnding::Expired => deadline_exceeded(),
        PostgresTransactionEnding::Shutdown => pool_closed(),
    }
}
