//! The open subscriptions of this process, by tenant. Hands messages to the topics' subscribers, and counts them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use catalog::TenantId;
use catalog::topics::StoredMessage;
use tokio::sync::{Notify, mpsc, watch};

use super::limits::RealtimeLimits;
use super::publisher::OutgoingMessage;
use super::subscriber::{Subscriber, SubscriptionEnd, TopicMessage};
use crate::error::{ErrorKind, Result};
use crate::metrics::RouterMetrics;

/// How long a stop waits for the subscribers to go. A close handshake takes one round trip; a client without network does not
/// answer at all.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// The open subscriptions; see the module.
pub(crate) struct SubscriptionHub {
    pub(super) limits: RealtimeLimits,
    pub(super) outbox: mpsc::Sender<OutgoingMessage>,
    pub(super) meters: Arc<RouterMetrics>,
    /// Notified at the first subscription.
    pub(super) wake: Notify,
    table: Mutex<SubscriptionTable>,
    /// Messages up to this number are in the queues.
    position: AtomicI64,
    /// How many subscriptions are not dropped yet.
    open: watch::Sender<usize>,
    rate: Mutex<PublishRate>,
}

#[derive(Default)]
struct SubscriptionTable {
    tenants: HashMap<TenantId, Vec<Arc<Subscriber>>>,
    count: usize,
    /// False while nobody reads messages.
    has_position: bool,
    is_draining: bool,
}

/// How many messages each tenant has published in the current second.
struct PublishRate {
    began: Instant,
    counts: HashMap<TenantId, u32>,
}

impl SubscriptionHub {
    pub(crate) fn new(
        limits: RealtimeLimits,
        outbox: mpsc::Sender<OutgoingMessage>,
        meters: Arc<RouterMetrics>,
    ) -> Self {
        Self {
            limits,
            outbox,
            meters,
            wake: Notify::new(),
            table: Mutex::default(),
            position: AtomicI64::new(0),
            open: watch::Sender::new(0),
            rate: Mutex::new(PublishRate { began: Instant::now(), counts: HashMap::new() }),
        }
    }

    /// Adds a subscriber, and returns the number after which it gets every message. `head` is the newest number that the caller
    /// has read.
    pub(super) fn add_subscriber(&self, subscriber: &Arc<Subscriber>, head: i64) -> Result<i64> {
        let mut table = self.lock_table();
        if table.is_draining {
            return Err(ErrorKind::ShuttingDown.into());
        }
        let of_tenant = table.tenants.get(&subscriber.tenant).map_or(0, Vec::len);
        if table.count >= self.limits.subscriptions_max || of_tenant >= self.limits.tenant_subscriptions_max {
            return Err(ErrorKind::SubscriptionsMax.into());
        }
        if !table.has_position {
            self.position.store(head, Ordering::Release);
            table.has_position = true;
        }
        table.tenants.entry(subscriber.tenant).or_default().push(Arc::clone(subscriber));
        table.count += 1;
        self.note_count(table.count);
        self.wake.notify_one();
        Ok(self.position())
    }

    pub(super) fn remove_subscriber(&self, subscriber: &Arc<Subscriber>) {
        let mut table = self.lock_table();
        let Some(of_tenant) = table.tenants.get_mut(&subscriber.tenant) else { return };
        let Some(place) = of_tenant.iter().position(|other| Arc::ptr_eq(other, subscriber)) else { return };
        of_tenant.swap_remove(place);
        if of_tenant.is_empty() {
            table.tenants.remove(&subscriber.tenant);
        }
        table.count -= 1;
        self.note_count(table.count);
    }

    /// True when nobody reads messages. Forgets the position then.
    pub(super) fn is_idle(&self) -> bool {
        let mut table = self.lock_table();
        if table.count == 0 {
            table.has_position = false;
        }
        table.count == 0
    }

    /// Messages up to this number are in the queues.
    pub(super) fn position(&self) -> i64 {
        self.position.load(Ordering::Acquire)
    }

