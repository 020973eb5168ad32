//! Says what an attempt means for its webhook: done, again later, given up, or paused. PURE.

use catalog::webhooks::deliveries::DeliveryResult;
use catalog::webhooks::queue::{WAIT_MS_MAX, WebhookProgress};
use jiff::fmt::rfc2822;

use super::client::WebhookAnswer;

/// The waits after a failed attempt, milliseconds: 5 s, 5 min, 30 min, 2 h, 5 h, 6 h, 8 h. With a tenth added to each,
/// the last attempt is made within 24 hours of the first.
const WAITS_MS: [i64; 7] = [5_000, 300_000, 1_800_000, 7_200_000, 18_000_000, 21_600_000, 28_800_000];

/// The status with which a receiver says that it wants no more events.
const GONE: u16 = 410;

/// The statuses with which a receiver says that it is too busy. Their `Retry-After` counts.
const BUSY: [u16; 2] = [429, 503];

/// The attempts at an event before the present one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PastAttempts {
    /// How many have failed.
    pub(crate) failures: i64,
    /// When the first one began, milliseconds since 1970; `None`: the present one is the first that is known.
    pub(crate) first_at: Option<i64>,
}

/// What an answer means at the time `now`. `jitter` spreads the next attempts of many webhooks: 0 adds nothing to the wait,
/// 255 almost a tenth.
pub(crate) fn decide_progress(
    answer: &WebhookAnswer,
    past: PastAttempts,
    now: i64,
    jitter: u8,
) -> (DeliveryResult, WebhookProgress) {
    match answer.status {
        Some(200..=299) => (DeliveryResult::Delivered, WebhookProgress::Advance { delivered: true }),
        Some(GONE) => (DeliveryResult::Gone, WebhookProgress::Pause),
        _ => match usize::try_from(past.failures).ok().and_then(|failures| WAITS_MS.get(failures)) {
            Some(wait) => {
                let spread = wait / 10 * i64::from(jitter) / 256;
                let planned = now + wait + spread;
                let asked = requested_time(answer, now).map_or(planned, |at| at.saturating_add(spread));
                (DeliveryResult::Failed, WebhookProgress::RetryAt(later_time(planned, asked, past.first_at, now)))
            }
            None => (DeliveryResult::GivenUp, WebhookProgress::Advance { delivered: false }),
        },
    }
}

/// The time that the receiver asked for, but within a day of the first attempt and not before the planned time.
fn later_time(planned: i64, asked: i64, first_at: Option<i64>, now: i64) -> i64 {
    // A first attempt in the future was written by a wrong clock.
    let bound = first_at.unwrap_or(now).min(now) + WAIT_MS_MAX;
    asked.min(bound).max(planned)
}

