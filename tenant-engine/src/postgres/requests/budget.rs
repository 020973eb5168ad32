//! PURE: decides which tenants get a server's connections, when there are fewer connections than tenants.
//!
//! A request takes an idle connection of its own tenant and login. If there is none, a connection is opened while the
//! server has room. Otherwise the least recently used idle connection of another tenant is closed to make room. If
//! there is no such connection either, the request waits. Waiting tenants are served by start-time fair queueing
//! (Goyal, Vin, Cheng 1996): the tenant that has used the least connection time comes first, and within a tenant the
//! first request. A returned connection goes to its own tenant's next request, unless another tenant has waited for
//! longer than moving it is worth.
//!
//! `server_pool.rs` holds the lock around the budget, performs its [`BudgetAction`]s, and reports back. This module has
//! no connections (they are a type `C`), no tasks and no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::counters::{CloseReason, ConnectionCounters};
use super::server_health::{ServerHealth, WaitFailure};
use super::tenant_share::{
    ConnectionWaiter, IdleConnection, LOGINS, TenantShare, TenantShareId, WaitTicket, duration_nanos,
};
use crate::error::ErrorKind;
use crate::statement::AccessMode;

mod turns;
mod upkeep;

#[cfg(test)]
mod tests;

/// Maximum requests that wait for connections of one tenant. At 0.1 ms per point read this is a tenth of a second of
/// one connection. Later requests are refused at once instead of after a timeout.
pub(super) const TENANT_WAITING_MAX: usize = 1_024;
/// Maximum requests that wait for one server: eight tenants that flood at once; takes some megabytes.
pub(super) const SERVER_WAITING_MAX: usize = 8_192;

/// An action that `server_pool.rs` must perform.
#[derive(Debug)]
pub(super) enum BudgetAction<C, W> {
    /// Hand this connection to the waiting request; it counts as in use from now on.
    Grant { account: TenantShareId, login: AccessMode, wakes: W, conn: C, charged: u64 },
    /// Close `instead_of`, then open a connection, and report [`ConnectionBudget::connection_opened`] or
    /// [`ConnectionBudget::open_failed`].
    Open { account: TenantShareId, login: AccessMode, instead_of: Option<C> },
    /// Close the connection, and report [`ConnectionBudget::connection_closed`].
    Close { account: TenantShareId, conn: C },
    /// Report the failure to the waiting request.
    Fail { wakes: W, failure: WaitFailure },
    /// The share is closed and its last connection is gone.
    Gone { account: TenantShareId },
}

/// An idle connection of the caller's own share.
#[derive(Debug)]
pub(super) struct TakenConnection<C> {
    pub(super) conn: C,
    pub(super) charged: u64,
    pub(super) idle_for: Duration,
}

/// The extent of a failed attempt to connect.
#[derive(Debug, Clone)]
pub(super) enum OpenFailure {
    /// The server does not answer, so no request gets a connection.
    Unreachable(WaitFailure),
    /// The server accepts no more connections now.
    Full,
    /// The fault concerns this database or this login: only its own requests get the error.
    Own(WaitFailure),
}

#[derive(Debug)]
pub(super) struct ConnectionBudget<C, W> {
    accounts: HashMap<TenantShareId, TenantShare<C, W>>,
    /// The last number that was given to a share, a ticket or an idle connection.
    last_number: u64,
    /// Idle connections, least recently used first.
    idle: BTreeMap<u64, (TenantShareId, AccessMode)>,
    /// Shares that wait for a connection and may have one. Ordered by use in steps of a turn, then by how long they
    /// have got nothing.
    ready: BTreeSet<(u64, Instant, TenantShareId)>,
    /// The shares of `ready`, longest unserved first.
    hungry: BTreeSet<(Instant, TenantShareId)>,
    tally: ConnectionCounters,
    virtual_time: u64,
    target: usize,
    pace: ServerHealth,
    actions: Vec<BudgetAction<C, W>>,
}

impl<C, W> ConnectionBudget<C, W> {
    /// A budget of `target` connections.
    pub(super) fn new(target: usize, pace: ServerHealth) -> Self {
        Self {
            accounts: HashMap::new(),
            last_number: 0,
            idle: BTreeMap::new(),
            ready: BTreeSet::new(),
            hungry: BTreeSet::new(),
            tally: ConnectionCounters::default(),
            virtual_time: 0,
            target: target.max(1),
            pace,
            actions: Vec::new(),
        }
    }

    pub(super) fn connection_counters(&self) -> &ConnectionCounters {
        &self.tally
    }

