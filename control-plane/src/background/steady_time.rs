//! The time up to which databases may be dropped permanently. A single reading of a clock proves nothing. A clock that
//! is a year ahead for a minute would drop every retained database and the databases of every deleted tenant.
//!
//! The catalog holds a time that follows the clock, but at most [`RATE`] times faster than the time that processes
//! measure with a monotonic clock. After a week without a running process it has caught up within hours. Until then
//! databases are only retained longer. A clock that is set ahead for a minute changes almost nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::operation::StepContext;

/// How much faster than measured time the catalog's time may advance. A clock that is wrong for an hour counts as a
/// day, which is less than any default retention time.
const RATE: i64 = 24;

/// The time that one process has measured. Shared by all tasks that drop something.
#[derive(Debug, Default)]
pub(super) struct SteadyTime {
    last: Mutex<Option<Instant>>,
}

impl SteadyTime {
    /// The time up to which something may be dropped, milliseconds since 1970. Never later than the clock's.
    pub(super) async fn removal_time(&self, context: &StepContext) -> Result<i64> {
        let elapsed = self.since_last_look(Instant::now());
        let mut tx = context.catalog.write().await?;
        let clock = tx.now();
        let before = catalog::fleet::steady_time(&mut tx).await?.unwrap_or(clock);
        let now = advance_time(before, clock, elapsed);
        catalog::fleet::set_steady_time(&mut tx, now).await?;
        tx.commit().await?;
        Ok(now.min(clock))
    }

    /// The time since this process last looked. Zero at the first look.
    fn since_last_look(&self, now: Instant) -> Duration {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        *last = Some(now);
        elapsed
    }
}

/// PURE: the catalog's next time. It does not follow a clock that is set back, because the measured time has passed.
fn advance_time(before: i64, clock: i64, elapsed: Duration) -> i64 {
    let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
    before.max(clock.min(before.saturating_add(elapsed.saturating_mul(RATE))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::app::App;
    use crate::config::{Config, ProcessRole};

    const DAY: i64 = 86_400_000;
    const YEAR: i64 = 365 * DAY;
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_clock_that_is_right_is_followed_to_the_millisecond() {
        assert_eq!(advance_time(0, 60_000, MINUTE), 60_000);
        assert_eq!(advance_time(0, 60_000, Duration::from_millis(2_500)), 60_000);
    }

    #[test]
    fn a_clock_that_jumps_ahead_brings_minutes_and_not_a_year() {
        let jumped = advance_time(0, YEAR, MINUTE);
        assert_eq!(jumped, 24 * 60_000);
        assert_eq!(advance_time(jumped, 2 * 60_000, MINUTE), jumped, "set right again");
        assert_eq!(advance_time(0, YEAR, Duration::ZERO), 0, "at the start of a process");
    }

    #[test]
    fn time_without_a_process_is_caught_up() {
        let hours = |hours: u64| advance_time(0, 7 * DAY, Duration::from_secs(hours * 3_600));
        assert_eq!((hours(6), hours(7)), (6 * DAY, 7 * DAY));
    }

    #[tokio::test]
    async fn no_process_drops_by_a_clock_that_has_jumped() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path().canonicalize().unwrap(), ProcessRole::Embedded);
        let now = Arc::new(AtomicI64::new(1_764_000_000_000));
        let reads = Arc::clone(&now);
        let clock: catalog::CatalogClock = Arc::new(move || reads.load(Ordering::SeqCst));
        App::init_with(&config, Arc::clone(&clock)).await.unwrap();
        let app = App::open_with(config.clone(), Arc::clone(&clock)).await.unwrap();
        let right = now.load(Ordering::SeqCst);
        let (steady, other) = (SteadyTime::default(), SteadyTime::default());
        assert_eq!(steady.removal_time(&app.context).await.unwrap(), right);
        now.store(right + YEAR, Ordering::SeqCst);
        // In the same process, in another one, and at the start of a third.
        for one in [&steady, &other, &SteadyTime::default()] {
            assert!(one.removal_time(&app.context).await.unwrap() < right + DAY);
        }
        now.store(right, Ordering::SeqCst);
        assert_eq!(steady.removal_time(&app.context).await.unwrap(), right, "never after what the clock says");
        app.shut_down(Duration::from_secs(1)).await;
    }

    #[tokio::test]
    async fn a_new_fleet_knows_its_time_before_a_clock_can_jump() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path().canonicalize().unwrap(), ProcessRole::Embedded);
        App::init_with(&config, Arc::new(|| 1_764_000_000_000)).await.unwrap();
        let app = App::open_with(config, Arc::new(|| 1_764_000_000_000 + YEAR)).await.unwrap();
        assert_eq!(SteadyTime::default().removal_time(&app.context).await.unwrap(), 1_764_000_000_000);
        app.shut_down(Duration::from_secs(1)).await;
    }
}
