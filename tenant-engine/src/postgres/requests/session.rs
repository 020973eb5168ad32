//! One transaction as async code sees it.
//!
//! A session that is dropped, even in the middle of a call, costs nobody a wait: its lease cleans up by itself. Between
//! two calls a transaction is kept where its deadline and the end of the process can reach it, also when its holder does
//! nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::task::JoinHandle;

use super::lease::Lease;
use super::pool::{PoolInner, closed};
use super::sandbox;
use super::transaction::{Allowed, Call, deadline, first, go_on, roll_back};
use crate::answers::AnswerShare;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::{Access, After, Limits, Statement};
use crate::value::Rows;

/// One transaction on one connection.
#[derive(Debug)]
pub struct PostgresSession {
    pool: Arc<PoolInner>,
    access: Access,
    limits: Limits,
    answers: AnswerShare,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing has been sent.
    New,
    /// Open between two calls.
    Open(Open),
    Over(Ending),
}

#[derive(Debug)]
struct Open {
    kept: Arc<Kept>,
    until: Instant,
    _watch: Watch,
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Committed,
    RolledBack,
    Expired,
    Shutdown,
}

impl PostgresSession {
    pub(super) fn new(pool: Arc<PoolInner>, access: Access, limits: Limits, answers: AnswerShare) -> Self {
        Self { pool, access, limits, answers, state: State::New }
    }

    pub(crate) async fn run(&mut self, statements: Vec<Statement>, after: After) -> Result<Vec<Rows>> {
        // Cancelled or failed from here on, the transaction is over.
        match std::mem::replace(&mut self.state, State::Over(Ending::RolledBack)) {
            State::New => self.begin(statements, after).await,
            State::Open(open) => self.go_on(open, statements, after).await,
            State::Over(ending) => {
                self.state = State::Over(ending);
                Err(over(ending))
            }
        }
    }

    pub(crate) async fn commit(&mut self) -> Result<()> {
        match &self.state {
            State::New | State::Over(Ending::Committed) => Ok(()),
            State::Open(_) | State::Over(_) => self.run(Vec::new(), After::Commit).await.map(drop),
        }
    }

    pub(crate) async fn rollback(&mut self) -> Result<()> {
        let State::Open(open) = std::mem::replace(&mut self.state, State::Over(Ending::RolledBack)) else {
            return Ok(());
        };
        match open.kept.take() {
            Ok(lease) => roll_back(lease).await,
            Err(_) => Ok(()),
        }
    }

    async fn begin(&mut self, statements: Vec<Statement>, after: After) -> Result<Vec<Rows>> {
        let statements = allowed(statements)?;
        let now = Instant::now();
        let until = now + self.limits.transaction_timeout;
        let (rows, lease) = first(&self.pool, &self.call_from(now, after, until), &statements).await?;
        self.state = match lease {
            Some(lease) => State::Open(self.keep(lease, until)),
            None => State::Over(Ending::Committed),
        };
        Ok(rows)
    }

    async fn go_on(&mut self, open: Open, statements: Vec<Statement>, after: After) -> Result<Vec<Rows>> {
        let lease = open.kept.take().map_err(|ending| {
            self.state = State::Over(ending);
            over(ending)
        })?;
        // Refused: the lease is dropped, and so rolled back.
        let statements = allowed(statements)?;
        let call = self.call_from(Instant::now(), after, open.until);
        let (rows, lease) = go_on(&self.pool, lease, &call, &statements).await?;
        self.state = match lease {
            Some(lease) => {
                open.kept.put(lease);
                State::Open(open)
            }
            None => State::Over(Ending::Committed),
        };
        Ok(rows)
    }

    fn keep(&self, lease: Lease, until: Instant) -> Open {
        let kept = Arc::new(Kept(Mutex::new(Keeping::Idle(lease))));
        let (watched, mut ending) = (Arc::clone(&kept), self.pool.host().ending());
        let watch = self.pool.host().runtime().spawn(async move {
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => watched.end(Ending::Expired),
                _ = ending.wait_for(|ending| *ending) => watched.end(Ending::Shutdown),
            }
        });
        Open { kept, until, _watch: Watch(watch) }
    }

    fn call_from(&self, now: Instant, after: After, until: Instant) -> Call {
        let deadline = until.min(now + self.limits.statement_timeout);
        Call { access: self.access, limits: self.limits, answers: self.answers.clone(), after, deadline }
    }
}

fn allowed(statements: Vec<Statement>) -> Result<Vec<Allowed>> {
    let check = |statement: Statement| sandbox::check(&statement.sql).map(|verb| (statement, verb));
    statements.into_iter().map(check).collect()
}

/// A transaction between two calls.
#[derive(Debug)]
struct Kept(Mutex<Keeping>);

#[derive(Debug)]
enum Keeping {
    /// Nobody is using it.
    Idle(Lease),
    /// A call is using it, and watches the deadline itself.
    Used,
    /// Rolled back, at the deadline or at the end of the process.
    Over(Ending),
}

impl Kept {
    /// The lease, for one call.
    fn take(&self) -> Result<Lease, Ending> {
        let mut keeping = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *keeping, Keeping::Used) {
            Keeping::Idle(lease) => Ok(lease),
            Keeping::Used => Err(Ending::RolledBack),
            Keeping::Over(ending) => {
                *keeping = Keeping::Over(ending);
                Err(ending)
            }
        }
    }

    /// Gives the lease back after a call. When it is over already the lease is dropped, and the transaction rolled back.
    fn put(&self, lease: Lease) {
        let mut keeping = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let late = if matches!(*keeping, Keeping::Over(_)) { Some(lease) } else { keeping.put(lease) };
        drop(keeping);
        drop(late);
    }

    fn end(&self, ending: Ending) {
        let mut keeping = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *keeping, Keeping::Over(ending));
        drop(keeping);
        drop(before);
    }
}

impl Keeping {
    fn put(&mut self, lease: Lease) -> Option<Lease> {
        *self = Self::Idle(lease);
        None
    }
}

/// Ends the watching task when dropped.
#[derive(Debug)]
struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn over(ending: Ending) -> Error {
    match ending {
        Ending::Committed => Error::new(ErrorKind::Closed, "the transaction is over: it was committed"),
        Ending::RolledBack => Error::new(ErrorKind::Closed, "the transaction is over: it was rolled back"),
        Ending::Expired => deadline(),
        Ending::Shutdown => closed(),
    }
}