    /// Queues messages for the subscribers of their topics. `position` is the number of the last one.
    pub(super) fn deliver_messages(&self, messages: Vec<StoredMessage>, position: i64) {
        let table = self.lock_table();
        let mut queued = 0;
        for StoredMessage { seq, message } in messages {
            let Some(of_tenant) = table.tenants.get(&message.tenant) else { continue };
            let shared = Arc::new(TopicMessage::new(seq, message.payload));
            for subscriber in of_tenant.iter().filter(|subscriber| *subscriber.topic == *message.topic) {
                let was_ended = subscriber.is_ended();
                if subscriber.push_message(&shared, &self.limits) {
                    queued += 1;
                } else if !was_ended && subscriber.is_ended() {
                    self.meters.count_end(SubscriptionEnd::SlowConsumer);
                }
            }
        }
        self.meters.messages_queued.increment(queued);
        // Stored last: a reader of the new number must find the messages in the queues.
        self.position.store(position, Ordering::Release);
    }

    /// Tells every subscriber that messages up to this number are gone.
    pub(super) fn announce_gap(&self, position: i64) {
        let table = self.lock_table();
        table.tenants.values().flatten().for_each(|subscriber| subscriber.push_reload(position));
        self.position.store(position, Ordering::Release);
    }

    /// The subscribers that are not ended.
    pub(super) fn live_subscribers(&self) -> Vec<Arc<Subscriber>> {
        let table = self.lock_table();
        table.tenants.values().flatten().filter(|subscriber| !subscriber.is_ended()).cloned().collect()
    }

    pub(super) fn end_subscriber(&self, subscriber: &Subscriber, end: SubscriptionEnd) {
        if subscriber.end_with(end) {
            self.meters.count_end(end);
        }
    }

    /// Counts a message that a tenant wants to publish; refuses those over the limit of a second.
    pub(super) fn admit_message(&self, tenant: TenantId, now: Instant) -> Result<()> {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(rate.began) >= Duration::from_secs(1) {
            rate.began = now;
            rate.counts = HashMap::new();
        }
        let count = rate.counts.entry(tenant).or_insert(0);
        if *count >= self.limits.tenant_messages_per_second_max {
            return Err(ErrorKind::MessagesMax.into());
        }
        *count += 1;
        Ok(())
    }

    /// Ends every subscription, and refuses new ones.
    pub(super) fn end_all(&self) {
        let ending: Vec<_> = {
            let mut table = self.lock_table();
            table.is_draining = true;
            table.tenants.values().flatten().cloned().collect()
        };
        ending.iter().for_each(|subscriber| self.end_subscriber(subscriber, SubscriptionEnd::GoingAway));
    }

    /// As [`SubscriptionHub::end_all`]; waits a limited time until all subscriptions are dropped.
    pub(crate) async fn drain_subscribers(&self) {
        self.end_all();
        let mut open = self.open.subscribe();
        // Some clients do not answer: the process stops without them.
        let _ = tokio::time::timeout(DRAIN_MAX, open.wait_for(|open| *open == 0)).await;
    }

    fn note_count(&self, count: usize) {
        self.open.send_replace(count);
        self.meters.subscriptions.set(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn lock_table(&self) -> MutexGuard<'_, SubscriptionTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_that_publishes_too_much_leaves_the_others_alone() {
        let limits = RealtimeLimits { tenant_messages_per_second_max: 2, ..RealtimeLimits::default() };
        let (outbox, _inbox) = mpsc::channel(1);
        let hub = SubscriptionHub::new(limits, outbox, Arc::new(RouterMetrics::new()));
        let (loud, other, now) = (TenantId::generate(), TenantId::generate(), Instant::now());
        let admit = |tenant, after| hub.admit_message(tenant, now + Duration::from_millis(after)).map_err(|e| e.kind());
        assert_eq!((admit(loud, 0), admit(loud, 10), admit(loud, 20)), (Ok(()), Ok(()), Err(ErrorKind::MessagesMax)));
        assert_eq!(admit(other, 20), Ok(()));
        assert_eq!(admit(loud, 1_100), Ok(()), "the next second");
    }
}
