//! Ends transactions that stay open too long, even if their holder does nothing: one thread per engine, which sleeps
//! until the next deadline.
//!
//! `session.rs` registers each transaction that it keeps open between two calls. It never runs SQL: the lease of an
//! overdue transaction is dropped here, which sends the rollback to a worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::lease::SqliteLease;
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::locks::lock_ignoring_poison;

/// A transaction between two calls.
#[derive(Debug)]
pub(super) struct SqliteIdleTransaction(Mutex<SqliteIdleState>);

#[derive(Debug)]
enum SqliteIdleState {
    /// No call is using it.
    Idle(SqliteLease),
    /// A call is using it, and checks the deadline itself.
    Used,
    /// Rolled back at the deadline.
    Expired,
}

impl SqliteIdleTransaction {
    /// In use by the call that opened it.
    pub(super) fn new_in_use() -> Arc<Self> {
        Arc::new(Self(Mutex::new(SqliteIdleState::Used)))
    }

    /// Takes the lease for one call; `None` after the deadline.
    pub(super) fn take_lease(&self) -> Option<SqliteLease> {
        let mut state = lock_ignoring_poison(&self.0);
        match std::mem::replace(&mut *state, SqliteIdleState::Used) {
            SqliteIdleState::Idle(lease) => Some(lease),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Returns the lease after a call. After the deadline the lease is dropped, which rolls back.
    pub(super) fn put_lease(&self, lease: SqliteLease) {
        let late = {
            let mut state = lock_ignoring_poison(&self.0);
            if matches!(*state, SqliteIdleState::Expired) {
                Some(lease)
            } else {
                *state = SqliteIdleState::Idle(lease);
                None
            }
        };
        drop(late);
    }

    fn expire_idle(&self) {
        let overdue = std::mem::replace(&mut *lock_ignoring_poison(&self.0), SqliteIdleState::Expired);
        drop(overdue);
    }
}

/// The thread and the transactions that it watches. Clones share it; it ends with the last clone.
#[derive(Debug, Clone)]
pub(in crate::sqlite) struct TransactionDeadlines {
    shared: Arc<DeadlinesShared>,
    _end: Arc<EndDeadlinesOnDrop>,
}

/// Watches one transaction until this value is dropped.
#[derive(Debug)]
pub(super) struct DeadlineWatch {
    shared: Arc<DeadlinesShared>,
    key: (Instant, u64),
}

#[derive(Debug, Default)]
struct DeadlinesShared {
    watched: Mutex<WatchedTransactions>,
    earlier: Condvar,
}

#[derive(Debug, Default)]
struct WatchedTransactions {
    /// Ordered by deadline; the number distinguishes equal deadlines. As many as open transactions, so bounded by the
    /// connections.
    kept: BTreeMap<(Instant, u64), Arc<SqliteIdleTransaction>>,
    number: u64,
    /// When the thread checks next; `None`: when it is notified.
    looks_at: Option<Instant>,
    ending: bool,
}

#[derive(Debug)]
struct EndDeadlinesOnDrop(Arc<DeadlinesShared>);

impl Drop for EndDeadlinesOnDrop {
    fn drop(&mut self) {
        lock_ignoring_poison(&self.0.watched).ending = true;
        self.0.earlier.notify_one();
    }
}

impl TransactionDeadlines {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the operating system refuses it.
    pub(in crate::sqlite) fn start_thread() -> Result<Self> {
        let shared = Arc::new(DeadlinesShared::default());
        let watching = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("sqlite-clock".to_owned())
            .spawn(move || watch_deadlines(&watching))
            .map_err(|e| Error::new(ErrorKind::Io, "cannot start the deadline thread").with_source(e))?;
        Ok(Self { _end: Arc::new(EndDeadlinesOnDrop(Arc::clone(&shared))), shared })
    }

    /// Expires `kept` at `deadline`, unless the returned value is dropped before.
    pub(super) fn watch_deadline(&self, deadline: Instant, kept: Arc<SqliteIdleTransaction>) -> DeadlineWatch {
        let mut watched = lock_ignoring_poison(&self.shared.watched);
        watched.number += 1;
        let key = (deadline, watched.number);
        watched.kept.insert(key, kept);
        let wake = watched.looks_at.is_none_or(|at| deadline < at);
        drop(watched);
        if wake {
            self.shared.earlier.notify_one();
        }
        DeadlineWatch { shared: Arc::clone(&self.shared), key }
    }
}

impl Drop for DeadlineWatch {
    fn drop(&mut self) {
        let kept = lock_ignoring_poison(&self.shared.watched).kept.remove(&self.key);
        // Outside the lock: it may be the last owner of a lease.
        drop(kept);
    }
}

fn watch_deadlines(shared: &DeadlinesShared) {
    let mut watched = lock_ignoring_poison(&shared.watched);
    while !watched.ending {
        let now = Instant::now();
        match watched.kept.first_key_value().map(|((at, _), _)| *at) {
            Some(at) if at <= now => {
                let overdue = watched.kept.pop_first();
                drop(watched);
                if let Some((_, kept)) = overdue {
                    kept.expire_idle();
                }
                watched = lock_ignoring_poison(&shared.watched);
            }
            Some(at) => {
                watched.looks_at = Some(at);
                let (guard, _) = shared.earlier.wait_timeout(watched, at - now).unwrap_or_else(PoisonError::into_inner);
                watched = guard;
                watched.looks_at = Some(Instant::now());
            }
            None => {
                watched.looks_at = None;
                watched = shared.earlier.wait(watched).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
