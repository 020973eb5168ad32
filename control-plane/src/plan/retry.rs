//! Whether and when a failed step is tried again. The only place that decides it: nothing retries inside a step.

/// Attempts of one phase before an operator is asked: with the delays below, about a minute of trouble.
pub const ATTEMPTS_MAX: i64 = 5;
/// The first delay, milliseconds; doubled each time.
const DELAY_FIRST_MS: i64 = 500;
/// The longest delay, milliseconds.
const DELAY_MAX_MS: i64 = 30_000;

/// What to do about a failed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again at this time, milliseconds since 1970.
    At(i64),
    /// Tell a human.
    GiveUp,
}

/// Whether an error may pass by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Locked, full, unreachable.
    Transient,
    /// The same again would fail the same way.
    Permanent,
}

/// Whether a claimed phase may run: `attempt` is the attempt that would begin now, and `deaths` how often a process died
/// in the phase. An error that is recorded ends a phase at its last attempt; only a death leads beyond.
#[must_use]
pub fn may_run(attempt: i64, deaths: i64) -> bool {
    attempt <= ATTEMPTS_MAX && deaths < ATTEMPTS_MAX
}

/// Whether even giving up ended the process so often that it is not tried again.
#[must_use]
pub fn may_give_up(deaths: i64) -> bool {
    deaths < 2 * ATTEMPTS_MAX
}

/// Decides after attempt number `attempt` (from 1). `salt` spreads the steps of one fault over half the delay.
#[must_use]
pub fn next(cause: Cause, attempt: i64, now: i64, salt: u64) -> Next {
    if cause == Cause::Permanent || attempt >= ATTEMPTS_MAX {
        return Next::GiveUp;
    }
    let doublings = attempt.clamp(1, 16) - 1;
    let delay = (DELAY_FIRST_MS << doublings).min(DELAY_MAX_MS);
    let jitter = i64::try_from(salt % 1_000).unwrap_or(0) * (delay / 2) / 1_000;
    Next::At(now + delay / 2 + jitter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_permanent_error_is_never_tried_again_and_a_transient_one_not_for_ever() {
        assert_eq!(next(Cause::Permanent, 1, 0, 0), Next::GiveUp);
        assert_eq!(next(Cause::Transient, ATTEMPTS_MAX, 0, 0), Next::GiveUp);
        assert!(matches!(next(Cause::Transient, ATTEMPTS_MAX - 1, 0, 0), Next::At(_)));
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
            let Next::At(at) = next(Cause::Transient, attempt, now, salt) else { panic!("gave up") };
            prop_assert!(at > now && at <= now + DELAY_MAX_MS);
        }
    }
}
