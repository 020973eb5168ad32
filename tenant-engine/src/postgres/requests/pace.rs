//! PURE: what we believe about a server: how long connecting takes, whether it takes more connections, whether it
//! answers at all. Time and chance are arguments.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// Until the first connection stands: what a password login over loopback takes.
const CONNECT_GUESS: Duration = Duration::from_millis(4);
/// Bounds of the measured time, so that one odd measurement cannot stall or speed up everything.
const CONNECT_BOUNDS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(200));

/// A connection serves its tenant for at least this many times what moving it to another one costs.
const SWITCH_FACTOR: u32 = 5;
/// Nobody waits longer than this for another tenant's turn to end, however slow connecting is.
const SWITCH_MAX: Duration = Duration::from_millis(500);

/// What is idle for longer than this may be taken for anybody.
const RIPE_MAX: Duration = Duration::from_secs(2);

/// Connections being made at once: a login is a fork and some milliseconds of the server's processor; more at once only
/// makes each slower.
const CONNECTS_MAX: usize = 4;

/// After "too many connections": first and longest pause before the next attempt.
const FULL_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How often one more connection is tried again after that.
const RAISE_EVERY: Duration = Duration::from_secs(1);

/// When a server does not answer: first and longest time without any attempt.
const BREAK_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Why requests could not be served, for as many of them as wait.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) message: Arc<str>,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: &str) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self::new(error.kind(), error.message())
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::new(failure.kind, &*failure.message)
    }
}

#[derive(Debug)]
pub(super) struct Pace {
    connect: Duration,
    /// The server said that it is full: attempts rest until then.
    full: Option<Rest>,
    /// Fewer connections than configured, because the server refused one more; with when it may be one more again.
    lowered: Option<(usize, Instant)>,
    broken: Option<Broken>,
    chance: u64,
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    pause: Duration,
}

#[derive(Debug)]
struct Broken {
    rest: Rest,
    failure: Failure,
}

impl Pace {
    /// `chance`: anything; spreads the attempts of several processes.
    pub(super) fn new(chance: u64) -> Self {
        Self { connect: CONNECT_GUESS, full: None, lowered: None, broken: None, chance: chance | 1 }
    }

    /// What connecting takes, smoothed.
    pub(super) fn connect(&self) -> Duration {
        self.connect
    }

    /// How long a tenant may keep a connection busy while another one waits for it.
    pub(super) fn switch_after(&self) -> Duration {
        (self.connect * SWITCH_FACTOR).min(SWITCH_MAX)
    }

    /// How long a connection must have been idle before it is taken for a tenant that has `held` already. In less than
    /// a login takes, a tenant that sends one request after the other would lose it between two of them; and the more
    /// its taker has, the less one more is worth, while its owner pays for a login all the same.
    pub(super) fn ripe_after(&self, held: usize) -> Duration {
        self.connect.saturating_mul(u32::try_from(held).unwrap_or(u32::MAX).saturating_add(1)).min(RIPE_MAX)
    }

    /// How many connections may be in the making.
    pub(super) fn connects_max(&self, now: Instant) -> usize {
        match (&self.broken, self.full) {
            (Some(broken), _) if now < broken.rest.until => 0,
            (_, Some(full)) if now < full.until => 0,
            // Whether it is back, one attempt finds out.
            (Some(_), _) | (_, Some(_)) => 1,
            (None, None) => CONNECTS_MAX,
        }
    }

    /// The error that requests get at once. `probing`: an attempt is under way.
    pub(super) fn refusal(&self, now: Instant, probing: bool) -> Option<Failure> {
        let broken = self.broken.as_ref()?;
        (probing || now < broken.rest.until).then(|| broken.failure.clone())
    }

    /// True when the server refused for want of connections lately.
    pub(super) fn is_full(&self) -> bool {
        self.full.is_some() || self.lowered.is_some()
    }

    /// `target`, or what the server lets us have.
    pub(super) fn limit(&self, target: usize) -> usize {
        self.lowered.map_or(target, |(limit, _)| limit.min(target))
    }

