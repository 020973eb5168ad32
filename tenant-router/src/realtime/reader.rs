//! The task of a router's topics: stores messages, reads those of all processes, and checks the subscribers.
//!
//! It reads nothing while the process has no subscription.

use std::sync::Arc;
use std::time::Duration;

use catalog::Catalog;
use catalog::topics::{self, MessagePage};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::guard::{CHECK_EVERY, SubscriberGuard};
use super::hub::SubscriptionHub;
use super::publisher::{OutgoingMessage, store_messages};
use crate::error::Result;
use crate::feed::RouterCaches;

/// Messages that are read at once: at most 2 MB.
const PAGE_MAX: u32 = 256;

/// The longest single wait for a message. Those of other processes are usually seen earlier.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The pause after a failed read.
const READ_PAUSE: Duration = Duration::from_millis(500);

/// Serves the topics of a router until told to stop.
pub(crate) async fn serve_topics(
    hub: Arc<SubscriptionHub>,
    inbox: mpsc::Receiver<OutgoingMessage>,
    caches: Arc<RouterCaches>,
    catalog: Catalog,
    stop: CancellationToken,
) {
    let guard = SubscriberGuard::new(&hub, &caches, &catalog);
    tokio::join!(
        store_messages(inbox, &catalog, &caches.meters, &stop),
        read_messages(&guard, &stop),
        check_regularly(&guard, &stop),
        confirm_regularly(&guard, &stop),
    );
    // The router is dropped: nothing comes any more.
    hub.end_all();
}

/// Checks the subscribers after each change of the catalog, and regularly. Apart from the reading, which may wait for the
/// catalog.
async fn check_regularly(guard: &SubscriberGuard<'_>, stop: &CancellationToken) {
    // An interval, because frequent changes must not put off the regular check.
    let mut tick = tokio::time::interval(CHECK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => guard.check_subscribers().await,
            () = guard.caches.news.notified() => guard.check_after_changes().await,
        }
    }
}

/// Ends subscriptions that are not confirmed in time, also while a check of others takes long.
async fn confirm_regularly(guard: &SubscriberGuard<'_>, stop: &CancellationToken) {
    let mut tick = tokio::time::interval(CHECK_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => drop(guard.confirm_by_feed()),
        }
    }
}

async fn read_messages(guard: &SubscriberGuard<'_>, stop: &CancellationToken) {
    let mut failures = 0_u32;
    loop {
        let round = async {
            if guard.hub.is_idle() {
                guard.hub.wake.notified().await;
                return Ok(());
            }
            topics::wait_for_message(guard.catalog, guard.hub.position(), WAIT_MAX).await?;
            deliver_news(guard).await
        };
        let done = tokio::select! {
            () = stop.cancelled() => return,
            done = round => done,
        };
        match done {
            Ok(()) => failures = 0,
            Err(error) => {
                failures = failures.saturating_add(1);
                guard.caches.meters.message_failures.increment(1);
                // Logged once per outage; the counter shows its length.
                if failures == 1 {
                    let source = std::error::Error::source(&error).map(tracing::field::display);
                    tracing::warn!(%error, source, "the messages of topics cannot be read; trying again");
                }
                tokio::time::sleep(READ_PAUSE).await;
            }
        }
    }
}

/// Reads the new messages, and queues them for those who may have them.
async fn deliver_news(guard: &SubscriberGuard<'_>) -> Result<()> {
    let hub = guard.hub;
    loop {
        let page = topics::messages_after(&mut guard.catalog.read().await?, hub.position(), PAGE_MAX).await?;
        let MessagePage { messages, seq, is_incomplete } = page;
        if is_incomplete {
            hub.announce_gap(seq);
            return Ok(());
        }
        if messages.is_empty() {
            return Ok(());
        }
        // A caller who was removed before a message was published must not get it.
        guard.caches.catch_up(guard.catalog).await?;
        guard.check_after_changes().await;
        hub.deliver_messages(messages, seq);
    }
}