/// When a busy receiver wants the next attempt, milliseconds since 1970. `None`: it does not say, or not in a form of HTTP.
fn requested_time(answer: &WebhookAnswer, now: i64) -> Option<i64> {
    answer.status.filter(|status| BUSY.contains(status))?;
    let text = answer.retry_after.as_deref()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has are a long time, too.
        let seconds = text.parse::<i64>().unwrap_or(i64::MAX);
        return Some(now.saturating_add(seconds.saturating_mul(1_000)));
    }
    // Every date of HTTP ends so. Mail has other zones.
    text.strip_suffix(" GMT")?;
    rfc2822::parse(text).ok().map(|time| time.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn answer(status: Option<u16>, retry_after: Option<&str>) -> WebhookAnswer {
        WebhookAnswer { status, error: None, retry_after: retry_after.map(str::to_owned), duration_ms: 1 }
    }

    fn decide(status: Option<u16>, failures: i64, now: i64, jitter: u8) -> (DeliveryResult, WebhookProgress) {
        decide_progress(&answer(status, None), PastAttempts { failures, first_at: None }, now, jitter)
    }

    /// When a receiver that answered with 503 is tried again.
    fn retry_time(header: &str, past: PastAttempts, now: i64) -> i64 {
        match decide_progress(&answer(Some(503), Some(header)), past, now, 0) {
            (DeliveryResult::Failed, WebhookProgress::RetryAt(at)) => at,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_busy_receiver_gets_the_time_that_it_asks_for() {
        let now = 784_111_000_000; // Sun, 06 Nov 1994 08:36:40 GMT
        for (header, seconds) in [
            ("0", 5),
            ("4", 5),
            ("6", 6),
            (" 120 ", 120),
            ("3600", 3_600),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 777),
            ("Sun, 06 Nov 1994 08:36:39 GMT", 5),
            ("Sun, 06 Nov 1994 08:36:42 GMT", 5),
            // Within a day.
            ("86401", 86_400),
            ("99999999999999999999999999", 86_400),
            ("Fri, 01 Jan 2100 00:00:00 GMT", 86_400),
            // In no form of HTTP.
            ("", 5),
            ("-60", 5),
            ("60.5", 5),
            ("1 hour", 5),
            ("1994-11-06T08:49:37Z", 5),
            ("Sun, 06 Nov 1994 08:49:37 +0000", 5),
            ("Mon, 06 Nov 1994 08:49:37 GMT", 5),
        ] {
            assert_eq!(retry_time(header, PastAttempts::default(), now) - now, seconds * 1_000, "{header:?}");
        }
        for (status, seconds) in [(429, 60), (503, 60), (500, 5), (302, 5), (404, 5)] {
            let decided = decide_progress(&answer(Some(status), Some("60")), PastAttempts::default(), now, 0);
            assert_eq!(decided, (DeliveryResult::Failed, WebhookProgress::RetryAt(now + seconds * 1_000)), "{status}");
        }
    }

    #[test]
    fn a_wait_that_a_receiver_asks_for_ends_a_day_after_the_first_attempt() {
        let after = |hours: i64| PastAttempts { failures: 1, first_at: Some(100 * HOUR - hours * HOUR) };
        let now = 100 * HOUR;
        assert_eq!(retry_time("86400", after(4), now), now + 20 * HOUR);
        assert_eq!(retry_time("86400", after(24), now), now + 300_000, "the planned wait is left");
        assert_eq!(retry_time("86400", after(-50), now), now + 24 * HOUR, "a wrong clock");
        // A time beyond `WAIT_MS_MAX` would count as one of a wrong clock, and be due at once.
        let busy = answer(Some(429), Some("999999"));
        let decided = decide_progress(&busy, PastAttempts::default(), now, 255);
        assert_eq!(decided, (DeliveryResult::Failed, WebhookProgress::RetryAt(now + WAIT_MS_MAX)));
    }

    #[test]
    fn a_receiver_that_is_busy_all_the_time_is_given_up_within_two_days() {
        let (mut now, mut past) = (0, PastAttempts::default());
        while let (DeliveryResult::Failed, WebhookProgress::RetryAt(at)) =
            decide_progress(&answer(Some(503), Some("7200")), past, now, 255)
        {
            (now, past) = (at, PastAttempts { failures: past.failures + 1, first_at: Some(0) });
        }
        assert_eq!(past.failures, 7);
        assert!(now < 48 * HOUR, "{now}");
    }

    #[test]
    fn an_answer_delivers_pauses_or_waits() {
        let delivered = (DeliveryResult::Delivered, WebhookProgress::Advance { delivered: true });
        for status in [200, 202, 204, 299] {
            assert_eq!(decide(Some(status), 5, 0, 9), delivered);
        }
        assert_eq!(decide(Some(410), 0, 0, 0), (DeliveryResult::Gone, WebhookProgress::Pause));
        for status in [None, Some(199), Some(301), Some(302), Some(308), Some(400), Some(404), Some(429), Some(500)] {
            let again = (DeliveryResult::Failed, WebhookProgress::RetryAt(1_005_000));
            assert_eq!(decide(status, 0, 1_000_000, 0), again, "{status:?}");
        }
    }

    #[test]
    fn an_event_is_tried_eight_times_within_a_day() {
        for (jitter, hours) in [(0, 20..22), (255, 22..24)] {
            let (mut now, mut failures) = (0, 0);
            while let (DeliveryResult::Failed, WebhookProgress::RetryAt(at)) = decide(None, failures, now, jitter) {
                assert!(at > now && at - now <= catalog::webhooks::queue::WAIT_MS_MAX);
                (now, failures) = (at, failures + 1);
            }
            assert_eq!(failures, 7);
            assert!(hours.contains(&(now / 3_600_000)), "{now}");
            let given_up = (DeliveryResult::GivenUp, WebhookProgress::Advance { delivered: false });
            assert_eq!(decide(Some(500), failures, now, jitter), given_up);
        }
    }
}
