//! PURE: who gets a server's connections, when there are fewer of them than tenants.
//!
//! A request takes an idle connection of its own tenant and login; else one is opened while the server has room; else
//! the least recently used idle connection of another tenant is closed to make room; else the request waits. Waiting
//! tenants are served by start-time fair queueing (Goyal, Vin, Cheng 1996): the one that has used the least connection
//! time comes first, and inside a tenant the first come. A connection that comes back goes to its own tenant's next
//! request, unless another tenant has waited for longer than moving it is worth.
//!
//! `host.rs` holds the lock around this, does what the [`Action`]s say, and reports back. Here are no connections (they
//! are some `C`), no tasks and no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::account::{Account, AccountId, Idle, LOGINS, Ticket, Waiter, nanos};
use super::pace::{Failure, Pace};
use super::tally::{Reason, Tally};
use crate::error::ErrorKind;
use crate::pool::Access;

mod turns;
mod upkeep;

#[cfg(test)]
mod tests;

/// Requests that may wait for connections of one tenant. At 0.1 ms a point read this is a tenth of a second of one
/// connection; who comes later is told at once instead of after a timeout.
pub(super) const TENANT_WAITING_MAX: usize = 1_024;
/// Requests that may wait for one server: eight tenants that flood at once; some megabytes.
pub(super) const SERVER_WAITING_MAX: usize = 8_192;

/// What `host.rs` has to do.
#[derive(Debug)]
pub(super) enum Action<C, W> {
    /// Hand this connection to the waiter; it counts as used from now on.
    Grant { account: AccountId, login: Access, wakes: W, conn: C, charged: u64 },
    /// Close `instead_of`, then open a connection, and report [`Budget::opened`] or [`Budget::open_failed`].
    Open { account: AccountId, login: Access, instead_of: Option<C> },
    /// Close it, and report [`Budget::closed`].
    Close { account: AccountId, conn: C },
    /// Tell the waiter.
    Fail { wakes: W, failure: Failure },
    /// The account is closed and its last connection is gone.
    Gone { account: AccountId },
}

/// An idle connection of the caller's own.
#[derive(Debug)]
pub(super) struct Taken<C> {
    pub(super) conn: C,
    pub(super) charged: u64,
    pub(super) idle_for: Duration,
}

/// Whom an attempt to connect failed for.
#[derive(Debug, Clone)]
pub(super) enum OpenFailure {
    /// The server does not answer: nobody gets a connection.
    Unreachable(Failure),
    /// The server takes no more connections now.
    Full,
    /// This database or this login: only its own requests are told.
    Own(Failure),
}

#[derive(Debug)]
pub(super) struct Budget<C, W> {
    accounts: HashMap<AccountId, Account<C, W>>,
    /// Of all numbers given to accounts, tickets and idle connections.
    last_number: u64,
    /// Idle connections, least recently used first.
    idle: BTreeMap<u64, (AccountId, Access)>,
    /// Accounts that want a connection and may have one: those that used least first, by turns, and of those the one
    /// that got nothing for longest.
    ready: BTreeSet<(u64, Instant, AccountId)>,
    /// The same accounts, the one that got nothing for longest first.
    hungry: BTreeSet<(Instant, AccountId)>,
    tally: Tally,
    virtual_time: u64,
    target: usize,
    pace: Pace,
    actions: Vec<Action<C, W>>,
}

