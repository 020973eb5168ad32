//! Slots for held connections. Each connection is lent to one transaction at a time, in the order of requests. A
//! connection that returns with an open transaction is rolled back before its next use. One that returns in an unknown
//! state is closed.
//!
//! A slot is free when its loan ends, whatever the state of the connection. A dead server cannot block a slot, because
//! every wait for an answer has a time limit.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use sqlx::{AnyConnection, Connection as _, Executor as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, ErrorKind, Result};
use crate::error_mapping;
use crate::opener::{CatalogOpener, answer_within};

/// How long a transaction waits for a slot. A longer wait means that another transaction was left open.
const TURN_MAX: Duration = Duration::from_secs(30);

/// Maximum wait for a server's answer. Longer than the server waits for the write lock, and than the longest statement
/// that it allows.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(25);

/// Maximum wait for the begin of a read, which waits for no lock. A server that is silent for this long is unreachable.
/// Requests then fail before their clients give up.
pub(crate) const BEGIN_READ_MAX: Duration = Duration::from_secs(5);

/// Maximum wait for a server when a connection is closed.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// The behaviour of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionTransport {
    /// A thread with a queue in this process, which always answers.
    File,
    /// A server, which may fail at any moment.
    Socket,
}

/// A few connections for one purpose.
#[derive(Debug)]
pub(crate) struct ConnectionSlots {
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<AnyConnection>>,
    /// Set from a failure until the next connection: the server is known to be unreachable.
    failed: Mutex<Option<ConnectFailure>>,
    /// True while a caller tests whether the server is reachable again.
    looking: AtomicBool,
    purpose: &'static str,
}

/// The last failed attempt to connect.
#[derive(Debug)]
struct ConnectFailure {
    at: Instant,
    message: String,
    /// The server is unreachable. A server that only has no free connection is tried again for longer.
    is_away: bool,
}

/// The right to test whether an unreachable server is back.
struct ReconnectProbe<'a>(&'a AtomicBool);

impl Drop for ReconnectProbe<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A connection on loan to a transaction.
#[derive(Debug)]
pub(crate) struct LentConnection {
    connection: Option<AnyConnection>,
    underneath: ConnectionTransport,
    origin: ConnectionOrigin,
    state: LentState,
    lane: Arc<ConnectionSlots>,
    _turn: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionOrigin {
    /// Made for this loan.
    New,
    /// Idle since an earlier loan: its server may have closed it.
    Kept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LentState {
    Idle,
    InTransaction,
    /// A constraint refused a statement on a file. The transaction is open, but no further statement is allowed, as on
    /// a server.
    Refused,
    /// A statement is running, or its failure may have ended the transaction. If the loan is dropped now, the state of
    /// the transaction is unknown. The connection is then closed and not reused.
    Unknown,
}

impl ConnectionSlots {
    pub(crate) fn new(connections: usize, purpose: &'static str) -> Arc<Self> {
        let turns = Arc::new(Semaphore::new(connections));
        let (idle, failed, looking) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { turns, idle, failed, looking, purpose })
    }

    /// Waits for a connection. Opens one while there are fewer than the maximum.
    pub(crate) async fn take_connection(self: &Arc<Self>, opener: &CatalogOpener) -> Result<LentConnection> {
        let asked = Instant::now();
        if self.looking.load(Ordering::Acquire) {
            self.fail_if_away()?;
        }
        let turn = match tokio::time::timeout(TURN_MAX, self.turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_closed)) => return Err(Error::new(ErrorKind::Unavailable, "the catalog is closed")),
            Err(_elapsed) => {
                let message = format!("no {} of the catalog became free within {TURN_MAX:?}", self.purpose);
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        };
        let idle = self.lock_idle().pop();
        let (connection, origin) = match idle {
            Some(connection) => (connection, ConnectionOrigin::Kept),
            None => {
                self.fail_fast(asked)?;
                (self.open_connection(opener).await?, ConnectionOrigin::New)
            }
        };
        let (connection, underneath) = (Some(connection), opener.connection_transport());
        Ok(LentConnection { connection, underneath, origin, state: LentState::Idle, lane: self.clone(), _turn: turn })
    }

