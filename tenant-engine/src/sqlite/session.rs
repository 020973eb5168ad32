//! One transaction as async code sees it: each call is one hop to a worker and back.
//!
//! BEGIN and the identity check travel with the first call. A database that another process holds is waited for
//! here, without a worker. A session that is dropped, even in the middle of a hop, costs nobody a wait: its lease
//! rolls back by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::{Kept, Watch};
use super::fate::Fate;
use super::lease::Lease;
use super::pool::PoolInner;
use super::transaction::{Call, Outcome, SqliteTx, begin_and_proceed, deadline, proceed};
use crate::answers::AnswerShare;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::{Access, After, Limits, Statement};
use crate::value::Rows;

/// First and longest pause of a request that found the database locked by another process.
const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// One transaction on one connection.
#[derive(Debug)]
pub struct SqliteSession {
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
}

impl SqliteSession {
    pub(super) fn new(pool: Arc<PoolInner>, access: Access, limits: Limits, answers: AnswerShare) -> Self {
        Self { pool, access, limits, answers, state: State::New }
    }

    pub(crate) async fn run(&mut self, statements: Vec<Statement>, after: After) -> Result<Vec<Rows>> {
        self.call(after, move |tx| statements.iter().map(|s| tx.query(&s.sql, &s.params)).collect()).await
    }

    pub(crate) async fn commit(&mut self) -> Result<()> {
        match &self.state {
            State::New | State::Over(Ending::Committed) => Ok(()),
            State::Open(_) | State::Over(_) => self.call(After::Commit, |_| Ok(())).await,
        }
    }

    pub(crate) async fn rollback(&mut self) -> Result<()> {
        let State::Open(open) = std::mem::replace(&mut self.state, State::Over(Ending::RolledBack)) else {
            return Ok(());
        };
        let Some(lease) = open.kept.take() else { return Ok(()) };
        let pool = Arc::clone(&self.pool);
        let hop = move || {
            lease.end();
            Ok(())
        };
        pool.engine().workers.run(pool.lane(), hop).await
    }

    async fn call<T, W>(&mut self, after: After, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&SqliteTx<'_>) -> Result<T> + Send + 'static,
    {
        // Cancelled or failed from here on, the transaction is over.
        match std::mem::replace(&mut self.state, State::Over(Ending::RolledBack)) {
            State::New => self.begin(after, work).await,
            State::Open(open) => self.go_on(open, after, work).await,
            State::Over(ending) => {
                self.state = State::Over(ending);
                Err(over(ending))
            }
        }
    }

    async fn begin<T, W>(&mut self, after: After, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&SqliteTx<'_>) -> Result<T> + Send + 'static,
    {
        let now = Instant::now();
        let call = self.call_from(now, after, now + self.limits.transaction_timeout);
        let (value, lease) = begin(&self.pool, call, work).await?;
        match lease {
            Some(lease) => self.state = State::Open(self.keep(lease, now + self.limits.transaction_timeout)),
            None => self.state = State::Over(Ending::Committed),
        }
        Ok(value)
    }

    async fn go_on<T, W>(&mut self, open: Open, after: After, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&SqliteTx<'_>) -> Result<T> + Send + 'static,
    {
        let Some(lease) = open.kept.take() else {
            self.state = State::Over(Ending::Expired);
            return Err(over(Ending::Expired));
        };
        let call = self.call_from(Instant::now(), after, open.until);
        let (fate, until) = (Arc::clone(&call.fate), call.deadline);
        match fate.hop(&self.pool, until, move || proceed(lease, call, work)).await? {
            Outcome::Kept(value, lease) => {
                open.kept.put(lease);
                self.state = State::Open(open);
                Ok(value)
            }
            Outcome::Done(value) => {
                self.state = State::Over(Ending::Committed);
                Ok(value)
            }
            Outcome::Busy(_, _, error) => Err(error),
        }
    }

    fn keep(&self, lease: Lease, until: Instant) -> Open {
        let kept = Kept::used();
        kept.put(lease);
        let watch = self.pool.engine().clock.watch(until, Arc::clone(&kept));
        Open { kept, until, _watch: watch }
    }

    fn call_from(&self, now: Instant, after: After, until: Instant) -> Call {
        let deadline = until.min(now + self.limits.statement_timeout);
        let fate = Fate::new(&self.pool.engine().stuck);
        Call { access: self.access, limits: self.limits, answers: self.answers.clone(), after, deadline, fate }
    }
}

/// Runs `work` in a transaction of its own.
pub(super) async fn with<T, W>(
    pool: &Arc<PoolInner>,
    access: Access,
    limits: Limits,
    answers: &AnswerShare,
    work: W,
) -> Result<T>
where
    T: Send + 'static,
    W: FnOnce(&SqliteTx<'_>) -> Result<T> + Send + 'static,
{
    let deadline = Instant::now() + limits.statement_timeout.min(limits.transaction_timeout);
    let fate = Fate::new(&pool.engine().stuck);
    let call = Call { access, limits, answers: answers.clone(), after: After::Commit, deadline, fate };
    begin(pool, call, work).await.map(|(value, _)| value)
}

/// Checks a connection out and makes the first hop; repeats it while the database is locked by another process.
async fn begin<T, W>(pool: &Arc<PoolInner>, call: Call, mut work: W) -> Result<(T, Option<Lease>)>
where
    T: Send + 'static,
    W: FnOnce(&SqliteTx<'_>) -> Result<T> + Send + 'static,
{
    let mut lease = pool.check_out(call.access, call.deadline).await?;
    let mut pause = PAUSE_FIRST;
    loop {
        let this_call = call.clone();
        let hop = move || begin_and_proceed(lease, this_call, work);
        match call.fate.hop(pool, call.deadline, hop).await? {
            Outcome::Done(value) => return Ok((value, None)),
            Outcome::Kept(value, lease) => return Ok((value, Some(lease))),
            Outcome::Busy(_, _, error) if Instant::now() + pause >= call.deadline => return Err(error),
            Outcome::Busy(same_lease, same_work, _) => (lease, work) = (same_lease, same_work),
        }
        tokio::time::sleep(pause).await;
        pause = PAUSE_MAX.min(2 * pause);
    }
}

fn over(ending: Ending) -> Error {
    match ending {
        Ending::Committed => Error::new(ErrorKind::Closed, "the transaction is over: it was committed"),
        Ending::RolledBack => Error::new(ErrorKind::Closed, "the transaction is over: it was rolled back"),
        Ending::Expired => deadline(),
    }
}
