//! Held connections. A lane lends each to one transaction at a time, first come, first served; what comes back with an
//! open transaction is rolled back before anybody else can use it, and what comes back in doubt is closed.
//!
//! A turn belongs to the loan and ends with it, whatever became of the connection: a dead peer cannot keep one, because
//! every answer of a server is waited for only so long.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use sqlx::{AnyConnection, Connection as _, Executor as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::opener::{Opener, answered};

/// How long a transaction waits for its turn before it says so: longer means that somebody forgot one open.
const TURN_MAX: Duration = Duration::from_secs(30);

/// How long an answer of a server is waited for: longer than it waits for the write lock itself, and than the longest
/// statement it allows.
const ANSWER_MAX: Duration = Duration::from_secs(25);

/// A farewell to a server that does not listen is cut short.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// How connections behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Underneath {
    /// A thread with a queue in this process: it always answers.
    File,
    /// A server: it may die at any moment.
    Socket,
}

/// A few connections for one purpose.
#[derive(Debug)]
pub(crate) struct Lane {
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<AnyConnection>>,
    /// Set from a failure until a connection is made: the server is known to be away.
    failed: Mutex<Option<Failed>>,
    /// Somebody finds out whether the server that was away is back.
    looking: AtomicBool,
    purpose: &'static str,
}

/// The last connection that could not be made.
#[derive(Debug)]
struct Failed {
    at: Instant,
    message: String,
    /// It cannot be reached. One that only has no connection free is asked with patience.
    is_away: bool,
}

/// One look at a server that was away.
struct Look<'a>(&'a AtomicBool);

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A connection on loan.
#[derive(Debug)]
pub(crate) struct Held {
    connection: Option<AnyConnection>,
    underneath: Underneath,
    origin: Origin,
    state: State,
    lane: Arc<Lane>,
    _turn: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Made for this loan.
    New,
    /// It lay here since an earlier one: its server may have gone since.
    Kept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    InTransaction,
    /// A constraint refused a statement of a file's database: the transaction is open, but nothing more may be done in it,
    /// as it could not be on a server.
    Refused,
    /// A statement is under way, or one failed in a way that may have ended the transaction. Whoever drops it so does
    /// not know what became of it: the connection is closed, not given back.
    Unknown,
}

