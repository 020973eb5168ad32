//! Says what an attempt means for its webhook: done, again later, given up, or paused. PURE.

use catalog::webhooks::deliveries::DeliveryResult;
use catalog::webhooks::queue::WebhookProgress;

/// The waits after a failed attempt, milliseconds: 5 s, 5 min, 30 min, 2 h, 5 h, 6 h, 8 h. With a tenth added to each,
/// the last attempt is made within 24 hours of the first.
const WAITS_MS: [i64; 7] = [5_000, 300_000, 1_800_000, 7_200_000, 18_000_000, 21_600_000, 28_800_000];

/// The status with which a receiver says that it wants no more events.
const GONE: u16 = 410;

/// What an answer means. `failures` counts the earlier failed attempts at the event. `jitter` spreads the next attempts
/// of many webhooks: 0 adds nothing to the wait, 255 almost a tenth.
pub(crate) fn decide_progress(
    status: Option<u16>,
    failures: i64,
    now: i64,
    jitter: u8,
) -> (DeliveryResult, WebhookProgress) {
    match status {
        Some(200..=299) => (DeliveryResult::Delivered, WebhookProgress::Advance { delivered: true }),
        Some(GONE) => (DeliveryResult::Gone, WebhookProgress::Pause),
        _ => match usize::try_from(failures).ok().and_then(|failures| WAITS_MS.get(failures)) {
            Some(wait) => {
                let wait = wait + wait / 10 * i64::from(jitter) / 256;
                (DeliveryResult::Failed, WebhookProgress::RetryAt(now + wait))
            }
            None => (DeliveryResult::GivenUp, WebhookProgress::Advance { delivered: false }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_delivers_pauses_or_waits() {
        let delivered = (DeliveryResult::Delivered, WebhookProgress::Advance { delivered: true });
        for status in [200, 202, 204, 299] {
            assert_eq!(decide_progress(Some(status), 5, 0, 9), delivered);
        }
        assert_eq!(decide_progress(Some(410), 0, 0, 0), (DeliveryResult::Gone, WebhookProgress::Pause));
        for status in [None, Some(199), Some(301), Some(302), Some(308), Some(400), Some(404), Some(429), Some(500)] {
            let again = (DeliveryResult::Failed, WebhookProgress::RetryAt(1_005_000));
            assert_eq!(decide_progress(status, 0, 1_000_000, 0), again, "{status:?}");
        }
    }

    #[test]
    fn an_event_is_tried_eight_times_within_a_day() {
        for (jitter, hours) in [(0, 20..22), (255, 22..24)] {
            let (mut now, mut failures) = (0, 0);
            while let (DeliveryResult::Failed, WebhookProgress::RetryAt(at)) =
                decide_progress(None, failures, now, jitter)
            {
                assert!(at > now && at - now <= catalog::webhooks::queue::WAIT_MS_MAX);
                (now, failures) = (at, failures + 1);
            }
            assert_eq!(failures, 7);
            assert!(hours.contains(&(now / 3_600_000)), "{now}");
            let given_up = (DeliveryResult::GivenUp, WebhookProgress::Advance { delivered: false });
            assert_eq!(decide_progress(Some(500), failures, now, jitter), given_up);
        }
    }
}
