//! One subscriber as the hub and the guard see it: whose it is, its bounded queue, and what was last checked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use catalog::TenantId;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::limits::RealtimeLimits;
use crate::error::{Error, ErrorKind, Result};
use crate::principal::Principal;
use crate::single_flight_cache::TenantMark;

/// A message of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMessage {
    seq: i64,
    payload: Box<str>,
}

impl TopicMessage {
    pub(super) fn new(seq: i64, payload: String) -> Self {
        Self { seq, payload: payload.into_boxed_str() }
    }

    /// The number of the message. It grows with each message of any tenant.
    #[must_use]
    pub fn seq(&self) -> i64 {
        self.seq
    }

    /// The message as JSON, in one line.
    #[must_use]
    pub fn payload(&self) -> &str {
        &self.payload
    }

    /// The message as a value.
    ///
    /// # Errors
    /// `row_mismatch` when the message has another form.
    pub fn read_as<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.payload).map_err(|error| Error::new(ErrorKind::RowMismatch).with_source(error))
    }
}

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionEvent {
    /// A message of the topic.
    Message(Arc<TopicMessage>),
    /// Messages may be missing, or the tenant's data was replaced: read the data again.
    Reload {
        /// Everything after this number comes.
        seq: i64,
    },
}

/// Why a subscription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubscriptionEnd {
    /// The caller is not a member any more, its credential has ended, or the tenant is deleted.
    AccessEnded,
    /// The tenant is suspended.
    TenantSuspended,
    /// The tenant is archived.
    TenantArchived,
    /// The subscriber did not take its messages fast enough.
    SlowConsumer,
    /// The access could not be checked for some seconds, because the catalog or the application did not answer.
    Unconfirmed,
    /// The router stops.
    GoingAway,
}

impl SubscriptionEnd {
    /// Every reason.
    pub(crate) const ALL: [Self; 6] = [
        Self::AccessEnded,
        Self::TenantSuspended,
        Self::TenantArchived,
        Self::SlowConsumer,
        Self::Unconfirmed,
        Self::GoingAway,
    ];

    /// The stable word of the reason, for clients and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::AccessEnded => "access_ended",
            Self::TenantSuspended => "tenant_suspended",
            Self::TenantArchived => "tenant_archived",
            Self::SlowConsumer => "slow_consumer",
            Self::Unconfirmed => "unconfirmed",
            Self::GoingAway => "going_away",
        }
    }

    /// True when the subscriber may still get what is in its queue.
    fn keeps_queue(self) -> bool {
        self == Self::GoingAway
    }
}

/// A subscriber. Shared by its [`Subscription`](super::Subscription) and the hub.
pub(crate) struct Subscriber {
    pub(super) tenant: TenantId,
    pub(super) topic: Box<str>,
    pub(super) principal: Arc<Principal>,
    /// Proves the caller again at each check. `None` when the application has proved it.
    pub(super) credential: Option<SecretString>,
    checked: Mutex<AccessCheck>,
    queue: Mutex<SubscriberQueue>,
    /// Notified when the queue gets an event or ends.
    arrived: Notify,
}

/// The last check of a subscriber's access.
#[derive(Debug, Clone)]
pub(super) struct AccessCheck {
    /// The tenant's changes that the check knew.
    pub(super) mark: TenantMark,
    /// When the access was last known to be right.
    pub(super) confirmed_at: Instant,
    /// The tenant's database at that time.
    pub(super) placement: Option<String>,
}

#[derive(Default)]
struct SubscriberQueue {
    events: VecDeque<SubscriptionEvent>,
    bytes: usize,
    /// Messages up to this number are known to the subscriber.
    skip_until: i64,
    end: Option<SubscriptionEnd>,
    /// The access is in doubt: nothing is queued until it is confirmed.
    is_held: bool,
    /// A message came while the access was in doubt.
    has_missed: bool,
}

impl Subscriber {
    pub(super) fn new(
        tenant: TenantId,
        topic: &str,
        principal: Arc<Principal>,
        credential: Option<SecretString>,
        checked: AccessCheck,
    ) -> Self {
        let (checked, queue) = (Mutex::new(checked), Mutex::default());
        Self { tenant, topic: topic.into(), principal, credential, checked, queue, arrived: Notify::new() }
    }

    /// Queues a message. A full queue ends the subscription. True when the message was queued.
    pub(super) fn push_message(&self, message: &Arc<TopicMessage>, limits: &RealtimeLimits) -> bool {
        let mut queue = self.lock_queue();
        if queue.end.is_some() || message.seq <= queue.skip_until {
            return false;
        }
        if queue.is_held {
            queue.has_missed = true;
            return false;
        }
        let bytes = queue.bytes + message.payload.len();
        if queue.events.len() >= limits.queue_messages_max || bytes > limits.queue_bytes_max {
            drop(queue);
            self.end_with(SubscriptionEnd::SlowConsumer);
            return false;
        }
        queue.bytes = bytes;
        queue.events.push_back(SubscriptionEvent::Message(Arc::clone(message)));
        drop(queue);
        self.arrived.notify_one();
        true
    }

    /// Tells the subscriber to read the data again. Replaces what waits, because it is part of that data.
    pub(super) fn push_reload(&self, seq: i64) {
        let mut queue = self.lock_queue();
        if queue.end.is_some() {
            return;
        }
        queue.clear_events();
        queue.events.push_back(SubscriptionEvent::Reload { seq });
        drop(queue);
        self.arrived.notify_one();
    }

    /// Queues nothing until [`Subscriber::release`].
    pub(super) fn hold(&self) {
        self.lock_queue().is_held = true;
    }

