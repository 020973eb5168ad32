//! PURE: the rate of requests, by the generic cell rate algorithm. Every time is an argument, in nanoseconds.
//!
//! A bucket is one number: the moment at which it is full again. A request moves this moment by the time that one token
//! takes. It is refused when the moment would be further away than a whole bucket takes.

/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

/// How fast a bucket is filled, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BucketRate {
    /// The time that one token takes.
    token_ns: u64,
    /// The time that a whole bucket takes; at least that of one token.
    bucket_ns: u64,
}

impl BucketRate {
    /// The part of one of `processes` processes. A process with less than one token as its part keeps one token.
    pub(crate) fn new(per_second: u64, burst: u64, processes: u64) -> Self {
        let per_second = per_second.max(1);
        let token_ns = (SECOND_NS.saturating_mul(processes.max(1)) / per_second).max(1);
        // Part of the burst, times the time of one of this process's tokens: the processes cancel each other out.
        let bucket_ns =
            (u128::from(burst.max(1)) * u128::from(SECOND_NS) / u128::from(per_second)).min(u64::MAX.into());
        Self { token_ns, bucket_ns: u64::try_from(bucket_ns).unwrap_or(u64::MAX).max(token_ns) }
    }

    /// The time that a whole bucket takes, in seconds, rounded up.
    pub(crate) fn window_seconds(self) -> u64 {
        self.bucket_ns.div_ceil(SECOND_NS)
    }
}

/// The state of one bucket. A new one is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TokenBucket {
    full_at: u64,
}

/// A token that was taken, or the reason why there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BucketAnswer {
    /// True when a token was taken.
    pub(crate) is_taken: bool,
    /// Whole tokens that are left.
    pub(crate) remaining: u64,
    /// Seconds until the bucket is full, or without a token until there is one. Rounded up.
    pub(crate) seconds: u64,
}

impl TokenBucket {
    /// Takes a token, if there is one.
    pub(crate) fn take_token(&mut self, now: u64, rate: BucketRate) -> BucketAnswer {
        // After a change of the rate, the bucket may be emptier than an empty one of the new rate.
        let full_at = self.full_at.clamp(now, now.saturating_add(rate.bucket_ns));
        let after = full_at.saturating_add(rate.token_ns);
        let is_taken = after - now <= rate.bucket_ns;
        self.full_at = if is_taken { after } else { full_at };
        let full_at = self.full_at;
        let wait = if is_taken { full_at - now } else { after - now - rate.bucket_ns };
        let remaining = (rate.bucket_ns - (full_at - now)) / rate.token_ns;
        BucketAnswer { is_taken, remaining, seconds: wait.div_ceil(SECOND_NS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The number of requests that pass, at these moments.
    fn passed(rate: BucketRate, moments: &[u64]) -> u64 {
        let mut bucket = TokenBucket::default();
        moments.iter().map(|now| u64::from(bucket.take_token(*now, rate).is_taken)).sum()
    }

    #[test]
    fn a_burst_passes_then_the_rate() {
        let rate = BucketRate::new(10, 5, 1);
        let mut bucket = TokenBucket::default();
        for left in (0..5).rev() {
            let answer = bucket.take_token(0, rate);
            assert_eq!((answer.is_taken, answer.remaining), (true, left));
        }
        let refused = bucket.take_token(0, rate);
        assert_eq!(refused, BucketAnswer { is_taken: false, remaining: 0, seconds: 1 });
        assert!(!bucket.take_token(SECOND_NS / 10 - 1, rate).is_taken);
        assert!(bucket.take_token(SECOND_NS / 10, rate).is_taken);
        assert_eq!(rate.window_seconds(), 1);
        assert_eq!(BucketRate::new(50, 100, 1).window_seconds(), 2);
    }

    #[test]
    fn half_a_token_is_a_whole_one_half_as_often() {
        let rate = BucketRate::new(1, 1, 2);
        let mut bucket = TokenBucket::default();
        assert!(bucket.take_token(0, rate).is_taken);
        assert_eq!(bucket.take_token(0, rate).seconds, 2);
        assert!(!bucket.take_token(2 * SECOND_NS - 1, rate).is_taken);
        assert!(bucket.take_token(2 * SECOND_NS, rate).is_taken);
    }

    #[test]
    fn a_smaller_rate_does_not_refill_and_does_not_punish() {
        let (large, small) = (BucketRate::new(10, 1_000, 1), BucketRate::new(10, 10, 1));
        let mut bucket = TokenBucket::default();
        (0..1_000).for_each(|_| assert!(bucket.take_token(0, large).is_taken));
        assert!(!bucket.take_token(0, small).is_taken, "it is empty");
        assert!(bucket.take_token(SECOND_NS / 10, small).is_taken, "it waits for one token, not for the old debt");
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_rate_pass(
            per_second in 1..10_000_u64, burst in 1..10_000_u64, processes in 1..8_u64,
            mut moments in prop::collection::vec(0..5 * SECOND_NS, 1..2_000),
        ) {
            moments.sort_unstable();
            let rate = BucketRate::new(per_second, burst, processes);
            let span = moments[moments.len() - 1] - moments[0];
            let most = rate.bucket_ns / rate.token_ns + span / rate.token_ns + 1;
            prop_assert!(passed(rate, &moments) <= most);
        }

        #[test]
        fn requests_slower_than_the_rate_all_pass(
            per_second in 1..10_000_u64, burst in 1..10_000_u64, processes in 1..8_u64,
            pauses in prop::collection::vec(0..SECOND_NS, 1..200),
        ) {
            let rate = BucketRate::new(per_second, burst, processes);
            let moments: Vec<u64> = pauses.iter().scan(0, |now, pause| {
                *now += rate.token_ns + pause;
                Some(*now)
            }).collect();
            prop_assert_eq!(passed(rate, &moments), moments.len() as u64);
        }

        #[test]
        fn after_the_told_wait_a_token_is_there(
            per_second in 1..1_000_u64, burst in 1..100_u64, processes in 1..8_u64, tries in 1..300_usize,
        ) {
            let rate = BucketRate::new(per_second, burst, processes);
            let mut bucket = TokenBucket::default();
            let answers: Vec<_> = (0..tries).map(|_| bucket.take_token(7, rate)).collect();
            for pair in answers.windows(2).filter(|pair| pair[1].is_taken) {
                prop_assert!(pair[0].remaining >= 1 && pair[1].remaining < pair[0].remaining);
            }
            if let Some(refused) = answers.iter().find(|answer| !answer.is_taken) {
                prop_assert_eq!(refused.remaining, 0);
                prop_assert!(bucket.take_token(7 + refused.seconds * SECOND_NS, rate).is_taken);
            }
        }
    }
}
