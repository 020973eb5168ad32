//! PURE: an estimate of a server's state: how long connecting takes, whether it accepts more connections, whether it
//! answers at all. Time and randomness are arguments.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// Estimate before the first connection is open: the time of a password login over loopback.
const CONNECT_GUESS: Duration = Duration::from_millis(4);
/// Bounds of the measured time, so that one odd measurement cannot stall or speed up everything.
const CONNECT_BOUNDS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(200));

/// A connection serves its tenant for at least this many times the cost of moving it to another tenant.
const SWITCH_FACTOR: u32 = 5;
/// Longest wait for the end of another tenant's turn, however slow connecting is.
const SWITCH_MAX: Duration = Duration::from_millis(500);

/// A connection that was idle for longer than this may be taken for any tenant.
const RIPE_MAX: Duration = Duration::from_secs(2);

/// Maximum connections that are opened at once. A login costs the server a fork and some milliseconds of processor
/// time, so more at once only makes each slower.
const CONNECTS_MAX: usize = 4;

/// After "too many connections": first and longest pause before the next attempt.
const FULL_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How often the limit is raised by one connection after that.
const RAISE_EVERY: Duration = Duration::from_secs(1);

/// When a server does not answer: first and longest time without any attempt.
const BREAK_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Why waiting requests could not be served; copied to each of them.
#[derive(Debug, Clone)]
pub(super) struct WaitFailure {
    pub(super) kind: ErrorKind,
    pub(super) message: Arc<str>,
}

impl WaitFailure {
    pub(super) fn new(kind: ErrorKind, message: &str) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<&Error> for WaitFailure {
    fn from(error: &Error) -> Self {
        Self::new(error.kind(), error.message())
    }
}

impl From<WaitFailure> for Error {
    fn from(failure: WaitFailure) -> Self {
        Self::new(failure.kind, &*failure.message)
    }
}

#[derive(Debug)]
pub(super) struct ServerHealth {
    connect: Duration,
    /// The server reported that it is full: no attempts until this pause ends.
    full: Option<RetryPause>,
    /// The reduced limit, because the server refused a further connection, and the time when it may rise by one.
    lowered: Option<(usize, Instant)>,
    broken: Option<ServerOutage>,
    chance: u64,
}

#[derive(Debug, Clone, Copy)]
struct RetryPause {
    until: Instant,
    pause: Duration,
}

#[derive(Debug)]
struct ServerOutage {
    rest: RetryPause,
    failure: WaitFailure,
}

impl ServerHealth {
    /// `chance` may be any number; it spreads the attempts of several processes.
    pub(super) fn new(chance: u64) -> Self {
        Self { connect: CONNECT_GUESS, full: None, lowered: None, broken: None, chance: chance | 1 }
    }

    /// The time of connecting, smoothed.
    pub(super) fn connect_time(&self) -> Duration {
        self.connect
    }

    /// How long a tenant may keep a connection busy while another one waits for it.
    pub(super) fn switch_after(&self) -> Duration {
        (self.connect * SWITCH_FACTOR).min(SWITCH_MAX)
    }

    /// How long a connection must have been idle before it is taken for a tenant that already holds `held`. If this
    /// were shorter than a login, a tenant that sends one request after another would lose its connection between two
    /// of them. The more connections the taker has, the less it gains from another one, while the owner still pays for
    /// a login.
    pub(super) fn ripe_after(&self, held: usize) -> Duration {
        self.connect.saturating_mul(u32::try_from(held).unwrap_or(u32::MAX).saturating_add(1)).min(RIPE_MAX)
    }

    /// How many connections may be opened at once.
    pub(super) fn connects_max(&self, now: Instant) -> usize {
        match (&self.broken, self.full) {
            (Some(broken), _) if now < broken.rest.until => 0,
            (_, Some(full)) if now < full.until => 0,
            // One attempt finds out whether the server is back.
            (Some(_), _) | (_, Some(_)) => 1,
            (None, None) => CONNECTS_MAX,
        }
    }

    /// The error that requests get at once. `probing` is true while an attempt to connect is running.
    pub(super) fn current_refusal(&self, now: Instant, probing: bool) -> Option<WaitFailure> {
        let broken = self.broken.as_ref()?;
        (probing || now < broken.rest.until).then(|| broken.failure.clone())
    }

    /// True when the server recently refused a connection because it was full.
    pub(super) fn is_full(&self) -> bool {
        self.full.is_some() || self.lowered.is_some()
    }

    /// `target`, or the number of connections that the server allows.
    pub(super) fn allowed_connections(&self, target: usize) -> usize {
        self.lowered.map_or(target, |(limit, _)| limit.min(target))
    }

