//! PURE: the connections to a server that one tenant's pool holds and waits for, and the connection time that it has
//! used.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::statement::AccessMode;

/// Identifies one pool in the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TenantShareId(pub(super) u64);

/// Identifies one waiting request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WaitTicket(pub(super) u64);

/// The two logins of a tenant.
pub(super) const LOGINS: [AccessMode; 2] = [AccessMode::Read, AccessMode::Write];

/// One value for each of a tenant's two logins.
#[derive(Debug, Default)]
pub(super) struct PerLogin<T> {
    read: T,
    write: T,
}

impl<T> PerLogin<T> {
    pub(super) fn for_login(&self, login: AccessMode) -> &T {
        match login {
            AccessMode::Read => &self.read,
            AccessMode::Write => &self.write,
        }
    }

    pub(super) fn for_login_mut(&mut self, login: AccessMode) -> &mut T {
        match login {
            AccessMode::Read => &mut self.read,
            AccessMode::Write => &mut self.write,
        }
    }
}

/// A connection that is not in use.
#[derive(Debug)]
pub(super) struct IdleConnection<C> {
    /// Its position in the budget's order of idle connections.
    pub(super) sequence: u64,
    pub(super) since: Instant,
    /// The time when it was opened.
    pub(super) born: Instant,
    pub(super) conn: C,
}

/// A request that waits for a connection.
#[derive(Debug)]
pub(super) struct ConnectionWaiter<W> {
    pub(super) ticket: WaitTicket,
    pub(super) since: Instant,
    /// Wakes the request.
    pub(super) wakes: W,
}

/// The share of one tenant. Both of its logins have one share: time that one login uses counts for the other one, too.
#[derive(Debug)]
pub(super) struct TenantShare<C, W> {
    /// Idle connections, the most recently used last.
    pub(super) idle: PerLogin<Vec<IdleConnection<C>>>,
    pub(super) waiting: PerLogin<VecDeque<ConnectionWaiter<W>>>,
    pub(super) opening: PerLogin<usize>,
    pub(super) in_use: usize,
    pub(super) closing: usize,
    /// Connection time used, in nanoseconds on the budget's virtual clock.
    pub(super) used: u64,
    /// Expected time of one use, smoothed.
    estimate: u64,
    /// When it last got a connection.
    pub(super) served_at: Option<Instant>,
    /// Its key in the budget's two orders of waiting shares.
    pub(super) listed: Option<(u64, Instant)>,
    pub(super) closed: bool,
}

/// Estimate before a tenant's first request has finished: a point read.
const ESTIMATE_FIRST: Duration = Duration::from_millis(1);

impl<C, W> TenantShare<C, W> {
    pub(super) fn new() -> Self {
        Self {
            idle: PerLogin { read: Vec::new(), write: Vec::new() },
            waiting: PerLogin { read: VecDeque::new(), write: VecDeque::new() },
            opening: PerLogin::default(),
            in_use: 0,
            closing: 0,
            used: 0,
            estimate: duration_nanos(ESTIMATE_FIRST),
            served_at: None,
            listed: None,
            closed: false,
        }
    }

    /// Number of connections that are open, being opened or being closed.
    pub(super) fn connection_count(&self) -> usize {
        self.idle.read.len() + self.idle.write.len() + self.claimed_count() + self.closing
    }

    /// Number of connections that its requests use or are about to use.
    pub(super) fn claimed_count(&self) -> usize {
        self.in_use + self.opening.read + self.opening.write
    }

    pub(super) fn waiter_count(&self) -> usize {
        self.waiting.read.len() + self.waiting.write.len()
    }

    /// The login that has more waiters than connections being opened. If both have, the login that has waited longer.
    pub(super) fn wanted_login(&self) -> Option<AccessMode> {
        let since = |login| {
            let waiting = self.waiting.for_login(login);
            (waiting.len() > *self.opening.for_login(login))
                .then(|| waiting.front().map(|waiter| waiter.since))
                .flatten()
        };
        match (since(AccessMode::Read), since(AccessMode::Write)) {
            (Some(read), Some(write)) if write < read => Some(AccessMode::Write),
            (Some(_), _) => Some(AccessMode::Read),
            (None, Some(_)) => Some(AccessMode::Write),
            (None, None) => None,
        }
    }

    /// Time since which it waits without getting a connection.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let heads = [self.waiting.read.front(), self.waiting.write.front()];
        let first = heads.into_iter().flatten().map(|waiter| waiter.since).min()?;
        Some(self.served_at.map_or(first, |served| served.max(first)))
    }

    /// Charges the expected time of a use, and returns it for [`TenantShare::correct_charge`].
    pub(super) fn charge_use(&mut self) -> u64 {
        self.used = self.used.saturating_add(self.estimate);
        self.estimate
    }

    /// Replaces the charged estimate by the time that the use took.
    pub(super) fn correct_charge(&mut self, charged: u64, held: Duration) {
        let held = duration_nanos(held);
        self.used = self.used.saturating_sub(charged).saturating_add(held);
        self.estimate = (self.estimate / 8 * 7).saturating_add(held / 8);
    }

    /// Begins to wait. A tenant that was inactive has neither saved up time, nor does it pay for time that no other
    /// tenant wanted: it starts at most `quantum` behind the others.
    pub(super) fn join_waiting(&mut self, virtual_time: u64, quantum: Duration) {
        self.used = self.used.clamp(virtual_time, virtual_time.saturating_add(duration_nanos(quantum)));
    }
}

pub(super) fn duration_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
