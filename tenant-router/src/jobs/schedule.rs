//! PURE: when a job runs: the times of a schedule, and the pauses between attempts.

use std::fmt;

use chrono::{DateTime, Utc};
use croner::Cron;

use crate::error::{Error, ErrorKind, Result};

/// The first pause. Each later one is twice as long.
const PAUSE_FIRST_MS: i64 = 10_000;
/// The longest pause: with 20 attempts, a job is tried for about four days.
const PAUSE_MAX_MS: i64 = 6 * 3_600_000;

/// The times of a repeated job, as a cron pattern of five fields in UTC: minute, hour, day of month, month, day of week.
#[derive(Clone)]
pub struct JobSchedule(Cron);

impl JobSchedule {
    /// Reads a pattern, for instance `0 3 * * *` for three o'clock each night.
    ///
    /// # Errors
    /// [`ErrorKind::JobInvalid`] when the pattern is not one, or names no time in the next years.
    pub fn parse(pattern: &str) -> Result<Self> {
        let invalid = |why: String| Error::new(ErrorKind::JobInvalid).with_detail(why);
        if pattern.split_whitespace().count() != 5 {
            return Err(invalid(format!("the schedule {pattern:?} does not have five fields, as in \"0 3 * * *\"")));
        }
        let cron = Cron::new(pattern).parse();
        let cron = cron.map_err(|why| invalid(format!("the schedule {pattern:?} is not valid: {why}")))?;
        let schedule = Self(cron);
        match schedule.next_after(0) {
            Some(_) => Ok(schedule),
            None => Err(invalid(format!("the schedule {pattern:?} names no time"))),
        }
    }

    /// The pattern.
    #[must_use]
    pub fn pattern(&self) -> &str {
        self.0.pattern.as_str()
    }

    /// The first time after `now`, both in milliseconds since 1970. Times that passed while nothing ran are left out.
    #[must_use]
    pub fn next_after(&self, now: i64) -> Option<i64> {
        let now: DateTime<Utc> = DateTime::from_timestamp_millis(now)?;
        self.0.find_next_occurrence(&now, false).ok().map(|at| at.timestamp_millis())
    }
}

impl fmt::Debug for JobSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JobSchedule").field(&self.pattern()).finish()
    }
}

/// The pause before the next attempt, after `attempts` failed ones, in milliseconds. `chance` is from 0 to 1; it spreads the
/// attempts of jobs that failed together over a quarter more time.
pub(super) fn retry_pause_ms(attempts: i64, chance: f64) -> i64 {
    let doublings = u32::try_from(attempts.saturating_sub(1).clamp(0, 20)).unwrap_or(0);
    let pause = PAUSE_FIRST_MS.saturating_mul(1 << doublings).min(PAUSE_MAX_MS);
    pause + (pause as f64 / 4.0 * chance.clamp(0.0, 1.0)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_schedule_names_the_next_time_and_never_the_present_one() {
        let nightly = JobSchedule::parse("0 3 * * *").unwrap();
        assert_eq!(nightly.next_after(0), Some(3 * HOUR));
        assert_eq!(nightly.next_after(3 * HOUR), Some(27 * HOUR));
        assert_eq!(nightly.next_after(3 * HOUR - 1), Some(3 * HOUR));
        // After a week without a runner there is one run, not seven.
        assert_eq!(nightly.next_after(7 * 24 * HOUR), Some((7 * 24 + 3) * HOUR));
    }

    #[test]
    fn a_pattern_that_names_no_time_is_refused() {
        for pattern in ["", "x", "* * * *", "0 0 3 * * *", "61 * * * *", "0 0 30 2 *", "@daily", "0 3 * * * extra"] {
            assert_eq!(JobSchedule::parse(pattern).unwrap_err().kind(), ErrorKind::JobInvalid, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn pauses_grow_to_a_limit(attempts in 0_i64..1_000, chance in 0.0_f64..1.0) {
            let pause = retry_pause_ms(attempts, chance);
            prop_assert!((PAUSE_FIRST_MS..=PAUSE_MAX_MS + PAUSE_MAX_MS / 4).contains(&pause));
            prop_assert!(retry_pause_ms(attempts + 1, 0.0) >= retry_pause_ms(attempts, 0.0));
        }
    }
}
