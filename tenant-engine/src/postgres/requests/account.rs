//! PURE: what one tenant's pool holds and wants of a server's connections, and what it has used.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::pool::Access;

/// One pool, as the budget knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AccountId(pub(super) u64);

/// One waiting request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket(pub(super) u64);

/// The logins of a tenant.
pub(super) const LOGINS: [Access; 2] = [Access::Read, Access::Write];

/// Something for each of the two logins of a tenant.
#[derive(Debug, Default)]
pub(super) struct PerLogin<T> {
    read: T,
    write: T,
}

impl<T> PerLogin<T> {
    pub(super) fn of(&self, login: Access) -> &T {
        match login {
            Access::Read => &self.read,
            Access::Write => &self.write,
        }
    }

    pub(super) fn of_mut(&mut self, login: Access) -> &mut T {
        match login {
            Access::Read => &mut self.read,
            Access::Write => &mut self.write,
        }
    }
}

/// A connection that nobody uses.
#[derive(Debug)]
pub(super) struct Idle<C> {
    /// Its place in the budget's order of idle connections.
    pub(super) sequence: u64,
    pub(super) since: Instant,
    /// When it was opened.
    pub(super) born: Instant,
    pub(super) conn: C,
}

/// A request that waits for a connection.
#[derive(Debug)]
pub(super) struct Waiter<W> {
    pub(super) ticket: Ticket,
    pub(super) since: Instant,
    /// What to wake it with.
    pub(super) wakes: W,
}

/// Both logins of a tenant are one account: what one of them uses, the other one pays for too.
#[derive(Debug)]
pub(super) struct Account<C, W> {
    /// The oldest first, the last used last.
    pub(super) idle: PerLogin<Vec<Idle<C>>>,
    pub(super) waiting: PerLogin<VecDeque<Waiter<W>>>,
    pub(super) opening: PerLogin<usize>,
    pub(super) in_use: usize,
    pub(super) closing: usize,
    /// Connection time used, in nanoseconds on the budget's virtual clock.
    pub(super) used: u64,
    /// What one use takes, smoothed.
    estimate: u64,
    /// When it was last given a connection.
    pub(super) served_at: Option<Instant>,
    /// Where the budget's two orders of wanting accounts hold it.
    pub(super) listed: Option<(u64, Instant)>,
    pub(super) closed: bool,
}

/// Until a tenant's first request is over: a point read.
const ESTIMATE_FIRST: Duration = Duration::from_millis(1);

impl<C, W> Account<C, W> {
    pub(super) fn new() -> Self {
        Self {
            idle: PerLogin { read: Vec::new(), write: Vec::new() },
            waiting: PerLogin { read: VecDeque::new(), write: VecDeque::new() },
            opening: PerLogin::default(),
            in_use: 0,
            closing: 0,
            used: 0,
            estimate: nanos(ESTIMATE_FIRST),
            served_at: None,
            listed: None,
            closed: false,
        }
    }

    /// Connections open, being opened or being closed.
    pub(super) fn connections(&self) -> usize {
        self.idle.read.len() + self.idle.write.len() + self.claimed() + self.closing
    }

    /// Connections that its requests use or are about to.
    pub(super) fn claimed(&self) -> usize {
        self.in_use + self.opening.read + self.opening.write
    }

    pub(super) fn waiters(&self) -> usize {
        self.waiting.read.len() + self.waiting.write.len()
    }

    /// The login that has more waiters than connections in the making; of both, the one that has waited longer.
    pub(super) fn wants(&self) -> Option<Access> {
        let since = |login| {
            let waiting = self.waiting.of(login);
            (waiting.len() > *self.opening.of(login)).then(|| waiting.front().map(|waiter| waiter.since)).flatten()
        };
        match (since(Access::Read), since(Access::Write)) {
            (Some(read), Some(write)) if write < read => Some(Access::Write),
            (Some(_), _) => Some(Access::Read),
            (None, Some(_)) => Some(Access::Write),
            (None, None) => None,
        }
    }

    /// Since when nothing was given to it although it waits.
    pub(super) fn hungry_since(&self) -> Option<Instant> {
        let heads = [self.waiting.read.front(), self.waiting.write.front()];
        let first = heads.into_iter().flatten().map(|waiter| waiter.since).min()?;
        Some(self.served_at.map_or(first, |served| served.max(first)))
    }

    /// Charges what a use is expected to take, and returns it for [`Account::correct`].
    pub(super) fn charge(&mut self) -> u64 {
        self.used = self.used.saturating_add(self.estimate);
        self.estimate
    }

    /// Replaces the estimate that was charged by what the use took.
    pub(super) fn correct(&mut self, charged: u64, held: Duration) {
        let held = nanos(held);
        self.used = self.used.saturating_sub(charged).saturating_add(held);
        self.estimate = (self.estimate / 8 * 7).saturating_add(held / 8);
    }

    /// Begins to wait. Whoever comes back after a while neither saved up time nor pays for what nobody else wanted:
    /// it starts at most `quantum` behind the others.
    pub(super) fn join(&mut self, virtual_time: u64, quantum: Duration) {
        self.used = self.used.clamp(virtual_time, virtual_time.saturating_add(nanos(quantum)));
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