impl<C, W> Budget<C, W> {
    /// A budget of `target` connections.
    pub(super) fn new(target: usize, pace: Pace) -> Self {
        Self {
            accounts: HashMap::new(),
            last_number: 0,
            idle: BTreeMap::new(),
            ready: BTreeSet::new(),
            hungry: BTreeSet::new(),
            tally: Tally::default(),
            virtual_time: 0,
            target: target.max(1),
            pace,
            actions: Vec::new(),
        }
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Connections that may be open now.
    pub(super) fn limit(&self) -> usize {
        self.pace.limit(self.target)
    }

    /// Tenants with a request that waits.
    pub(super) fn waiting_accounts(&self) -> usize {
        self.accounts.values().filter(|account| account.waiters() > 0).count()
    }

    /// Connections of one account, those being opened or closed included.
    pub(super) fn connections(&self, id: AccountId) -> usize {
        self.accounts.get(&id).map_or(0, Account::connections)
    }

    /// What is to be done since the last call.
    pub(super) fn take_actions(&mut self) -> Vec<Action<C, W>> {
        std::mem::take(&mut self.actions)
    }

    /// A new pool.
    pub(super) fn register(&mut self) -> AccountId {
        let id = AccountId(self.number());
        self.accounts.insert(id, Account::new());
        id
    }

    /// The last used idle connection of this login; `None`: [`Budget::wait`] for one.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`].
    pub(super) fn take_idle(
        &mut self,
        id: AccountId,
        login: Access,
        now: Instant,
    ) -> Result<Option<Taken<C>>, Failure> {
        let account = open_account(&mut self.accounts, id)?;
        let Some(idle) = account.idle.of_mut(login).pop() else { return Ok(None) };
        self.idle.remove(&idle.sequence);
        account.in_use += 1;
        account.served_at = Some(now);
        let charged = account.charge();
        self.tally.idle -= 1;
        self.tally.in_use += 1;
        self.list(id);
        Ok(Some(Taken { conn: idle.conn, charged, idle_for: now.saturating_duration_since(idle.since) }))
    }

    /// Waits for a connection: an action hands it to `wakes`, or says why there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`]; [`ErrorKind::QueueFull`] and [`ErrorKind::ConnectionsMax`] when too many wait already;
    /// that of the last attempt while the server does not answer.
    pub(super) fn wait(&mut self, id: AccountId, login: Access, wakes: W, now: Instant) -> Result<Ticket, Failure> {
        let quantum = self.pace.switch_after();
        let account = open_account(&mut self.accounts, id)?;
        if let Some(failure) = self.pace.refusal(now, self.tally.opening > 0) {
            return Err(failure);
        }
        if account.waiters() >= TENANT_WAITING_MAX {
            let message = format!("{TENANT_WAITING_MAX} requests are already waiting for this database");
            return Err(Failure::new(ErrorKind::QueueFull, &message));
        }
        if self.tally.waiting >= SERVER_WAITING_MAX {
            let message = format!("{SERVER_WAITING_MAX} requests are already waiting for connections to the server");
            return Err(Failure::new(ErrorKind::ConnectionsMax, &message));
        }
        if account.waiters() == 0 {
            account.join(self.virtual_time, quantum);
        }
        self.last_number += 1;
        let ticket = Ticket(self.last_number);
        account.waiting.of_mut(login).push_back(Waiter { ticket, since: now, wakes });
        self.tally.waiting += 1;
        self.list(id);
        self.dispatch(now);
        Ok(ticket)
    }

    /// The request waits no longer. Nothing when it was answered already.
    pub(super) fn cancel(&mut self, id: AccountId, login: Access, ticket: Ticket) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        let waiting = account.waiting.of_mut(login);
        if let Ok(position) = waiting.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            waiting.remove(position);
            self.tally.waiting -= 1;
            self.list(id);
        }
    }

    /// Why a request that waited in vain got nothing.
    pub(super) fn blame(&self, id: AccountId, login: Access) -> Failure {
        let opening = self.accounts.get(&id).is_some_and(|account| *account.opening.of(login) > 0);
        if self.pace.is_full() {
            Failure::new(ErrorKind::ServerFull, "the server takes no more connections")
        } else if opening {
            Failure::new(ErrorKind::ServerUnreachable, "the server did not take the connection in time")
        } else {
            let message = "every connection to the server that this process may use is in use";
            Failure::new(ErrorKind::ConnectionsMax, message)
        }
    }

    /// A connection comes back after a use.
    pub(super) fn release(&mut self, id: AccountId, login: Access, conn: C, used: Use, now: Instant) {
        self.end_use(id, used);
        let keep = self.accounts.get(&id).is_some_and(|account| !account.closed);
        if !keep {
            self.close(id, conn, Reason::PoolClosed);
        } else if self.tally.staying() >= self.limit() {
            self.close(id, conn, Reason::Shrunk);
        } else {
            self.pass_on(id, login, conn, used.born, now);
        }
        self.list(id);
        self.dispatch(now);
    }

    /// A used connection is being closed: report [`Budget::closed`] when it is.
    pub(super) fn begin_close(&mut self, id: AccountId, used: Use, reason: Reason) {
        self.end_use(id, used);
        self.tally.closing += 1;
        self.tally.closed(reason);
        if let Some(account) = self.accounts.get_mut(&id) {
            account.closing += 1;
        }
        self.list(id);
    }

    /// A connection of this account is closed, its place is free.
    pub(super) fn closed(&mut self, id: AccountId, now: Instant) {
        self.tally.closing -= 1;
        if let Some(account) = self.accounts.get_mut(&id) {
            account.closing -= 1;
        }
        self.forget_if_gone(id);
        self.dispatch(now);
    }

    /// What an [`Action::Open`] asked for.
    pub(super) fn opened(&mut self, id: AccountId, login: Access, conn: C, took: Duration, now: Instant) {
        self.pace.connected(took);
        self.end_opening(id, login);
        let Some(account) = self.accounts.get_mut(&id) else { return };
        if account.closed {
            self.close(id, conn, Reason::PoolClosed);
        } else if self.tally.staying() >= self.pace.limit(self.target) {
            self.close(id, conn, Reason::Shrunk);
        } else if let Some(waiter) = account.waiting.of_mut(login).pop_front() {
            self.grant(id, login, waiter, conn, now);
        } else {
            self.push_idle(id, login, conn, now, now);
        }
        self.list(id);
        self.dispatch(now);
    }

    /// An [`Action::Open`] failed; its place is free.
    pub(super) fn open_failed(&mut self, id: AccountId, login: Access, failure: OpenFailure, now: Instant) {
        self.end_opening(id, login);
        match failure {
            OpenFailure::Unreachable(failure) => {
                self.pace.unreachable(failure.clone(), now);
                let waiting: Vec<_> = self.accounts.keys().copied().collect();
                waiting.into_iter().for_each(|id| self.fail_waiters(id, &LOGINS, &failure));
            }
            OpenFailure::Full => self.pace.refused_for_want_of_room(self.tally.open(), now),
            OpenFailure::Own(failure) => {
                self.fail_waiters(id, &[login], &failure);
                self.close_idle_of(id, &[login], Reason::Fenced);
            }
        }
        self.list(id);
        self.forget_if_gone(id);
        self.dispatch(now);
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn end_use(&mut self, id: AccountId, used: Use) {
        self.tally.in_use -= 1;
        if let Some(account) = self.accounts.get_mut(&id) {
            account.in_use -= 1;
            account.correct(used.charged, used.held);
        }
    }

    fn end_opening(&mut self, id: AccountId, login: Access) {
        self.tally.opening -= 1;
        if let Some(account) = self.accounts.get_mut(&id) {
            *account.opening.of_mut(login) -= 1;
        }
    }
}

/// What a use of a connection was charged and took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use {
    pub(super) charged: u64,
    pub(super) held: Duration,
    /// When the connection was opened.
    pub(super) born: Instant,
}

fn open_account<C, W>(
    accounts: &mut HashMap<AccountId, Account<C, W>>,
    id: AccountId,
) -> Result<&mut Account<C, W>, Failure> {
    accounts.get_mut(&id).filter(|account| !account.closed).ok_or_else(closed)
}

fn closed() -> Failure {
    Failure::new(ErrorKind::Closed, "the connections to this database are being closed")
}
