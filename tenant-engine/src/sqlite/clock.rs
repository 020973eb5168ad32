//! Ends transactions that stay open too long, also when their holder does nothing: one thread per engine, which
//! sleeps until the next deadline.
//!
//! `session.rs` registers each transaction it keeps open between two calls. Never runs SQL: an overdue transaction's
//! lease is dropped here, and that sends the rollback to a worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::lease::Lease;
use super::workers::lock;
use crate::error::{Error, ErrorKind, Result};

/// A transaction between two calls.
#[derive(Debug)]
pub(super) struct Kept(Mutex<State>);

#[derive(Debug)]
enum State {
    /// Nobody is using it.
    Idle(Lease),
    /// A call is using it, and watches the deadline itself.
    Used,
    /// Rolled back at the deadline.
    Expired,
}

impl Kept {
    /// In use by the call that opened it.
    pub(super) fn used() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::Used)))
    }

    /// The lease, for one call; `None` after the deadline.
    pub(super) fn take(&self) -> Option<Lease> {
        let mut state = lock(&self.0);
        match std::mem::replace(&mut *state, State::Used) {
            State::Idle(lease) => Some(lease),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Gives the lease back after a call. After the deadline it is dropped, and the transaction rolled back.
    pub(super) fn put(&self, lease: Lease) {
        let late = {
            let mut state = lock(&self.0);
            if matches!(*state, State::Expired) {
                Some(lease)
            } else {
                *state = State::Idle(lease);
                None
            }
        };
        drop(late);
    }

    fn expire(&self) {
        let overdue = std::mem::replace(&mut *lock(&self.0), State::Expired);
        drop(overdue);
    }
}

/// The thread and what it watches. Clones are one clock; it ends with the last one.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    shared: Arc<Shared>,
    _end: Arc<EndOnDrop>,
}

/// Watches one transaction until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    shared: Arc<Shared>,
    key: (Instant, u64),
}

#[derive(Debug, Default)]
struct Shared {
    watched: Mutex<Watched>,
    earlier: Condvar,
}

#[derive(Debug, Default)]
struct Watched {
    /// By deadline; the number tells equal deadlines apart. As long as the transactions open: bounded by connections.
    kept: BTreeMap<(Instant, u64), Arc<Kept>>,
    number: u64,
    /// When the thread looks next; `None`: not before it is told.
    looks_at: Option<Instant>,
    ending: bool,
}

#[derive(Debug)]
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        lock(&self.0.watched).ending = true;
        self.0.earlier.notify_one();
    }
}

impl Clock {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the operating system refuses it.
    pub(super) fn start() -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let watching = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("sqlite-clock".to_owned())
            .spawn(move || watch(&watching))
            .map_err(|e| Error::new(ErrorKind::Io, "cannot start the clock's thread").with_source(e))?;
        Ok(Self { _end: Arc::new(EndOnDrop(Arc::clone(&shared))), shared })
    }

    /// Expires `kept` at `deadline` unless the returned value is dropped before.
    pub(super) fn watch(&self, deadline: Instant, kept: Arc<Kept>) -> Watch {
        let mut watched = lock(&self.shared.watched);
        watched.number += 1;
        let key = (deadline, watched.number);
        watched.kept.insert(key, kept);
        let wake = watched.looks_at.is_none_or(|at| deadline < at);
        drop(watched);
        if wake {
            self.shared.earlier.notify_one();
        }
        Watch { shared: Arc::clone(&self.shared), key }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let kept = lock(&self.shared.watched).kept.remove(&self.key);
        // Outside the lock: it may be the last owner of a lease.
        drop(kept);
    }
}

fn watch(shared: &Shared) {
    let mut watched = lock(&shared.watched);
    while !watched.ending {
        let now = Instant::now();
        match watched.kept.first_key_value().map(|((at, _), _)| *at) {
            Some(at) if at <= now => {
                let overdue = watched.kept.pop_first();
                drop(watched);
                if let Some((_, kept)) = overdue {
                    kept.expire();
                }
                watched = lock(&shared.watched);
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
