//! Idle connections, and what ends: by time, by a smaller budget, with its account.

use std::time::{Duration, Instant};

use super::{AccountId, Action, Budget, Failure, Idle, LOGINS, Reason, closed};
use crate::pool::Access;

/// An idle connection is kept this long: a minute's pause of a user must not cost a login.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// The same while less than an eighth of the connections are free: then it is more likely to be closed for another
/// tenant's sake, which that tenant waits for.
const IDLE_MAX_SCARCE: Duration = Duration::from_secs(60);
const SCARCE: usize = 8;

impl<C, W> Budget<C, W> {
    /// How many connections there may be from now on.
    pub(in crate::postgres) fn set_target(&mut self, target: usize, now: Instant) {
        self.target = target.max(1);
        while self.tally.staying() > self.limit() {
            let Some((_, id, idle)) = self.take_least_recent() else { break };
            self.close(id, idle.conn, Reason::Shrunk);
        }
        self.dispatch(now);
    }

    /// Time has passed: closes what was idle for too long, and serves whom only time kept waiting.
    pub(in crate::postgres) fn pass_time(&mut self, now: Instant) {
        while self.least_recent().is_some_and(|idle| idle.since + self.idle_max() <= now) {
            let Some((_, id, idle)) = self.take_least_recent() else { break };
            self.close(id, idle.conn, Reason::Idle);
        }
        self.dispatch(now);
    }

    /// When [`Budget::pass_time`] has something to do, if nothing else happens before.
    pub(in crate::postgres) fn next_event(&self, now: Instant) -> Option<Instant> {
        let since = self.least_recent().map(|idle| idle.since);
        let idle = since.map(|since| since + self.idle_max());
        if self.ready.is_empty() {
            return idle;
        }
        let ripe = self.takers().filter_map(|(_, ripe_after)| Some(since? + ripe_after)).filter(|at| *at > now).min();
        let overdue = self.hungry.first().map(|(since, _)| *since + self.pace.switch_after());
        let overdue = overdue.filter(|_| since.is_some());
        [idle, ripe, overdue, self.pace.next_change(now)].into_iter().flatten().filter(|at| *at > now).min()
    }

    /// The idle connections of one login are of no use any more.
    pub(in crate::postgres) fn forget_idle(&mut self, id: AccountId, login: Access, reason: Reason) {
        self.close_idle_of(id, &[login], reason);
    }

    /// No more connections for this account; those in use are closed when they come back.
    pub(in crate::postgres) fn close_account(&mut self, id: AccountId, reason: Reason) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        account.closed = true;
        let failure = closed();
        self.fail_waiters(id, &LOGINS, &failure);
        self.close_idle_of(id, &LOGINS, reason);
        self.forget_if_gone(id);
    }

    /// The accounts there are.
    pub(in crate::postgres) fn account_ids(&self) -> Vec<AccountId> {
        self.accounts.keys().copied().collect()
    }

    pub(in crate::postgres) fn push_idle(
        &mut self,
        id: AccountId,
        login: Access,
        conn: C,
        born: Instant,
        now: Instant,
    ) {
        let sequence = self.number();
        let account = self.accounts.get_mut(&id).expect("it is open");
        account.idle.of_mut(login).push(Idle { sequence, since: now, born, conn });
        self.idle.insert(sequence, (id, login));
        self.tally.idle += 1;
    }

    pub(in crate::postgres) fn least_recent(&self) -> Option<&Idle<C>> {
        let (_, (id, login)) = self.idle.first_key_value()?;
        self.accounts.get(id)?.idle.of(*login).first()
    }

    pub(in crate::postgres) fn take_least_recent(&mut self) -> Option<(Access, AccountId, Idle<C>)> {
        let (_, (id, login)) = self.idle.pop_first()?;
        let account = self.accounts.get_mut(&id).expect("idle connections have an account");
        // The stack is in the order of the sequence, so the first of all is the first of its own.
        let idle = account.idle.of_mut(login).remove(0);
        self.tally.idle -= 1;
        Some((login, id, idle))
    }

    pub(in crate::postgres) fn close_idle_of(&mut self, id: AccountId, logins: &[Access], reason: Reason) {
        for login in logins {
            let Some(account) = self.accounts.get_mut(&id) else { return };
            for idle in std::mem::take(account.idle.of_mut(*login)) {
                self.idle.remove(&idle.sequence);
                self.tally.idle -= 1;
                self.close(id, idle.conn, reason);
            }
        }
    }

    pub(in crate::postgres) fn close(&mut self, id: AccountId, conn: C, reason: Reason) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.closing += 1;
        }
        self.tally.closing += 1;
        self.tally.closed(reason);
        self.actions.push(Action::Close { account: id, conn });
    }

    pub(in crate::postgres) fn fail_waiters(&mut self, id: AccountId, logins: &[Access], failure: &Failure) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        for login in logins {
            for waiter in account.waiting.of_mut(*login).drain(..) {
                self.tally.waiting -= 1;
                self.actions.push(Action::Fail { wakes: waiter.wakes, failure: failure.clone() });
            }
        }
        self.list(id);
    }

    pub(in crate::postgres) fn forget_if_gone(&mut self, id: AccountId) {
        if self.accounts.get(&id).is_some_and(|account| account.closed && account.connections() == 0) {
            self.accounts.remove(&id);
            self.actions.push(Action::Gone { account: id });
        }
    }

    pub(in crate::postgres) fn idle_max(&self) -> Duration {
        let free = self.limit().saturating_sub(self.tally.open());
        if free * SCARCE < self.limit() { IDLE_MAX_SCARCE } else { IDLE_MAX }
    }
}