    pub(super) fn record_connected(&mut self, took: Duration) {
        let took = took.clamp(CONNECT_BOUNDS.0, CONNECT_BOUNDS.1);
        self.connect = (self.connect * 7 + took) / 8;
        self.broken = None;
        self.full = None;
    }

    /// Records that the server refused another connection while this process had `open`.
    pub(super) fn refused_for_want_of_room(&mut self, open: usize, now: Instant) {
        let pause = self.full.map_or(FULL_PAUSE.0, |full| (full.pause * 2).min(FULL_PAUSE.1));
        self.full = Some(RetryPause { until: now + self.jittered_pause(pause), pause });
        self.lowered = Some((self.allowed_connections(open).max(1), now + RAISE_EVERY));
    }

    pub(super) fn record_unreachable(&mut self, failure: WaitFailure, now: Instant) {
        let before = self.broken.as_ref().map(|broken| broken.rest.pause);
        let pause = before.map_or(BREAK_PAUSE.0, |pause| (pause * 2).min(BREAK_PAUSE.1));
        self.broken =
            Some(ServerOutage { rest: RetryPause { until: now + self.jittered_pause(pause), pause }, failure });
    }

    /// Raises the limit by one connection for each second since the server was full, up to `target`.
    pub(super) fn raise_limit(&mut self, target: usize, now: Instant) {
        while let Some((limit, raise_at)) = self.lowered.filter(|(_, raise_at)| *raise_at <= now) {
            self.lowered = (limit + 1 < target).then_some((limit + 1, raise_at + RAISE_EVERY));
        }
    }

    /// When the next change happens that depends on time alone.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        let rests = [self.broken.as_ref().map(|broken| broken.rest), self.full];
        let ends = rests.into_iter().flatten().map(|rest| rest.until);
        ends.chain(self.lowered.map(|(_, raise_at)| raise_at)).filter(|at| *at > now).min()
    }

    /// A random time between half and three halves of the pause.
    fn jittered_pause(&mut self, pause: Duration) -> Duration {
        // Xorshift: the number only needs to be evenly distributed.
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        let thousandth = u32::try_from(self.chance % 1_000).unwrap_or_default();
        pause / 2 + pause * thousandth / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_odd_measurement_moves_little() {
        let mut pace = ServerHealth::new(7);
        for _ in 0..50 {
            pace.record_connected(Duration::from_millis(8));
        }
        let steady = pace.connect_time();
        assert!(steady > Duration::from_millis(7) && steady <= Duration::from_millis(8), "{steady:?}");
        pace.record_connected(Duration::from_secs(60));
        assert!(pace.connect_time() < Duration::from_millis(40));
        assert_eq!(pace.switch_after(), pace.connect_time() * 5);
    }

    #[test]
    fn a_full_server_is_asked_again_later_and_trusted_slowly() {
        let (mut pace, now) = (ServerHealth::new(7), Instant::now());
        pace.refused_for_want_of_room(10, now);
        assert_eq!((pace.allowed_connections(64), pace.connects_max(now)), (10, 0));
        let later = now + Duration::from_millis(100);
        assert_eq!(pace.connects_max(later), 1);
        pace.record_connected(Duration::from_millis(3));
        assert_eq!((pace.allowed_connections(64), pace.connects_max(later)), (10, 4));
        pace.raise_limit(64, now + Duration::from_millis(3_500));
        assert_eq!(pace.allowed_connections(64), 13);
        pace.raise_limit(64, now + Duration::from_secs(3_600));
        assert_eq!(pace.allowed_connections(64), 64);
        assert_eq!(pace.next_change(now), None);
        pace.refused_for_want_of_room(0, now);
        assert_eq!(pace.allowed_connections(64), 1);
    }

    #[test]
    fn a_silent_server_is_probed_less_and_less() {
        let (mut pace, mut now) = (ServerHealth::new(7), Instant::now());
        let down = WaitFailure::new(ErrorKind::ServerUnreachable, "down");
        for _ in 0..20 {
            pace.record_unreachable(down.clone(), now);
            assert_eq!(pace.connects_max(now), 0);
            assert_eq!(pace.current_refusal(now, false).unwrap().kind, ErrorKind::ServerUnreachable);
            let next = pace.next_change(now).unwrap();
            assert!(next - now >= BREAK_PAUSE.0 / 2 && next - now <= BREAK_PAUSE.1 * 3 / 2);
            now = next;
            assert!(pace.current_refusal(now, false).is_none() && pace.current_refusal(now, true).is_some());
            assert_eq!(pace.connects_max(now), 1);
        }
        pace.record_connected(Duration::from_millis(3));
        assert!(pace.current_refusal(now, true).is_none());
    }
}
