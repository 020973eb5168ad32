//! [`TenantTopic`]: a topic of one tenant. [`Tenant::topic`] is its only maker.

use std::sync::Arc;
use std::time::Instant;

use catalog::topics::NewTopicMessage;
use serde::Serialize;
use tokio::sync::oneshot;

use super::guard::confirm_access;
use super::publisher::OutgoingMessage;
use super::subscriber::{AccessCheck, Subscriber};
use super::subscription::{Subscription, SubscriptionRequest};
use crate::error::{Error, ErrorKind, Result};
use crate::router::Router;
use crate::tenant::{AccessLevel, CanWrite, Tenant};

/// Maximum length of a topic's name. The names are in every message and subscription.
const NAME_MAX: usize = 64;

/// A topic: a name, inside one tenant. Two tenants may have topics of one name, and never see each other's messages.
///
/// ```
/// use serde::Serialize;
/// use tenant_router::realtime::{SubscriptionEvent, SubscriptionRequest};
/// use tenant_router::{Error, Read, Tenant, Write};
///
/// #[derive(Serialize)]
/// struct TaskChanged {
///     task: i64,
/// }
///
/// async fn rename(tenant: &Tenant<Write>, task: i64, title: &str) -> Result<(), Error> {
///     tenant.execute("update tasks set title = $1 where id = $2", (title, task)).await?;
///     // After the commit.
///     tenant.topic("tasks")?.publish(&TaskChanged { task }).await?;
///     Ok(())
/// }
///
/// async fn follow(tenant: Tenant<Read>) -> Result<(), Error> {
///     let mut subscription = tenant.topic("tasks")?.subscribe(SubscriptionRequest::proven_by_application()).await?;
///     while let Ok(event) = subscription.next_event().await {
///         match event {
///             SubscriptionEvent::Message(message) => println!("{}", message.payload()),
///             SubscriptionEvent::Reload { .. } => println!("read the tasks again"),
///         }
///     }
///     Ok(())
/// }
/// ```
pub struct TenantTopic<'a, A: AccessLevel> {
    tenant: &'a Tenant<A>,
    name: String,
}

impl<A: AccessLevel> Tenant<A> {
    /// A topic of this tenant.
    ///
    /// # Errors
    /// `TopicInvalid` when the name is not 1 to 64 of `a-z`, `0-9`, `-`, `_`, `.` and `:`.
    pub fn topic(&self, name: impl Into<String>) -> Result<TenantTopic<'_, A>> {
        let name = name.into();
        let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':');
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(is_allowed) {
            return Err(ErrorKind::TopicInvalid.into());
        }
        Ok(TenantTopic { tenant: self, name })
    }
}

impl<A: AccessLevel> TenantTopic<'_, A> {
    /// Follows the topic, for the caller that opened the tenant. The access is checked now, and all the time until the
    /// subscription is dropped.
    ///
    /// # Errors
    /// `SubscriptionsMax`, `ShuttingDown`, `CatalogUnavailable`; `NotFound`, `Unauthenticated` and the errors about the
    /// tenant's state when the caller has lost its access a moment ago.
    pub async fn subscribe(&self, request: SubscriptionRequest) -> Result<Subscription> {
        let router = &self.tenant.router;
        router.require_ready().await?;
        let caches = &router.inner.caches;
        let record = self.tenant.grant.record();
        let unchecked = AccessCheck {
            mark: caches.change_counter.tenant_mark(record.id),
            confirmed_at: Instant::now(),
            placement: record.placement.clone(),
        };
        let principal = Arc::clone(self.tenant.grant.principal());
        let subscriber = Subscriber::new(record.id, &self.name, principal, request.credential, unchecked);
        // A change since the tenant was opened is in the mark already, and would not be looked into again.
        let checked = confirm_access(caches, &router.inner.catalog, &subscriber).await?;
        let mark = checked.mark;
        *subscriber.last_check() = checked;
        let subscription = Subscription::begin(router, subscriber, request.after).await?;
        // The hub may have looked into a change before it knew this subscriber.
        if caches.change_counter.tenant_mark(record.id) != mark {
            subscription.confirm_again(router).await?;
        }
        Ok(subscription)
    }
}

impl<A: CanWrite> TenantTopic<'_, A> {
    /// Tells the subscribers of this topic in all processes. Call it after the commit of the change. Returns the message's
    /// number when the catalog has stored the message.
    ///
    /// # Errors
    /// `MessageTooLarge`, `MessagesMax`; `CatalogUnavailable` when the message may not be stored; `Misconfigured` when the
    /// message is not JSON.
    pub async fn publish<T: Serialize + ?Sized>(&self, message: &T) -> Result<i64> {
        let hub = &self.tenant.router.inner.subscriptions;
        let text =
            serde_json::to_string(message).map_err(|error| Error::new(ErrorKind::Misconfigured).with_source(error))?;
        if text.len() > hub.limits.message_bytes_max {
            return Err(ErrorKind::MessageTooLarge.into());
        }
        // Raw JSON may have line breaks between its parts. In one line, it is one line of an event stream.
        let payload = if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ") } else { text };
        hub.admit_message(self.tenant.id(), Instant::now())?;
        let (stored, number) = oneshot::channel();
        let message = NewTopicMessage { tenant: self.tenant.id(), topic: self.name.clone(), payload };
        hub.outbox.try_send(OutgoingMessage { message, stored }).map_err(|_| ErrorKind::MessagesMax)?;
        number.await.map_err(|_| ErrorKind::ShuttingDown)?
    }
}

impl<A: AccessLevel> std::fmt::Debug for TenantTopic<'_, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantTopic").field("tenant", &self.tenant.id()).field("name", &self.name).finish()
    }
}

impl Router {
    /// Ends all subscriptions with the reason `GoingAway`, and refuses new ones. Returns when their connections are closed, and
    /// after 5 s at the latest. Call it at the signal to stop, before the server waits for its connections.
    pub async fn end_subscriptions(&self) {
        self.inner.subscriptions.drain_subscribers().await;
    }
}
