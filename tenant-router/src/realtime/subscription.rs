//! [`Subscription`]: what a consumer holds while it follows a topic.

use std::collections::VecDeque;
use std::sync::Arc;

use catalog::topics;
use secrecy::SecretString;

use super::guard::confirm_access;
use super::hub::SubscriptionHub;
use super::subscriber::{Subscriber, SubscriptionEnd, SubscriptionEvent, TopicMessage};
use crate::error::Result;
use crate::router::Router;

/// How a subscription begins: how its caller is proven again while it lasts, and from where it goes on.
#[derive(Debug)]
pub struct SubscriptionRequest {
    pub(super) credential: Option<SecretString>,
    pub(super) after: Option<i64>,
}

impl SubscriptionRequest {
    /// For a caller that the router proves by this credential. The subscription keeps the credential, and ends when the
    /// credential does.
    #[must_use]
    pub fn proven_by(credential: SecretString) -> Self {
        Self { credential: Some(credential), after: None }
    }

    /// For a principal that the application has proved. The subscription ends with the membership, and when the principal
    /// expires. Let the principal expire when its session does ([`Principal::expiring_at`](crate::Principal::expiring_at)).
    #[must_use]
    pub fn proven_by_application() -> Self {
        Self { credential: None, after: None }
    }

    /// Goes on after the message with this number, which the consumer has seen.
    #[must_use]
    pub fn resume_after(self, seq: i64) -> Self {
        Self { after: Some(seq), ..self }
    }
}

/// The messages of a topic, as they come. Made by [`TenantTopic::subscribe`](super::TenantTopic::subscribe). It ends for the
/// hub when it is dropped.
pub struct Subscription {
    subscriber: Arc<Subscriber>,
    hub: Arc<SubscriptionHub>,
    /// What a consumer that resumes has missed.
    backlog: VecDeque<SubscriptionEvent>,
    start: i64,
}

impl Subscription {
    /// Adds the subscriber to the hub, and reads what it has missed.
    pub(super) async fn begin(router: &Router, subscriber: Subscriber, after: Option<i64>) -> Result<Self> {
        let catalog = &router.inner.catalog;
        let (hub, subscriber) = (Arc::clone(&router.inner.subscriptions), Arc::new(subscriber));
        let head = topics::message_head(&mut catalog.read().await?).await?;
        let live_from = hub.add_subscriber(&subscriber, head)?;
        let mut begun = Self { subscriber, hub, backlog: VecDeque::new(), start: after.unwrap_or(live_from) };
        let Some(after) = after else { return Ok(begun) };
        if after > head.max(live_from) {
            // The number is of another catalog, or the client made it up.
            begun.start = live_from;
            begun.backlog.push_back(SubscriptionEvent::Reload { seq: live_from });
            return Ok(begun);
        }
        begun.subscriber.skip_until(after);
        if after < live_from {
            begun.read_missed(router, after, live_from).await?;
        }
        Ok(begun)
    }

    /// Checks the access again, after the hub has got the subscriber.
    pub(super) async fn confirm_again(&self, router: &Router) -> Result<()> {
        let checked = confirm_access(&router.inner.caches, &router.inner.catalog, &self.subscriber).await?;
        *self.subscriber.last_check() = checked;
        Ok(())
    }

    async fn read_missed(&mut self, router: &Router, after: i64, until: i64) -> Result<()> {
        let limits = &self.hub.limits;
        let page_limit = u32::try_from(limits.queue_messages_max).unwrap_or(u32::MAX);
        let mut tx = router.inner.catalog.read().await?;
        let (tenant, topic) = (self.subscriber.tenant, &self.subscriber.topic);
        let page = topics::topic_messages_between(&mut tx, tenant, topic, after, until, page_limit).await?;
        let bytes: usize = page.messages.iter().map(|stored| stored.message.payload.len()).sum();
        if page.is_incomplete || bytes > limits.queue_bytes_max {
            self.backlog.push_back(SubscriptionEvent::Reload { seq: until });
            return Ok(());
        }
        let missed = page.messages.into_iter().map(|stored| TopicMessage::new(stored.seq, stored.message.payload));
        self.backlog.extend(missed.map(|message| SubscriptionEvent::Message(Arc::new(message))));
        Ok(())
    }

    /// The next event. May be cancelled without losing one.
    ///
    /// # Errors
    /// The reason, when the subscription has ended. Every later call returns it, too.
    pub async fn next_event(&mut self) -> Result<SubscriptionEvent, SubscriptionEnd> {
        loop {
            let arrived = self.subscriber.arrived().notified();
            if let Some(end) = self.subscriber.hard_end() {
                return Err(end);
            }
            if let Some(missed) = self.backlog.pop_front() {
                return Ok(missed);
            }
            if let Some(next) = self.subscriber.take_next() {
                return next;
            }
            arrived.await;
        }
    }

    /// Returns when nothing more may be sent to the consumer: after a revocation, for instance. It does not return for
    /// [`SubscriptionEnd::GoingAway`], before which the waiting messages are sent.
    pub async fn revoked(&self) -> SubscriptionEnd {
        loop {
            let arrived = self.subscriber.arrived().notified();
            if let Some(end) = self.subscriber.hard_end() {
                return end;
            }
            arrived.await;
        }
    }

    /// The number after which the consumer gets every message.
    #[must_use]
    pub fn start(&self) -> i64 {
        self.start
    }

    /// Maximum size of a message, in bytes.
    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "for the buffers of sockets"))]
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.hub.limits.message_bytes_max
    }

    /// A newer number than that of the last message, up to which the consumer has got everything; `None` while events wait.
    /// A consumer that resumes from there is not told to reload because old messages are gone.
    #[must_use]
    pub fn position(&self) -> Option<i64> {
        // Read before the queue: messages up to this number are in the queue, or were taken out.
        let position = self.hub.position();
        (self.backlog.is_empty() && !self.subscriber.has_waiting() && !self.subscriber.is_ended()).then_some(position)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.remove_subscriber(&self.subscriber);
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("tenant", &self.subscriber.tenant)
            .field("topic", &self.subscriber.topic)
            .finish_non_exhaustive()
    }
}
