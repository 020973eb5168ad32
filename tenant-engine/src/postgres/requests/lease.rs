//! A connection while a session has it. However a lease ends (given back, dropped by a cancelled future, unwound by a
//! panic), its connection goes back clean or is closed, and its place in the budget is free again.
//!
//! Made by `host.rs`; `transaction.rs` uses it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::Connection as _;

use super::account::AccountId;
use super::budget::Use;
use super::connection::Conn;
use super::host::Host;
use super::tally::Reason;
use crate::pool::Access;

/// How long an abandoned connection may take to become clean, before closing it is cheaper for everybody than waiting.
const RECOVER_MAX: Duration = Duration::from_millis(250);

/// What is known about the state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is under way and no transaction is open.
    Clean,
    /// Something of ours that changes nothing is under way.
    Setting,
    /// A statement of its own is under way, or its answer was not read to the end.
    Alone,
    /// The same for a statement of a transaction.
    Statement,
    /// A transaction is open, or may be.
    Transaction,
    /// A commit is under way.
    Committing,
}

/// A connection in use, counted as such until it is given back or closed.
#[derive(Debug)]
pub(super) struct Lease {
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    conn: Conn,
    phase: Phase,
    since: Instant,
    charged: u64,
    owner: Owner,
}

/// Whose connection it is.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) host: Arc<Host>,
    pub(super) account: AccountId,
    pub(super) login: Access,
}

impl Lease {
    pub(super) fn new(owner: Owner, conn: Conn, charged: u64) -> Self {
        Self { held: Some(Held { conn, phase: Phase::Clean, since: Instant::now(), charged, owner }) }
    }

    /// The connection, marked: until [`Lease::mark`] says otherwise it is in this phase.
    pub(super) fn conn(&mut self, phase: Phase) -> &mut Conn {
        let held = self.held.as_mut().expect("a lease holds a connection until it ends");
        held.phase = phase;
        &mut held.conn
    }

    pub(super) fn phase(&self) -> Phase {
        self.held.as_ref().map_or(Phase::Clean, |held| held.phase)
    }

    pub(super) fn mark(&mut self, phase: Phase) {
        self.conn(phase);
    }

    /// Closes the connection: its state is unknown or it is of no use.
    pub(super) fn close(mut self, reason: Reason) {
        if let Some(held) = self.held.take() {
            held.close(reason);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        match held.phase {
            Phase::Clean => held.give_back(),
            // Reading an answer of any length to its end would occupy a thread: the driver does not pause while data
            // keeps coming.
            Phase::Alone | Phase::Statement => held.close(Reason::Abandoned),
            Phase::Setting | Phase::Transaction | Phase::Committing => held.recover(),
        }
    }
}

impl Held {
    fn give_back(self) {
        let used = self.used();
        if self.conn.is_old(Instant::now()) {
            return self.close(Reason::Lifetime);
        }
        self.owner.host.release(&self.owner, self.conn, used);
    }

    fn close(self, reason: Reason) {
        let used = self.used();
        self.owner.host.close_used(&self.owner, self.conn, used, reason);
    }

    /// Cleans it up and gives it back, in a task of its own; closes it when that takes too long.
    fn recover(self) {
        let runtime = self.owner.host.runtime().clone();
        let mut doomed = Doomed(Some(self));
        runtime.spawn(async move {
            let Some(held) = doomed.0.as_mut() else { return };
            let clean = tokio::time::timeout(RECOVER_MAX, held.clean()).await;
            if !matches!(clean, Ok(Ok(()))) {
                return;
            }
            if let Some(held) = doomed.0.take() {
                held.give_back();
            }
        });
    }

    async fn clean(&mut self) -> Result<(), sqlx::Error> {
        match self.phase {
            Phase::Transaction => sqlx::raw_sql("rollback").execute(self.conn.sqlx()).await.map(drop),
            _ => self.conn.sqlx().ping().await,
        }
    }

    fn used(&self) -> Use {
        Use { charged: self.charged, held: self.since.elapsed(), born: self.conn.born() }
    }
}

/// Closed unless it is taken out; also when the runtime that should clean it is gone.
struct Doomed(Option<Held>);

impl Drop for Doomed {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            held.close(Reason::Abandoned);
        }
    }
}
