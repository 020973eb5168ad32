//! Held connections. A lane lends each to one transaction at a time, first come, first served; what comes back with an
//! open transaction is rolled back before anybody else can use it.

use std::future::Future as _;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use sqlx::{AnyConnection, Executor as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::opener::Opener;

/// How long a transaction waits for its turn before it says so: longer means that somebody forgot one open.
const TURN_MAX: Duration = Duration::from_secs(30);

/// A few connections for one purpose.
#[derive(Debug)]
pub(crate) struct Lane {
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<AnyConnection>>,
    purpose: &'static str,
}

/// A connection on loan.
#[derive(Debug)]
pub(crate) struct Held {
    connection: Option<AnyConnection>,
    state: State,
    lane: Arc<Lane>,
    _turn: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    InTransaction,
    /// A statement is under way, or one failed in a way that may have ended the transaction. Whoever drops it so does
    /// not know what became of it: the connection is closed, not given back.
    Unknown,
}

impl Lane {
    pub(crate) fn new(connections: usize, purpose: &'static str) -> Arc<Self> {
        Arc::new(Self { turns: Arc::new(Semaphore::new(connections)), idle: Mutex::new(Vec::new()), purpose })
    }

    /// Waits for a connection; makes one when there are fewer than there may be.
    pub(crate) async fn take(self: &Arc<Self>, opener: &Opener) -> Result<Held> {
        let turn = match tokio::time::timeout(TURN_MAX, self.turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_closed)) => return Err(Error::new(ErrorKind::Unavailable, "the catalog is closed")),
            Err(_elapsed) => {
                let message = format!("no {} of the catalog became free within {TURN_MAX:?}", self.purpose);
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        };
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => opener.connect().await?,
        };
        Ok(Held { connection: Some(connection), state: State::Idle, lane: self.clone(), _turn: turn })
    }

    /// No more loans; waits for those that are out and closes every connection.
    pub(crate) async fn close(&self, connections: u32) {
        let all = tokio::time::timeout(TURN_MAX, self.turns.acquire_many(connections)).await;
        self.turns.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle());
        for connection in idle {
            if let Err(error) = sqlx::Connection::close(connection).await {
                tracing::warn!(%error, "a connection of the catalog did not close cleanly");
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<AnyConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// For statements outside of transactions.
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        self.connection.as_mut().expect("taken only when dropped")
    }

    /// Begins a transaction with this statement.
    pub(crate) async fn begin(&mut self, statement: &'static str) -> sqlx::Result<()> {
        self.state = State::Unknown;
        let begun = self.connection().execute(statement).await;
        match &begun {
            Ok(_) => self.state = State::InTransaction,
            Err(error) if fault::is_busy(error) => self.state = State::Idle,
            Err(_) => {}
        }
        begun.map(|_| ())
    }

    /// For one statement of the transaction; its result goes to [`Held::after`]. `None` when the transaction is over.
    pub(crate) fn during(&mut self) -> Option<&mut AnyConnection> {
        (self.state == State::InTransaction).then(|| {
            self.state = State::Unknown;
            self.connection()
        })
    }

    /// What a statement's result says about the transaction: a refused one leaves it as it was.
    pub(crate) fn after<T>(&mut self, result: &sqlx::Result<T>) {
        if result.as_ref().err().is_none_or(fault::is_constraint) {
            self.state = State::InTransaction;
        }
    }

    /// Commits. `None` when the transaction is over.
    pub(crate) async fn commit(&mut self) -> Option<sqlx::Result<()>> {
        let done = self.during()?.execute("commit").await;
        if done.is_ok() {
            self.state = State::Idle;
        }
        Some(done.map(|_| ()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        match self.state {
            State::Unknown => return,
            State::InTransaction => start_rollback(&mut connection),
            State::Idle => {}
        }
        self.lane.idle().push(connection);
    }
}

/// Sends a rollback without waiting for it. No statement is under way, so the connection's queue is empty and one poll
/// puts the rollback into it: before whatever the next user asks. (SQLite's connection is a queue; a database behind a
/// socket needs its own way here, closing the connection being the certain one.)
fn start_rollback(connection: &mut AnyConnection) {
    let mut rollback = pin!(connection.execute("rollback"));
    let _ = rollback.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}
