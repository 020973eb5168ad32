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

/// Requests that may wait for connections of one tenant. At 0.1 ms a point read this is a tenth of a second of one
/// connection; who comes later is told at once instead of after a timeout.
pub(super) const TENANT_WAITING_MAX: usize = 1_024;
/// Requests that may wait for one server: eight tenants that flood at once; some megabytes.
pub(super) const SERVER_WAITING_MAX: usize = 8_192;

/// One tenant may use at most this part of a server's connections, so that others always find some that are not in the
/// middle of its work.
const TENANT_SHARE: (usize, usize) = (7, 8);

/// An idle connection is kept this long: a minute's pause of a user must not cost a login.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// The same while less than an eighth of the connections are free: then it is more likely to be closed for another
/// tenant's sake, which that tenant waits for.
const IDLE_MAX_SCARCE: Duration = Duration::from_secs(60);
const SCARCE: usize = 8;

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
    /// Accounts that want a connection and may have one, the one that used least first.
    ready: BTreeSet<(u64, AccountId)>,
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
        } else if self.tally.open() >= self.limit() {
            self.close(id, conn, Reason::Shrunk);
        } else {
            self.pass_on(id, login, conn, now);
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
        } else if self.tally.open() >= self.pace.limit(self.target) {
            self.close(id, conn, Reason::Shrunk);
        } else if let Some(waiter) = account.waiting.of_mut(login).pop_front() {
            self.grant(id, login, waiter, conn, now);
        } else {
            self.push_idle(id, login, conn, now);
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

    /// The idle connections of one login are of no use any more.
    pub(super) fn forget_idle(&mut self, id: AccountId, login: Access, reason: Reason) {
        self.close_idle_of(id, &[login], reason);
    }

    /// No more connections for this account; those in use are closed when they come back.
    pub(super) fn close_account(&mut self, id: AccountId, reason: Reason) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        account.closed = true;
        let failure = closed();
        self.fail_waiters(id, &LOGINS, &failure);
        self.close_idle_of(id, &LOGINS, reason);
        self.forget_if_gone(id);
    }

    /// The accounts there are.
    pub(super) fn account_ids(&self) -> Vec<AccountId> {
        self.accounts.keys().copied().collect()
    }

    /// How many connections there may be from now on.
    pub(super) fn set_target(&mut self, target: usize, now: Instant) {
        self.target = target.max(1);
        while self.tally.open() > self.limit() {
            let Some((_, id, idle)) = self.take_least_recent() else { break };
            self.close(id, idle.conn, Reason::Shrunk);
        }
        self.dispatch(now);
    }

    /// Time has passed: closes what was idle for too long, and serves whom only time kept waiting.
    pub(super) fn pass_time(&mut self, now: Instant) {
        while self.least_recent().is_some_and(|idle| idle.since + self.idle_max() <= now) {
            let Some((_, id, idle)) = self.take_least_recent() else { break };
            self.close(id, idle.conn, Reason::Idle);
        }
        self.dispatch(now);
    }

    /// When [`Budget::pass_time`] has something to do, if nothing else happens before.
    pub(super) fn next_event(&self, now: Instant) -> Option<Instant> {
        let since = self.least_recent().map(|idle| idle.since);
        let idle = since.map(|since| since + self.idle_max());
        if self.ready.is_empty() {
            return idle;
        }
        let ripe = since.map(|since| since + self.pace.ripe_after());
        let overdue = self.hungry.first().map(|(since, _)| *since + self.pace.switch_after());
        let overdue = overdue.filter(|_| since.is_some());
        [idle, ripe, overdue, self.pace.next_change(now)].into_iter().flatten().filter(|at| *at > now).min()
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Gives a connection that has come back to whom it is due.
    fn pass_on(&mut self, id: AccountId, login: Access, conn: C, now: Instant) {
        if let Some(rival) = self.rival(id, login, now) {
            self.tally.evicted();
            return self.open(rival, Some(conn), now);
        }
        let waiter = self.accounts.get_mut(&id).and_then(|account| account.waiting.of_mut(login).pop_front());
        match waiter {
            Some(waiter) => self.grant(id, login, waiter, conn, now),
            None => self.push_idle(id, login, conn, now),
        }
    }

    /// Another account that this one's connection is due to: one has waited for too long, or this one has used too
    /// much while others waited. Moving it costs a login, so only when one can be made at once.
    fn rival(&self, id: AccountId, login: Access, now: Instant) -> Option<AccountId> {
        if self.tally.opening >= self.pace.connects_max(now) {
            return None;
        }
        let (used, rival) = *self.ready.iter().find(|(_, other)| *other != id)?;
        let (since, _) = *self.hungry.iter().find(|(_, other)| *other != id)?;
        let patience = self.pace.switch_after();
        let account = self.accounts.get(&id)?;
        let wasteful = account.used > used.saturating_add(nanos(patience)) && !account.waiting.of(login).is_empty();
        (wasteful || since + patience <= now).then_some(rival)
    }

    /// Opens connections for waiting accounts while there is room, or something to close instead.
    fn dispatch(&mut self, now: Instant) {
        self.pace.recover(self.target, now);
        while let Some((_, id)) = self.ready.first().copied() {
            if self.tally.opening >= self.pace.connects_max(now) {
                return;
            }
            let instead_of = if self.tally.open() < self.limit() {
                None
            } else if self.is_ripe(now) && self.tally.open() <= self.limit() {
                let Some((_, _, victim)) = self.take_least_recent() else { return };
                self.tally.evicted();
                Some(victim.conn)
            } else {
                return;
            };
            self.open(id, instead_of, now);
        }
    }

    /// True when the least recently used idle connection may be taken from its tenant.
    fn is_ripe(&self, now: Instant) -> bool {
        let Some(idle) = self.least_recent() else { return false };
        let overdue = self.hungry.first().is_some_and(|(since, _)| *since + self.pace.switch_after() <= now);
        overdue || idle.since + self.pace.ripe_after() <= now
    }

    fn open(&mut self, id: AccountId, instead_of: Option<C>, now: Instant) {
        let login_time = nanos(self.pace.connect());
        let account = self.accounts.get_mut(&id).expect("only accounts are listed");
        let login = account.wants().expect("only accounts that want a connection are listed");
        self.virtual_time = self.virtual_time.max(account.used);
        // Logging in occupies the place too.
        account.used = account.used.saturating_add(login_time);
        account.served_at = Some(now);
        *account.opening.of_mut(login) += 1;
        self.tally.opening += 1;
        self.list(id);
        self.actions.push(Action::Open { account: id, login, instead_of });
    }

    fn grant(&mut self, id: AccountId, login: Access, waiter: Waiter<W>, conn: C, now: Instant) {
        let account = self.accounts.get_mut(&id).expect("it has a waiter");
        account.in_use += 1;
        account.served_at = Some(now);
        let charged = account.charge();
        self.tally.in_use += 1;
        self.tally.waiting -= 1;
        self.actions.push(Action::Grant { account: id, login, wakes: waiter.wakes, conn, charged });
    }

    fn push_idle(&mut self, id: AccountId, login: Access, conn: C, now: Instant) {
        let sequence = self.number();
        let account = self.accounts.get_mut(&id).expect("it is open");
        account.idle.of_mut(login).push(Idle { sequence, since: now, conn });
        self.idle.insert(sequence, (id, login));
        self.tally.idle += 1;
    }

    fn least_recent(&self) -> Option<&Idle<C>> {
        let (_, (id, login)) = self.idle.first_key_value()?;
        self.accounts.get(id)?.idle.of(*login).first()
    }

    fn take_least_recent(&mut self) -> Option<(Access, AccountId, Idle<C>)> {
        let (_, (id, login)) = self.idle.pop_first()?;
        let account = self.accounts.get_mut(&id).expect("idle connections have an account");
        // The stack is in the order of the sequence, so the first of all is the first of its own.
        let idle = account.idle.of_mut(login).remove(0);
        self.tally.idle -= 1;
        Some((login, id, idle))
    }

    fn close_idle_of(&mut self, id: AccountId, logins: &[Access], reason: Reason) {
        for login in logins {
            let Some(account) = self.accounts.get_mut(&id) else { return };
            for idle in std::mem::take(account.idle.of_mut(*login)) {
                self.idle.remove(&idle.sequence);
                self.tally.idle -= 1;
                self.close(id, idle.conn, reason);
            }
        }
    }

    fn close(&mut self, id: AccountId, conn: C, reason: Reason) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.closing += 1;
        }
        self.tally.closing += 1;
        self.tally.closed(reason);
        self.actions.push(Action::Close { account: id, conn });
    }

    fn fail_waiters(&mut self, id: AccountId, logins: &[Access], failure: &Failure) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        for login in logins {
            for waiter in account.waiting.of_mut(*login).drain(..) {
                self.tally.waiting -= 1;
                self.actions.push(Action::Fail { wakes: waiter.wakes, failure: failure.clone() });
            }
        }
        self.list(id);
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

    fn forget_if_gone(&mut self, id: AccountId) {
        if self.accounts.get(&id).is_some_and(|account| account.closed && account.connections() == 0) {
            self.accounts.remove(&id);
            self.actions.push(Action::Gone { account: id });
        }
    }

    /// Keeps the two orders of wanting accounts true for this one.
    fn list(&mut self, id: AccountId) {
        let share = self.tenant_max();
        let Some(account) = self.accounts.get_mut(&id) else { return };
        let wanting = account.claimed() < share && account.wants().is_some();
        let listed = account.hungry_since().filter(|_| wanting).map(|since| (account.used, since));
        if listed == account.listed {
            return;
        }
        if let Some((used, since)) = std::mem::replace(&mut account.listed, listed) {
            self.ready.remove(&(used, id));
            self.hungry.remove(&(since, id));
        }
        if let Some((used, since)) = listed {
            self.ready.insert((used, id));
            self.hungry.insert((since, id));
        }
    }

    /// Connections that one tenant may use at once.
    fn tenant_max(&self) -> usize {
        let (part, of) = TENANT_SHARE;
        (self.limit() * part / of).max(1)
    }

    fn idle_max(&self) -> Duration {
        let free = self.limit().saturating_sub(self.tally.open());
        if free * SCARCE < self.limit() { IDLE_MAX_SCARCE } else { IDLE_MAX }
    }
}

/// What a use of a connection was charged and took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use {
    pub(super) charged: u64,
    pub(super) held: Duration,
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
