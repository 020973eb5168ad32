//! Decides whether and when a failed step is tried again. No other code decides it, and nothing retries inside a step.

/// Attempts of one phase before an operator is asked. With the delays below they cover about a minute.
pub const ATTEMPTS_MAX: i64 = 5;
/// The first delay, milliseconds; doubled each time.
const DELAY_FIRST_MS: i64 = 500;
/// The longest delay, milliseconds.
const DELAY_MAX_MS: i64 = 30_000;

/// What happens after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again at this time, milliseconds since 1970.
    At(i64),
    /// Give up and report the failure.
    GiveUp,
}

/// Whether an error may pass by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCause {
    /// The resource is locked, full or unreachable for the moment.
    Transient,
    /// Another attempt would fail in the same way.
    Permanent,
}

/// Whether a claimed phase may run. `attempt` is the attempt that would begin now, and `deaths` how often a process
/// died in the phase. A recorded error ends a phase at its last attempt; only a death leads beyond.
#[must_use]
pub fn may_run(attempt: i64, deaths: i64) -> bool {
    attempt <= ATTEMPTS_MAX && deaths < ATTEMPTS_MAX
}

/// Whether giving up may be tried. False once it has ended the process too often as well.
#[must_use]
pub fn may_give_up(deaths: i64) -> bool {
    deaths < 2 * ATTEMPTS_MAX
}

/// Decides after attempt number `attempt` (from 1). `salt` spreads the steps of one fault over half the delay.
#[must_use]
pub fn decide_retry(cause: FailureCause, attempt: i64, now: i64, salt: u64) -> RetryDecision {
    if cause == FailureCause::Permanent || attempt >= ATTEMPTS_MAX {
        return RetryDecision::GiveUp;
    }
    let doublings = attempt.clamp(1, 16) - 1;
    let delay = (DELAY_FIRST_MS << doublings).min(DELAY_MAX_MS);
    let jitter = i64::try_from(salt % 1_000).unwrap_or(0) * (delay / 2) / 1_000;
    RetryDecision::At(now + delay / 2 + jitter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_permanent_error_is_never_tried_again_and_a_transient_one_not_for_ever() {
        assert_eq!(decide_retry(FailureCause::Permanent, 1, 0, 0), RetryDecision::GiveUp);
        assert_eq!(decide_retry(FailureCause::Transient, ATTEMPTS_MAX, 0, 0), RetryDecision::GiveUp);
        assert!(matches!(decide_retry(FailureCause::Transient, ATTEMPTS_MAX - 1, 0, 0), RetryDecision::At(_)));
    }

    #[test]
    fn a_phase_runs_at_most_five_times() {
        assert!(may_run(1, 0) && may_run(ATTEMPTS_MAX, ATTEMPTS_MAX - 1));
        assert!(!may_run(ATTEMPTS_MAX + 1, 1) && !may_run(1, ATTEMPTS_MAX));
        assert!(may_give_up(ATTEMPTS_MAX) && !may_give_up(2 * ATTEMPTS_MAX));
    }

    proptest! {
        #[test]
        fn a_retry_lies_in_the_future_and_within_the_longest_delay(attempt in 1..ATTEMPTS_MAX, now in 0..i64::MAX / 2, salt: u64) {
            let RetryDecision::At(at) = decide_retry(FailureCause::Transient, attempt, now, salt) else { panic!("gave up") };
            prop_assert!(at > now && at <= now + DELAY_MAX_MS);
        }
    }
}
