//! Closes connections: idle ones by time, and others for a smaller budget or a closed pool.

use std::time::{Duration, Instant};

use super::{
    BudgetAction, CloseReason, ConnectionBudget, IdleConnection, LOGINS, TenantShareId, WaitFailure, account_closed,
};
use crate::statement::AccessMode;

/// An idle connection is kept this long: a minute's pause of a user must not cost a login.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// The limit while less than an eighth of the connections are free. Such a connection would probably be closed for
/// another tenant, which would have to wait for that.
const IDLE_MAX_SCARCE: Duration = Duration::from_secs(60);
const SCARCE: usize = 8;

impl<C, W> ConnectionBudget<C, W> {
    /// Sets how many connections there may be from now on.
    pub(in crate::postgres) fn set_target(&mut self, target: usize, now: Instant) {
        self.target = target.max(1);
        while self.tally.staying_count() > self.connection_limit() {
            let Some((_, id, idle)) = self.take_least_recent() else { break };
            self.close_connection(id, idle.conn, CloseReason::Shrunk);
        }
        self.dispatch_opens(now);
    }

    /// Handles the passage of time: closes connections that were idle for too long, and serves requests that waited
    /// only for time.
    pub(in crate::postgres) fn pass_time(&mut self, now: Instant) {
        while self.least_recent().is_some_and(|idle| idle.since + self.idle_max() <= now) {
            let Some((_, id, idle)) = self.take_least_recent() else { break };
            self.close_connection(id, idle.conn, CloseReason::Idle);
        }
        self.dispatch_opens(now);
    }

    /// When [`ConnectionBudget::pass_time`] must be called next, if nothing else happens before.
    pub(in crate::postgres) fn next_event(&self, now: Instant) -> Option<Instant> {
        let since = self.least_recent().map(|idle| idle.since);
        let idle = since.map(|since| since + self.idle_max());
        if self.ready.is_empty() {
            return idle;
        }
        let ripe =
            self.next_takers().filter_map(|(_, ripe_after)| Some(since? + ripe_after)).filter(|at| *at > now).min();
        let overdue = self.hungry.first().map(|(since, _)| *since + self.pace.switch_after());
        let overdue = overdue.filter(|_| since.is_some());
        [idle, ripe, overdue, self.pace.next_change(now)].into_iter().flatten().filter(|at| *at > now).min()
    }

    /// Closes the idle connections of one login, which are no longer useful.
    pub(in crate::postgres) fn forget_idle(&mut self, id: TenantShareId, login: AccessMode, reason: CloseReason) {
        self.close_idle_of(id, &[login], reason);
    }

    /// Closes a share: it gets no more connections, and those in use are closed when they are returned.
    pub(in crate::postgres) fn close_account(&mut self, id: TenantShareId, reason: CloseReason) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        account.closed = true;
        let failure = account_closed();
        self.fail_waiters(id, &LOGINS, &failure);
        self.close_idle_of(id, &LOGINS, reason);
        self.forget_if_gone(id);
    }

    /// The ids of all shares.
    pub(in crate::postgres) fn account_ids(&self) -> Vec<TenantShareId> {
        self.accounts.keys().copied().collect()
    }

    pub(in crate::postgres) fn push_idle(
        &mut self,
        id: TenantShareId,
        login: AccessMode,
        conn: C,
        born: Instant,
        now: Instant,
    ) {
        let sequence = self.next_number();
        let account = self.accounts.get_mut(&id).expect("it is open");
        account.idle.for_login_mut(login).push(IdleConnection { sequence, since: now, born, conn });
        self.idle.insert(sequence, (id, login));
        self.tally.idle += 1;
    }

    pub(in crate::postgres) fn least_recent(&self) -> Option<&IdleConnection<C>> {
        let (_, (id, login)) = self.idle.first_key_value()?;
        self.accounts.get(id)?.idle.for_login(*login).first()
    }

    pub(in crate::postgres) fn take_least_recent(&mut self) -> Option<(AccessMode, TenantShareId, IdleConnection<C>)> {
        let (_, (id, login)) = self.idle.pop_first()?;
        let account = self.accounts.get_mut(&id).expect("idle connections have an account");
        // The stack is in the order of the sequence, so the first connection of all is the first of its own stack.
        let idle = account.idle.for_login_mut(login).remove(0);
        self.tally.idle -= 1;
        Some((login, id, idle))
    }

    pub(in crate::postgres) fn close_idle_of(&mut self, id: TenantShareId, logins: &[AccessMode], reason: CloseReason) {
        for login in logins {
            let Some(account) = self.accounts.get_mut(&id) else { return };
            for idle in std::mem::take(account.idle.for_login_mut(*login)) {
                self.idle.remove(&idle.sequence);
                self.tally.idle -= 1;
                self.close_connection(id, idle.conn, reason);
            }
        }
    }

    pub(in crate::postgres) fn close_connection(&mut self, id: TenantShareId, conn: C, reason: CloseReason) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.closing += 1;
        }
        self.tally.closing += 1;
        self.tally.count_close(reason);
        self.actions.push(BudgetAction::Close { account: id, conn });
    }

    pub(in crate::postgres) fn fail_waiters(
        &mut self,
        id: TenantShareId,
        logins: &[AccessMode],
        failure: &WaitFailure,
    ) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        for login in logins {
            for waiter in account.waiting.for_login_mut(*login).drain(..) {
                self.tally.waiting -= 1;
                self.actions.push(BudgetAction::Fail { wakes: waiter.wakes, failure: failure.clone() });
            }
        }
        self.update_order(id);
    }

    pub(in crate::postgres) fn forget_if_gone(&mut self, id: TenantShareId) {
        if self.accounts.get(&id).is_some_and(|account| account.closed && account.connection_count() == 0) {
            self.accounts.remove(&id);
            self.actions.push(BudgetAction::Gone { account: id });
        }
    }

    pub(in crate::postgres) fn idle_max(&self) -> Duration {
        let free = self.connection_limit().saturating_sub(self.tally.open_count());
        if free * SCARCE < self.connection_limit() { IDLE_MAX_SCARCE } else { IDLE_MAX }
    }
}
