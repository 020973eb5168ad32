//! Decides whose turn it is: which tenant gets a returned connection, and for which tenant one is opened.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use super::{BudgetAction, ConnectionBudget, ConnectionWaiter, TenantShare, TenantShareId, duration_nanos};
use crate::statement::AccessMode;

/// One tenant may use at most this part of a server's connections, so that others always find connections that are not
/// in use by it.
const TENANT_SHARE: (usize, usize) = (7, 8);

/// Smaller differences in use, in nanoseconds of connection time, do not count: then the order of arrival decides. With
/// a finer step, a tenant that recently logged in a few times would wait for all tenants that did not.
const TURN: u64 = 250_000_000;

/// Number of shares that are considered as takers of an idle connection: those after them have used more.
const TAKERS_MAX: usize = 16;

/// The place for a new connection.
enum OpeningPlace {
    Free,
    OfLeastRecent,
}

impl<C, W> ConnectionBudget<C, W> {
    /// Gives a returned connection to the request that should have it.
    pub(super) fn pass_on(&mut self, id: TenantShareId, login: AccessMode, conn: C, born: Instant, now: Instant) {
        if let Some(rival) = self.due_rival(id, login, born, now) {
            self.tally.count_eviction();
            return self.begin_open(rival, Some(conn), now);
        }
        let waiter = self.accounts.get_mut(&id).and_then(|account| account.waiting.for_login_mut(login).pop_front());
        match waiter {
            Some(waiter) => self.grant_connection(id, login, waiter, conn, now),
            None => self.push_idle(id, login, conn, born, now),
        }
    }

    /// Another share that should get this share's connection, because it has waited too long, or because this share has
    /// used too much while others waited. Moving the connection costs a login. So it must have served for a few times
    /// as long as a login takes, and a login must be able to start at once.
    pub(super) fn due_rival(
        &self,
        id: TenantShareId,
        login: AccessMode,
        born: Instant,
        now: Instant,
    ) -> Option<TenantShareId> {
        let patience = self.pace.switch_after();
        if self.tally.opening >= self.pace.connects_max(now) || now < born + patience {
            return None;
        }
        let (_, _, rival) = *self.ready.iter().find(|(_, _, other)| *other != id)?;
        let (since, _) = *self.hungry.iter().find(|(_, other)| *other != id)?;
        let (account, other) = (self.accounts.get(&id)?, self.accounts.get(&rival)?);
        let wasteful = account.used > other.used.saturating_add(duration_nanos(patience))
            && !account.waiting.for_login(login).is_empty();
        (wasteful || since + patience <= now).then_some(rival)
    }

    /// Opens connections for waiting shares while there is room, or an idle connection to close instead.
    pub(super) fn dispatch_opens(&mut self, now: Instant) {
        self.pace.raise_limit(self.target, now);
        while self.tally.opening < self.pace.connects_max(now) {
            let Some((id, place)) = self.next_open(now) else { return };
            let instead_of = match place {
                OpeningPlace::Free => None,
                OpeningPlace::OfLeastRecent => self.take_least_recent(),
            };
            if instead_of.is_some() {
                self.tally.count_eviction();
            }
            self.begin_open(id, instead_of.map(|(_, _, idle)| idle.conn), now);
        }
    }

    /// The share whose connection is opened next, and its place; `None` while there is no place.
    fn next_open(&self, now: Instant) -> Option<(TenantShareId, OpeningPlace)> {
        let (_, _, first) = *self.ready.first()?;
        match self.tally.open_count().cmp(&self.connection_limit()) {
            Ordering::Less => return Some((first, OpeningPlace::Free)),
            Ordering::Equal => {}
            Ordering::Greater => return None,
        }
        let idle = self.least_recent()?;
        let patience = self.pace.switch_after();
        let overdue = self.hungry.first().is_some_and(|(since, _)| *since + patience <= now);
        if overdue && idle.born + patience <= now {
            return Some((first, OpeningPlace::OfLeastRecent));
        }
        let taker = self.next_takers().find(|(_, ripe_after)| idle.since + *ripe_after <= now);
        taker.map(|(id, _)| (id, OpeningPlace::OfLeastRecent))
    }

    /// The first shares in turn, and how long a connection must have been idle to be taken for each.
    pub(super) fn next_takers(&self) -> impl Iterator<Item = (TenantShareId, Duration)> {
        let held = |id| self.accounts.get(&id).map_or(0, TenantShare::connection_count);
        self.ready.iter().take(TAKERS_MAX).map(move |(_, _, id)| (*id, self.pace.ripe_after(held(*id))))
    }

    pub(super) fn begin_open(&mut self, id: TenantShareId, instead_of: Option<C>, now: Instant) {
        let login_time = duration_nanos(self.pace.connect_time());
        let account = self.accounts.get_mut(&id).expect("only accounts are listed");
        let login = account.wanted_login().expect("only accounts that want a connection are listed");
        self.virtual_time = self.virtual_time.max(account.used);
        // Logging in also occupies the place.
        account.used = account.used.saturating_add(login_time);
        account.served_at = Some(now);
        *account.opening.for_login_mut(login) += 1;
        self.tally.opening += 1;
        self.update_order(id);
        self.actions.push(BudgetAction::Open { account: id, login, instead_of });
    }

    pub(super) fn grant_connection(
        &mut self,
        id: TenantShareId,
        login: AccessMode,
        waiter: ConnectionWaiter<W>,
        conn: C,
        now: Instant,
    ) {
        let account = self.accounts.get_mut(&id).expect("it has a waiter");
        account.in_use += 1;
        account.served_at = Some(now);
        let charged = account.charge_use();
        self.tally.in_use += 1;
        self.tally.waiting -= 1;
        self.actions.push(BudgetAction::Grant { account: id, login, wakes: waiter.wakes, conn, charged });
    }

    /// Updates the two orders of waiting shares for this share.
    pub(super) fn update_order(&mut self, id: TenantShareId) {
        let share = self.tenant_max();
        let Some(account) = self.accounts.get_mut(&id) else { return };
        let wanting = account.claimed_count() < share && account.wanted_login().is_some();
        let listed = account.waiting_since().filter(|_| wanting).map(|since| (account.used / TURN, since));
        if listed == account.listed {
            return;
        }
        if let Some((turn, since)) = std::mem::replace(&mut account.listed, listed) {
            self.ready.remove(&(turn, since, id));
            self.hungry.remove(&(since, id));
        }
        if let Some((turn, since)) = listed {
            self.ready.insert((turn, since, id));
            self.hungry.insert((since, id));
        }
    }

    /// Maximum connections that one tenant may use at once.
    pub(super) fn tenant_max(&self) -> usize {
        let (part, of) = TENANT_SHARE;
        (self.connection_limit() * part / of).max(1)
    }
}