    pub(super) fn connected(&mut self, took: Duration) {
        let took = took.clamp(CONNECT_BOUNDS.0, CONNECT_BOUNDS.1);
        self.connect = (self.connect * 7 + took) / 8;
        self.broken = None;
        self.full = None;
    }

    /// The server had `open` connections of ours when it refused one more.
    pub(super) fn refused_for_want_of_room(&mut self, open: usize, now: Instant) {
        let pause = self.full.map_or(FULL_PAUSE.0, |full| (full.pause * 2).min(FULL_PAUSE.1));
        self.full = Some(Rest { until: now + self.jittered(pause), pause });
        self.lowered = Some((self.limit(open).max(1), now + RAISE_EVERY));
    }

    pub(super) fn unreachable(&mut self, failure: Failure, now: Instant) {
        let before = self.broken.as_ref().map(|broken| broken.rest.pause);
        let pause = before.map_or(BREAK_PAUSE.0, |pause| (pause * 2).min(BREAK_PAUSE.1));
        self.broken = Some(Broken { rest: Rest { until: now + self.jittered(pause), pause }, failure });
    }

    /// One connection more for each second since the server was full, up to `target`.
    pub(super) fn recover(&mut self, target: usize, now: Instant) {
        while let Some((limit, raise_at)) = self.lowered.filter(|(_, raise_at)| *raise_at <= now) {
            self.lowered = (limit + 1 < target).then_some((limit + 1, raise_at + RAISE_EVERY));
        }
    }

    /// When something that waits for time alone changes next.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        let rests = [self.broken.as_ref().map(|broken| broken.rest), self.full];
        let ends = rests.into_iter().flatten().map(|rest| rest.until);
        ends.chain(self.lowered.map(|(_, raise_at)| raise_at)).filter(|at| *at > now).min()
    }

    /// Between half and three halves of it.
    fn jittered(&mut self, pause: Duration) -> Duration {
        // Xorshift: evenly spread is all it has to be.
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
        let mut pace = Pace::new(7);
        for _ in 0..50 {
            pace.connected(Duration::from_millis(8));
        }
        let steady = pace.connect();
        assert!(steady > Duration::from_millis(7) && steady <= Duration::from_millis(8), "{steady:?}");
        pace.connected(Duration::from_secs(60));
        assert!(pace.connect() < Duration::from_millis(40));
        assert_eq!(pace.switch_after(), pace.connect() * 5);
    }

    #[test]
    fn a_full_server_is_asked_again_later_and_trusted_slowly() {
        let (mut pace, now) = (Pace::new(7), Instant::now());
        pace.refused_for_want_of_room(10, now);
        assert_eq!((pace.limit(64), pace.connects_max(now)), (10, 0));
        let later = now + Duration::from_millis(100);
        assert_eq!(pace.connects_max(later), 1);
        pace.connected(Duration::from_millis(3));
        assert_eq!((pace.limit(64), pace.connects_max(later)), (10, 4));
        pace.recover(64, now + Duration::from_millis(3_500));
        assert_eq!(pace.limit(64), 13);
        pace.recover(64, now + Duration::from_secs(3_600));
        assert_eq!(pace.limit(64), 64);
        assert_eq!(pace.next_change(now), None);
        pace.refused_for_want_of_room(0, now);
        assert_eq!(pace.limit(64), 1);
    }

    #[test]
    fn a_silent_server_is_probed_less_and_less() {
        let (mut pace, mut now) = (Pace::new(7), Instant::now());
        let down = Failure::new(ErrorKind::ServerUnreachable, "down");
        for _ in 0..20 {
            pace.unreachable(down.clone(), now);
            assert_eq!(pace.connects_max(now), 0);
            assert_eq!(pace.refusal(now, false).unwrap().kind, ErrorKind::ServerUnreachable);
            let next = pace.next_change(now).unwrap();
            assert!(next - now >= BREAK_PAUSE.0 / 2 && next - now <= BREAK_PAUSE.1 * 3 / 2);
            now = next;
            assert!(pace.refusal(now, false).is_none() && pace.refusal(now, true).is_some());
            assert_eq!(pace.connects_max(now), 1);
        }
        pace.connected(Duration::from_millis(3));
        assert!(pace.refusal(now, true).is_none());
    }
}