    pub(super) fn server_health(&self) -> &ServerHealth {
        &self.pace
    }

    /// Number of connections that may be open now.
    pub(super) fn connection_limit(&self) -> usize {
        self.pace.allowed_connections(self.target)
    }

    /// Number of tenants with a waiting request.
    pub(super) fn waiting_accounts(&self) -> usize {
        self.accounts.values().filter(|account| account.waiter_count() > 0).count()
    }

    /// Number of connections of one share, including those being opened or closed.
    pub(super) fn connections_of(&self, id: TenantShareId) -> usize {
        self.accounts.get(&id).map_or(0, TenantShare::connection_count)
    }

    /// The actions that became due since the last call.
    pub(super) fn take_actions(&mut self) -> Vec<BudgetAction<C, W>> {
        std::mem::take(&mut self.actions)
    }

    /// Registers a new pool.
    pub(super) fn register_share(&mut self) -> TenantShareId {
        let id = TenantShareId(self.next_number());
        self.accounts.insert(id, TenantShare::new());
        id
    }

    /// Takes the most recently used idle connection of this login. `None`: call
    /// [`ConnectionBudget::wait_for_connection`].
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] when the share or the budget is closed.
    pub(super) fn take_idle(
        &mut self,
        id: TenantShareId,
        login: AccessMode,
        now: Instant,
    ) -> Result<Option<TakenConnection<C>>, WaitFailure> {
        let account = open_account(&mut self.accounts, id)?;
        let Some(idle) = account.idle.for_login_mut(login).pop() else { return Ok(None) };
        self.idle.remove(&idle.sequence);
        account.in_use += 1;
        account.served_at = Some(now);
        let charged = account.charge_use();
        self.tally.idle -= 1;
        self.tally.in_use += 1;
        self.update_order(id);
        Ok(Some(TakenConnection { conn: idle.conn, charged, idle_for: now.saturating_duration_since(idle.since) }))
    }

    /// Waits for a connection: a later action hands one to `wakes`, or reports why there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`]; [`ErrorKind::QueueFull`] and [`ErrorKind::ConnectionsMax`] when too many requests already
    /// wait; the error of the last attempt while the server does not answer.
    pub(super) fn wait_for_connection(
        &mut self,
        id: TenantShareId,
        login: AccessMode,
        wakes: W,
        now: Instant,
    ) -> Result<WaitTicket, WaitFailure> {
        let quantum = self.pace.switch_after();
        let account = open_account(&mut self.accounts, id)?;
        if let Some(failure) = self.pace.current_refusal(now, self.tally.opening > 0) {
            return Err(failure);
        }
        if account.waiter_count() >= TENANT_WAITING_MAX {
            let message = format!("{TENANT_WAITING_MAX} requests are already waiting for this database");
            return Err(WaitFailure::new(ErrorKind::QueueFull, &message));
        }
        if self.tally.waiting >= SERVER_WAITING_MAX {
            let message = format!("{SERVER_WAITING_MAX} requests are already waiting for connections to the server");
            return Err(WaitFailure::new(ErrorKind::ConnectionsMax, &message));
        }
        if account.waiter_count() == 0 {
            account.join_waiting(self.virtual_time, quantum);
        }
        self.last_number += 1;
        let ticket = WaitTicket(self.last_number);
        account.waiting.for_login_mut(login).push_back(ConnectionWaiter { ticket, since: now, wakes });
        self.tally.waiting += 1;
        self.update_order(id);
        self.dispatch_opens(now);
        Ok(ticket)
    }

    /// Ends the wait of a request. Does nothing when the request was already answered.
    pub(super) fn cancel_wait(&mut self, id: TenantShareId, login: AccessMode, ticket: WaitTicket) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        let waiting = account.waiting.for_login_mut(login);
        if let Ok(position) = waiting.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            waiting.remove(position);
            self.tally.waiting -= 1;
            self.update_order(id);
        }
    }

    /// The reason why a request waited without getting a connection.
    pub(super) fn explain_timeout(&self, id: TenantShareId, login: AccessMode) -> WaitFailure {
        let opening = self.accounts.get(&id).is_some_and(|account| *account.opening.for_login(login) > 0);
        if self.pace.is_full() {
            WaitFailure::new(ErrorKind::ServerFull, "the server takes no more connections")
        } else if opening {
            WaitFailure::new(ErrorKind::ServerUnreachable, "the server did not take the connection in time")
        } else {
            let message = "every connection to the server that this process may use is in use";
            WaitFailure::new(ErrorKind::ConnectionsMax, message)
        }
    }

    /// Returns a connection after a use.
    pub(super) fn release_connection(
        &mut self,
        id: TenantShareId,
        login: AccessMode,
        conn: C,
        used: ConnectionUse,
        now: Instant,
    ) {
        self.end_use(id, used);
        let keep = self.accounts.get(&id).is_some_and(|account| !account.closed);
        if !keep {
            self.close_connection(id, conn, CloseReason::PoolClosed);
        } else if self.tally.staying_count() >= self.connection_limit() {
            self.close_connection(id, conn, CloseReason::Shrunk);
        } else {
            self.pass_on(id, login, conn, used.born, now);
        }
        self.update_order(id);
        self.dispatch_opens(now);
    }

    /// Starts to close a used connection: report [`ConnectionBudget::connection_closed`] when it is closed.
    pub(super) fn begin_close(&mut self, id: TenantShareId, used: ConnectionUse, reason: CloseReason) {
        self.end_use(id, used);
        self.tally.closing += 1;
        self.tally.count_close(reason);
        if let Some(account) = self.accounts.get_mut(&id) {
            account.closing += 1;
        }
        self.update_order(id);
    }

    /// Reports that a connection of this share is closed, so its place is free.
    pub(super) fn connection_closed(&mut self, id: TenantShareId, now: Instant) {
        self.tally.closing -= 1;
        if let Some(account) = self.accounts.get_mut(&id) {
            account.closing -= 1;
        }
        self.forget_if_gone(id);
        self.dispatch_opens(now);
    }

    /// Reports the connection that a [`BudgetAction::Open`] asked for.
    pub(super) fn connection_opened(
        &mut self,
        id: TenantShareId,
        login: AccessMode,
        conn: C,
        took: Duration,
        now: Instant,
    ) {
        self.pace.record_connected(took);
        self.end_opening(id, login);
        let Some(account) = self.accounts.get_mut(&id) else { return };
        if account.closed {
            self.close_connection(id, conn, CloseReason::PoolClosed);
        } else if self.tally.staying_count() >= self.pace.allowed_connections(self.target) {
            self.close_connection(id, conn, CloseReason::Shrunk);
        } else if let Some(waiter) = account.waiting.for_login_mut(login).pop_front() {
            self.grant_connection(id, login, waiter, conn, now);
        } else {
            self.push_idle(id, login, conn, now, now);
        }
        self.update_order(id);
        self.dispatch_opens(now);
    }

    /// Reports that a [`BudgetAction::Open`] failed, so its place is free.
    pub(super) fn open_failed(&mut self, id: TenantShareId, login: AccessMode, failure: OpenFailure, now: Instant) {
        self.end_opening(id, login);
        match failure {
            OpenFailure::Unreachable(failure) => {
                self.pace.record_unreachable(failure.clone(), now);
                let waiting: Vec<_> = self.accounts.keys().copied().collect();
                waiting.into_iter().for_each(|id| self.fail_waiters(id, &LOGINS, &failure));
            }
            OpenFailure::Full => self.pace.refused_for_want_of_room(self.tally.open_count(), now),
            OpenFailure::Own(failure) => {
                self.fail_waiters(id, &[login], &failure);
                self.close_idle_of(id, &[login], CloseReason::Fenced);
            }
        }
        self.update_order(id);
        self.forget_if_gone(id);
        self.dispatch_opens(now);
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn end_use(&mut self, id: TenantShareId, used: ConnectionUse) {
        self.tally.in_use -= 1;
        if let Some(account) = self.accounts.get_mut(&id) {
            account.in_use -= 1;
            account.correct_charge(used.charged, used.held);
        }
    }

    fn end_opening(&mut self, id: TenantShareId, login: AccessMode) {
        self.tally.opening -= 1;
        if let Some(account) = self.accounts.get_mut(&id) {
            *account.opening.for_login_mut(login) -= 1;
        }
    }
}

/// The charged and the actual time of a use of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionUse {
    pub(super) charged: u64,
    pub(super) held: Duration,
    /// The time when the connection was opened.
    pub(super) born: Instant,
}

fn open_account<C, W>(
    accounts: &mut HashMap<TenantShareId, TenantShare<C, W>>,
    id: TenantShareId,
) -> Result<&mut TenantShare<C, W>, WaitFailure> {
    accounts.get_mut(&id).filter(|account| !account.closed).ok_or_else(account_closed)
}

fn account_closed() -> WaitFailure {
    WaitFailure::new(ErrorKind::Closed, "the connections to this database are being closed")
}