    /// Fails at once if other callers found the server unreachable while this one waited. Otherwise the callers would
    /// try one after the other; so one attempt is enough for all of them.
    fn fail_fast(&self, asked: Instant) -> Result<()> {
        match &*self.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(failed) if failed.at > asked => Err(Error::new(ErrorKind::Unavailable, failed.message.clone())),
            _ => Ok(()),
        }
    }

    /// Fails while the server is known to be unreachable.
    fn fail_if_away(&self) -> Result<()> {
        match &*self.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(failed) if failed.is_away => Err(Error::new(ErrorKind::Unavailable, failed.message.clone())),
            _ => Ok(()),
        }
    }

    /// Opens a connection. Waits for a server that answered recently, because it may be restarting. One caller at a
    /// time tests a server that is known to be unreachable; the others fail at once.
    async fn open_connection(&self, opener: &CatalogOpener) -> Result<AnyConnection> {
        let connected = match self.fail_if_away() {
            Ok(()) => opener.connect().await,
            Err(away) => {
                if self.looking.swap(true, Ordering::AcqRel) {
                    return Err(away);
                }
                let _look = ReconnectProbe(&self.looking);
                opener.connect_once().await
            }
        };
        let failed = match &connected {
            Err(error) if error.kind() == ErrorKind::Unavailable => Some(ConnectFailure {
                at: Instant::now(),
                message: error.to_string(),
                is_away: !error_mapping::has_no_connection(error),
            }),
            _ => None,
        };
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        connected
    }

    /// Refuses new loans, waits for existing ones and closes every connection.
    pub(crate) async fn close_slots(&self, connections: u32) {
        let all = tokio::time::timeout(TURN_MAX, self.turns.acquire_many(connections)).await;
        self.turns.close();
        drop(all);
        let idle = std::mem::take(&mut *self.lock_idle());
        for connection in idle {
            close_connection(connection).await;
        }
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<AnyConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes a connection and tells its server.
pub(crate) async fn close_connection(connection: AnyConnection) {
    if let Err(error) = answer_within(CLOSE_MAX, connection.close()).await {
        tracing::warn!(%error, "a connection of the catalog did not close cleanly");
    }
}

impl ConnectionTransport {
    /// Waits for an answer within the time limit. A server that does not answer counts as gone.
    pub(crate) async fn await_answer<T>(self, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        self.await_answer_within(ANSWER_MAX, work).await
    }

    async fn await_answer_within<T>(
        self,
        at_most: Duration,
        work: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        match self {
            Self::File => work.await,
            Self::Socket => answer_within(at_most, work).await,
        }
    }
}

impl LentConnection {
    /// The connection, for statements outside of transactions.
    pub(crate) fn connection_mut(&mut self) -> &mut AnyConnection {
        self.connection.as_mut().expect("taken only when dropped")
    }

    pub(crate) fn connection_transport(&self) -> ConnectionTransport {
        self.underneath
    }

    /// True when this loan has sent nothing yet, so that another connection can be used instead.
    pub(crate) fn may_be_replaced(&self) -> bool {
        self.origin == ConnectionOrigin::Kept
    }

    /// Replaces a connection that was closed while idle, and drops the other idle connections, which are closed too.
    pub(crate) async fn replace_connection(&mut self, opener: &CatalogOpener) -> Result<()> {
        self.state = LentState::Unknown;
        drop(std::mem::take(&mut *self.lane.lock_idle()));
        self.connection = Some(self.lane.open_connection(opener).await?);
        (self.origin, self.state) = (ConnectionOrigin::New, LentState::Idle);
        Ok(())
    }

    /// Begins a transaction with this statement. A server must answer within `at_most`.
    pub(crate) async fn begin_transaction(&mut self, statement: &'static str, at_most: Duration) -> sqlx::Result<()> {
        self.state = LentState::Unknown;
        let underneath = self.underneath;
        let begun = underneath.await_answer_within(at_most, self.connection_mut().execute(statement)).await;
        match &begun {
            Ok(_) => self.state = LentState::InTransaction,
            Err(error) if underneath == ConnectionTransport::File && error_mapping::is_busy(error) => {
                self.state = LentState::Idle
            }
            Err(_) => {}
        }
        begun.map(|_| ())
    }

    /// The connection for one statement of the transaction. Its result goes to [`LentConnection::end_statement`].
    /// `None` when the transaction is over.
    pub(crate) fn begin_statement(&mut self) -> Option<&mut AnyConnection> {
        (self.state == LentState::InTransaction).then(|| {
            self.state = LentState::Unknown;
            self.connection_mut()
        })
    }

    /// Updates the state of the transaction by a statement's result.
    pub(crate) fn end_statement<T>(&mut self, result: &sqlx::Result<T>) {
        match result {
            Ok(_) => self.state = LentState::InTransaction,
            Err(error) if self.underneath == ConnectionTransport::File && error_mapping::is_constraint(error) => {
                self.state = LentState::Refused;
            }
            Err(_) => {}
        }
    }

    /// Commits with this statement; `None` when the transaction is over.
    pub(crate) async fn commit_transaction(&mut self, statement: &'static str) -> Option<sqlx::Result<()>> {
        let underneath = self.underneath;
        let done = underneath.await_answer(self.begin_statement()?.execute(statement)).await;
        if done.is_ok() {
            self.state = LentState::Idle;
        }
        Some(done.map(|_| ()))
    }
}

impl Drop for LentConnection {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let clean = match self.state {
            LentState::Idle => true,
            LentState::InTransaction | LentState::Refused => start_rollback(&mut connection),
            LentState::Unknown => false,
        };
        if clean {
            self.lane.lock_idle().push(connection);
        }
    }
}

/// Sends a rollback without waiting for its answer. The connection's next user reads that answer before its own.
/// `false` when it could not be sent: the connection must then be closed, which rolls back, too.
///
/// No statement is running and every answer was read to its end. So one poll puts the rollback into the queue of a
/// file's connection, or into a server's socket. It is unconstrained, because the runtime may otherwise delay a task
/// that has done much.
fn start_rollback(connection: &mut AnyConnection) -> bool {
    let polled = {
        let mut rollback = pin!(tokio::task::unconstrained(connection.execute("rollback")));
        rollback.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    !matches!(polled, Poll::Ready(Err(_))) && !connection.should_flush()
}