    /// Queues messages again. If some came meanwhile, the subscriber reads the data again.
    pub(super) fn release(&self, seq: i64) {
        let has_missed = {
            let mut queue = self.lock_queue();
            queue.is_held = false;
            std::mem::take(&mut queue.has_missed)
        };
        if has_missed {
            self.push_reload(seq);
        }
    }

    /// Ends the subscription. The first reason counts; true when this is it.
    pub(super) fn end_with(&self, end: SubscriptionEnd) -> bool {
        let mut queue = self.lock_queue();
        if queue.end.is_some() {
            return false;
        }
        queue.end = Some(end);
        if !end.keeps_queue() {
            queue.clear_events();
        }
        drop(queue);
        self.arrived.notify_one();
        true
    }

    pub(super) fn skip_until(&self, seq: i64) {
        self.lock_queue().skip_until = seq;
    }

    pub(super) fn is_ended(&self) -> bool {
        self.lock_queue().end.is_some()
    }

    /// The reason, if nothing more may be sent before the end.
    pub(super) fn hard_end(&self) -> Option<SubscriptionEnd> {
        self.lock_queue().end.filter(|end| !end.keeps_queue())
    }

    /// The next event, or the end; `None` when there is neither.
    pub(super) fn take_next(&self) -> Option<Result<SubscriptionEvent, SubscriptionEnd>> {
        let mut queue = self.lock_queue();
        let Some(event) = queue.events.pop_front() else { return queue.end.map(Err) };
        if let SubscriptionEvent::Message(message) = &event {
            queue.bytes = queue.bytes.saturating_sub(message.payload.len());
        }
        Some(Ok(event))
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.lock_queue().events.is_empty()
    }

    pub(super) fn arrived(&self) -> &Notify {
        &self.arrived
    }

    pub(super) fn last_check(&self) -> MutexGuard<'_, AccessCheck> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_queue(&self) -> MutexGuard<'_, SubscriberQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SubscriberQueue {
    fn clear_events(&mut self) {
        self.events = VecDeque::new();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use catalog::members::Role;

    use super::*;
    use crate::single_flight_cache::ChangeCounter;

    fn subscriber() -> Subscriber {
        let tenant = TenantId::generate();
        let mark = ChangeCounter::default().tenant_mark(tenant);
        let checked = AccessCheck { mark, confirmed_at: Instant::now(), placement: None };
        Subscriber::new(tenant, "tasks", Arc::new(Principal::of_tenant("t", tenant, Role::Reader)), None, checked)
    }

    fn message(seq: i64, payload: &str) -> Arc<TopicMessage> {
        Arc::new(TopicMessage::new(seq, payload.to_owned()))
    }

    #[test]
    fn a_full_queue_ends_the_subscription_by_number_or_bytes() {
        for (limits, fits) in [
            (RealtimeLimits { queue_messages_max: 3, ..RealtimeLimits::default() }, 3),
            (RealtimeLimits { queue_bytes_max: 10, ..RealtimeLimits::default() }, 2),
        ] {
            let slow = subscriber();
            for seq in 1..=fits {
                assert!(slow.push_message(&message(seq, "\"abc\""), &limits));
            }
            assert!(!slow.is_ended());
            assert!(!slow.push_message(&message(9, "\"abc\""), &limits));
            assert_eq!(slow.take_next(), Some(Err(SubscriptionEnd::SlowConsumer)), "nothing is kept for it");
        }
    }

    #[test]
    fn a_taken_message_makes_room_and_a_known_one_is_skipped() {
        let limits = RealtimeLimits { queue_bytes_max: 5, ..RealtimeLimits::default() };
        let subscriber = subscriber();
        subscriber.skip_until(4);
        assert!(!subscriber.push_message(&message(4, "1"), &limits));
        for seq in 5..20 {
            assert!(subscriber.push_message(&message(seq, "\"abc\""), &limits));
            assert_eq!(subscriber.take_next(), Some(Ok(SubscriptionEvent::Message(message(seq, "\"abc\"")))));
        }
        assert_eq!(subscriber.take_next(), None);
    }

    #[test]
    fn a_subscriber_in_doubt_gets_nothing_and_reloads_afterwards() {
        let (subscriber, limits) = (subscriber(), RealtimeLimits::default());
        subscriber.hold();
        subscriber.release(1);
        assert_eq!(subscriber.take_next(), None, "nothing came meanwhile");
        subscriber.hold();
        assert!(!subscriber.push_message(&message(2, "2"), &limits));
        assert_eq!(subscriber.take_next(), None);
        subscriber.release(2);
        assert_eq!(subscriber.take_next(), Some(Ok(SubscriptionEvent::Reload { seq: 2 })));
        assert!(subscriber.push_message(&message(3, "3"), &limits));
    }

    #[test]
    fn a_reload_replaces_what_waits() {
        let subscriber = subscriber();
        subscriber.push_message(&message(1, "1"), &RealtimeLimits::default());
        subscriber.push_reload(7);
        assert_eq!(subscriber.take_next(), Some(Ok(SubscriptionEvent::Reload { seq: 7 })));
        assert_eq!(subscriber.take_next(), None);
    }

    #[test]
    fn only_a_stop_leaves_the_queue_and_the_first_reason_counts() {
        for end in SubscriptionEnd::ALL {
            let subscriber = subscriber();
            subscriber.push_message(&message(1, "1"), &RealtimeLimits::default());
            assert!(subscriber.end_with(end));
            assert!(!subscriber.end_with(SubscriptionEnd::AccessEnded), "the first reason counts");
            let first = subscriber.take_next().unwrap();
            assert_eq!(first.is_ok(), end == SubscriptionEnd::GoingAway, "{end:?}");
            assert_eq!(subscriber.take_next(), Some(Err(end)));
            assert!(!subscriber.push_message(&message(2, "2"), &RealtimeLimits::default()));
        }
    }
}
