//! Whose turn it is: who is given the connection that came back, and for whom one is opened.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use super::{Account, AccountId, Action, Budget, Waiter, nanos};
use crate::pool::Access;

/// One tenant may use at most this part of a server's connections, so that others always find some that are not in the
/// middle of its work.
const TENANT_SHARE: (usize, usize) = (7, 8);

/// Differences in use below this, in nanoseconds of connection time, do not count: who came first comes first. Finer, a
/// tenant that logged in a few times lately would wait for all that did not.
const TURN: u64 = 250_000_000;

/// Accounts that are looked at for one that may take an idle connection: those behind them have had more.
const TAKERS_MAX: usize = 16;

/// Where a connection is to be opened.
enum Place {
    Free,
    OfLeastRecent,
}

impl<C, W> Budget<C, W> {
    /// Gives a connection that has come back to whom it is due.
    pub(super) fn pass_on(&mut self, id: AccountId, login: Access, conn: C, born: Instant, now: Instant) {
        if let Some(rival) = self.rival(id, login, born, now) {
            self.tally.evicted();
            return self.open(rival, Some(conn), now);
        }
        let waiter = self.accounts.get_mut(&id).and_then(|account| account.waiting.of_mut(login).pop_front());
        match waiter {
            Some(waiter) => self.grant(id, login, waiter, conn, now),
            None => self.push_idle(id, login, conn, born, now),
        }
    }

    /// Another account that this one's connection is due to: one has waited for too long, or this one has used too
    /// much while others waited. Moving it costs a login, so only when it has served for a few times as long as that takes,
    /// and a login can be made at once.
    pub(super) fn rival(&self, id: AccountId, login: Access, born: Instant, now: Instant) -> Option<AccountId> {
        let patience = self.pace.switch_after();
        if self.tally.opening >= self.pace.connects_max(now) || now < born + patience {
            return None;
        }
        let (_, _, rival) = *self.ready.iter().find(|(_, _, other)| *other != id)?;
        let (since, _) = *self.hungry.iter().find(|(_, other)| *other != id)?;
        let (account, other) = (self.accounts.get(&id)?, self.accounts.get(&rival)?);
        let wasteful =
            account.used > other.used.saturating_add(nanos(patience)) && !account.waiting.of(login).is_empty();
        (wasteful || since + patience <= now).then_some(rival)
    }

    /// Opens connections for waiting accounts while there is room, or something to close instead.
    pub(super) fn dispatch(&mut self, now: Instant) {
        self.pace.recover(self.target, now);
        while self.tally.opening < self.pace.connects_max(now) {
            let Some((id, place)) = self.next(now) else { return };
            let instead_of = match place {
                Place::Free => None,
                Place::OfLeastRecent => self.take_least_recent(),
            };
            if instead_of.is_some() {
                self.tally.evicted();
            }
            self.open(id, instead_of.map(|(_, _, idle)| idle.conn), now);
        }
    }

    /// Whose connection is opened next, and in which place; nobody's while there is no place.
    fn next(&self, now: Instant) -> Option<(AccountId, Place)> {
        let (_, _, first) = *self.ready.first()?;
        match self.tally.open().cmp(&self.limit()) {
            Ordering::Less => return Some((first, Place::Free)),
            Ordering::Equal => {}
            Ordering::Greater => return None,
        }
        let idle = self.least_recent()?;
        let patience = self.pace.switch_after();
        let overdue = self.hungry.first().is_some_and(|(since, _)| *since + patience <= now);
        if overdue && idle.born + patience <= now {
            return Some((first, Place::OfLeastRecent));
        }
        let taker = self.takers().find(|(_, ripe_after)| idle.since + *ripe_after <= now);
        taker.map(|(id, _)| (id, Place::OfLeastRecent))
    }

    /// The first accounts in turn, and for how long a connection must have been idle to be taken for each.
    pub(super) fn takers(&self) -> impl Iterator<Item = (AccountId, Duration)> {
        let held = |id| self.accounts.get(&id).map_or(0, Account::connections);
        self.ready.iter().take(TAKERS_MAX).map(move |(_, _, id)| (*id, self.pace.ripe_after(held(*id))))
    }

    pub(super) fn open(&mut self, id: AccountId, instead_of: Option<C>, now: Instant) {
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

    pub(super) fn grant(&mut self, id: AccountId, login: Access, waiter: Waiter<W>, conn: C, now: Instant) {
        let account = self.accounts.get_mut(&id).expect("it has a waiter");
        account.in_use += 1;
        account.served_at = Some(now);
        let charged = account.charge();
        self.tally.in_use += 1;
        self.tally.waiting -= 1;
        self.actions.push(Action::Grant { account: id, login, wakes: waiter.wakes, conn, charged });
    }

    /// Keeps the two orders of wanting accounts true for this one.
    pub(super) fn list(&mut self, id: AccountId) {
        let share = self.tenant_max();
        let Some(account) = self.accounts.get_mut(&id) else { return };
        let wanting = account.claimed() < share && account.wants().is_some();
        let listed = account.hungry_since().filter(|_| wanting).map(|since| (account.used / TURN, since));
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

    /// Connections that one tenant may use at once.
    pub(super) fn tenant_max(&self) -> usize {
        let (part, of) = TENANT_SHARE;
        (self.limit() * part / of).max(1)
    }
}