impl Lane {
    pub(crate) fn new(connections: usize, purpose: &'static str) -> Arc<Self> {
        let turns = Arc::new(Semaphore::new(connections));
        let (idle, failed, looking) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { turns, idle, failed, looking, purpose })
    }

    /// Waits for a connection; makes one when there are fewer than there may be.
    pub(crate) async fn take(self: &Arc<Self>, opener: &Opener) -> Result<Held> {
        let asked = Instant::now();
        if self.looking.load(Ordering::Acquire) {
            self.away()?;
        }
        let turn = match tokio::time::timeout(TURN_MAX, self.turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_closed)) => return Err(Error::new(ErrorKind::Unavailable, "the catalog is closed")),
            Err(_elapsed) => {
                let message = format!("no {} of the catalog became free within {TURN_MAX:?}", self.purpose);
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        };
        let idle = self.idle().pop();
        let (connection, origin) = match idle {
            Some(connection) => (connection, Origin::Kept),
            None => {
                self.not_in_vain(asked)?;
                (self.connect(opener).await?, Origin::New)
            }
        };
        let (connection, underneath) = (Some(connection), opener.underneath());
        Ok(Held { connection, underneath, origin, state: State::Idle, lane: self.clone(), _turn: turn })
    }

    /// Who waited for a turn while others found out that the server is away need not find out again, one after the
    /// other: everybody hears it after one attempt.
    fn not_in_vain(&self, asked: Instant) -> Result<()> {
        match &*self.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(failed) if failed.at > asked => Err(Error::new(ErrorKind::Unavailable, failed.message.clone())),
            _ => Ok(()),
        }
    }

    /// The error while the server is known to be away.
    fn away(&self) -> Result<()> {
        match &*self.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(failed) if failed.is_away => Err(Error::new(ErrorKind::Unavailable, failed.message.clone())),
            _ => Ok(()),
        }
    }

    /// A server that answered a moment ago may be restarting, and is waited for. One that is known to be away is looked
    /// for once, by one caller at a time; the others hear at once what is known.
    async fn connect(&self, opener: &Opener) -> Result<AnyConnection> {
        let connected = match self.away() {
            Ok(()) => opener.connect().await,
            Err(away) => {
                if self.looking.swap(true, Ordering::AcqRel) {
                    return Err(away);
                }
                let _look = Look(&self.looking);
                opener.connect_once().await
            }
        };
        let failed = match &connected {
            Err(error) if error.kind() == ErrorKind::Unavailable => Some(Failed {
                at: Instant::now(),
                message: error.to_string(),
                is_away: !fault::has_no_connection(error),
            }),
            _ => None,
        };
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        connected
    }

    /// No more loans; waits for those that are out and closes every connection.
    pub(crate) async fn close(&self, connections: u32) {
        let all = tokio::time::timeout(TURN_MAX, self.turns.acquire_many(connections)).await;
        self.turns.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle());
        for connection in idle {
            close(connection).await;
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<AnyConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes a connection, saying so to its server.
pub(crate) async fn close(connection: AnyConnection) {
    if let Err(error) = answered(CLOSE_MAX, connection.close()).await {
        tracing::warn!(%error, "a connection of the catalog did not close cleanly");
    }
}

impl Underneath {
    /// A server that does not answer is as good as gone.
    pub(crate) async fn answer<T>(self, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        match self {
            Self::File => work.await,
            Self::Socket => answered(ANSWER_MAX, work).await,
        }
    }
}

impl Held {
    /// For statements outside of transactions.
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        self.connection.as_mut().expect("taken only when dropped")
    }

    pub(crate) fn underneath(&self) -> Underneath {
        self.underneath
    }

    /// Nothing was asked through it in this loan: another connection does as well.
    pub(crate) fn may_be_replaced(&self) -> bool {
        self.origin == Origin::Kept
    }

    /// Replaces a connection that died while it was kept, and forgets the others that were: they met the same end.
    pub(crate) async fn replace(&mut self, opener: &Opener) -> Result<()> {
        self.state = State::Unknown;
        drop(std::mem::take(&mut *self.lane.idle()));
        self.connection = Some(self.lane.connect(opener).await?);
        (self.origin, self.state) = (Origin::New, State::Idle);
        Ok(())
    }

    /// Begins a transaction with this statement.
    pub(crate) async fn begin(&mut self, statement: &'static str) -> sqlx::Result<()> {
        self.state = State::Unknown;
        let underneath = self.underneath;
        let begun = underneath.answer(self.connection().execute(statement)).await;
        match &begun {
            Ok(_) => self.state = State::InTransaction,
            Err(error) if underneath == Underneath::File && fault::is_busy(error) => self.state = State::Idle,
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

    /// What a statement's result says about the transaction.
    pub(crate) fn after<T>(&mut self, result: &sqlx::Result<T>) {
        match result {
            Ok(_) => self.state = State::InTransaction,
            Err(error) if self.underneath == Underneath::File && fault::is_constraint(error) => {
                self.state = State::Refused;
            }
            Err(_) => {}
        }
    }

    /// Commits with this statement. `None` when the transaction is over.
    pub(crate) async fn commit(&mut self, statement: &'static str) -> Option<sqlx::Result<()>> {
        let underneath = self.underneath;
        let done = underneath.answer(self.during()?.execute(statement)).await;
        if done.is_ok() {
            self.state = State::Idle;
        }
        Some(done.map(|_| ()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let clean = match self.state {
            State::Idle => true,
            State::InTransaction | State::Refused => start_rollback(&mut connection),
            State::Unknown => false,
        };
        if clean {
            self.lane.idle().push(connection);
        }
    }
}

/// Sends a rollback without waiting for its answer, which the next user of the connection reads before its own; `false`
/// when it did not get away: then the connection must be closed, which rolls back, too.
///
/// No statement is under way and every answer was read to its end, so one poll puts the rollback into the queue of a
/// file's connection, or into the socket of a server's. (Unconstrained: the runtime may otherwise say "later" to a task
/// that has done much.)
fn start_rollback(connection: &mut AnyConnection) -> bool {
    let polled = {
        let mut rollback = pin!(tokio::task::unconstrained(connection.execute("rollback")));
        rollback.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    !matches!(polled, Poll::Ready(Err(_))) && !connection.should_flush()
}
