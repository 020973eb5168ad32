//! Sends the events that webhooks wait for.
//!
//! Every process looks each second whether any webhook is due, with one query. It looks at once after a claim that was used
//! up. It claims the due ones and sends each
//! one's events in order. After each attempt one transaction records it and moves the webhook's place. A process that
//! stops finishes its current attempts and gives its claims back. After SIGKILL the claims end, and another process
//! sends the unrecorded events again.

use std::sync::Arc;
use std::time::Duration;

use catalog::events::{self, NewEvent};
use catalog::webhooks::deliveries::{self, DeliveryRecord, DeliveryResult};
use catalog::webhooks::queue;
use catalog::webhooks::{self, WebhookRecord};
use catalog::{Catalog, WebhookId};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use secrecy::{ExposeSecret as _, SecretSlice};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::tasks::ProcessTasks;
use crate::webhooks::client::{WebhookAnswer, WebhookClient, WebhookRequest};
use crate::webhooks::message::{WebhookMessage, event_message};
use crate::webhooks::retry::{PastAttempts, decide_progress};

/// How often a process looks for due webhooks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Webhooks that one process sends to at once: each has a connection, and may wait for a slow receiver.
const SENDERS_MAX: usize = 16;
/// Events of one claim. Then a webhook that is further behind has its turn.
const EVENTS_PER_CLAIM: usize = 100;
/// The beginning of the kinds of events about webhooks themselves.
const OWN_KINDS: &str = "webhook.";

/// Sends events for one process.
#[derive(Debug)]
pub struct WebhookWorker {
    catalog: Catalog,
    client: Arc<WebhookClient>,
    owner: String,
    stopping: CancellationToken,
    look_every: Duration,
}

/// The next message of a claimed webhook.
struct PendingMessage {
    webhook: WebhookRecord,
    seq: i64,
    message: WebhookMessage,
    key: SecretSlice<u8>,
}

/// Starts the worker of a serving process.
pub(crate) fn start_worker(catalog: &Catalog, client: &Arc<WebhookClient>, process: &str, tasks: &ProcessTasks) {
    let stopping = tasks.stopping_token().clone();
    let worker = WebhookWorker::new(catalog.clone(), Arc::clone(client), process, stopping);
    tasks.spawn_task(async move { worker.run_until_stopped().await });
}

impl WebhookWorker {
    /// A worker of the process with this name in the catalog. It ends its work when the token is cancelled.
    #[must_use]
    pub fn new(catalog: Catalog, client: Arc<WebhookClient>, process: &str, stopping: CancellationToken) -> Self {
        Self { catalog, client, owner: process.to_owned(), stopping, look_every: LOOK_EVERY }
    }

    /// The same worker, which looks for due webhooks this often.
    #[must_use]
    pub fn look_every(self, look_every: Duration) -> Self {
        Self { look_every, ..self }
    }

    /// Sends until the token is cancelled, and then until the current attempts have ended.
    pub async fn run_until_stopped(&self) {
        let mut sending = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(self.look_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => break,
                Some(has_more) = sending.next(), if !sending.is_empty() => {
                    if has_more {
                        ticks.reset_immediately();
                    }
                }
                _ = ticks.tick() => match self.claim_webhooks(SENDERS_MAX - sending.len()).await {
                    Ok(claimed) => sending.extend(claimed.into_iter().map(|id| self.send_claimed(id))),
                    Err(error) => {
                        tracing::warn!(code = %error.code(), %error, "the due webhooks were not found; they are looked for again");
                    }
                },
            }
        }
        while sending.next().await.is_some() {}
    }

    /// Sends to every webhook that is due now, and returns when these claims have ended.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn send_due(&self) -> Result<()> {
        let claimed = self.claim_webhooks(SENDERS_MAX).await?;
        let sending: FuturesUnordered<_> = claimed.into_iter().map(|id| self.send_claimed(id)).collect();
        sending.collect::<Vec<bool>>().await;
        Ok(())
    }

    /// Claims at most this many due webhooks. Without a due one it only reads.
    async fn claim_webhooks(&self, claims_max: usize) -> Result<Vec<WebhookId>> {
        if claims_max == 0 || !queue::any_due(&mut self.catalog.read().await?).await? {
            return Ok(Vec::new());
        }
        let mut tx = self.catalog.write().await?;
        let claims_max = u32::try_from(claims_max).unwrap_or(u32::MAX);
        let claimed = queue::claim_due(&mut tx, &self.owner, claims_max).await?;
        tx.commit().await?;
        Ok(claimed.into_iter().map(|webhook| webhook.id).collect())
    }

    /// Sends the events of a claimed webhook, and gives the claim back. If that fails, the claim ends by its time. `true`
    /// when the claim was used up, so that more events may wait.
    async fn send_claimed(&self, id: WebhookId) -> bool {
        self.send_events(id).await.unwrap_or_else(|error| {
            tracing::warn!(webhook = %id, code = %error.code(), %error, "a webhook was interrupted; it is tried again");
            false
        })
    }

    async fn send_events(&self, id: WebhookId) -> Result<bool> {
        let (mut seen_seq, mut sent) = (None, 0);
        while sent < EVENTS_PER_CLAIM && !self.stopping.is_cancelled() {
            match self.pending_message(id).await? {
                NextMessage::Lost => return Ok(false),
                NextMessage::None { seen_seq: seen } => {
                    seen_seq = Some(seen);
                    break;
                }
                NextMessage::Ready(pending) => {
                    if !self.send_pending(*pending).await? {
                        break;
                    }
                    sent += 1;
                }
            }
        }
        let mut tx = self.catalog.write().await?;
        queue::release_webhook(&mut tx, &self.owner, id, seen_seq).await?;
        tx.commit().await?;
        Ok(sent == EVENTS_PER_CLAIM)
    }

    async fn pending_message(&self, id: WebhookId) -> Result<NextMessage> {
        let mut tx = self.catalog.read().await?;
        let Some(webhook) = queue::held_webhook(&mut tx, &self.owner, id).await? else {
            return Ok(NextMessage::Lost);
        };
        let next = queue::next_event(&mut tx, &webhook).await?;
        let (Some(event), Some(key)) = (next.event, webhooks::signing_key(&mut tx, id).await?) else {
            return Ok(NextMessage::None { seen_seq: next.seen_seq });
        };
        let seq = event.seq;
        let message = event_message(&mut tx, event).await?;
        Ok(NextMessage::Ready(Box::new(PendingMessage { webhook, seq, message, key })))
    }

    /// Sends one message and records the attempt. `true` when the next event can be sent at once.
    async fn send_pending(&self, pending: PendingMessage) -> Result<bool> {
        let now = self.catalog.now();
        let request = WebhookRequest {
            url: &pending.webhook.url,
            private_allowed: pending.webhook.private_allowed,
            key: pending.key.expose_secret(),
            message: &pending.message,
            now,
        };
        let answer = self.client.send_message(request).await;
        self.record_answer(&pending, answer, now).await
    }

    async fn record_answer(&self, pending: &PendingMessage, answer: WebhookAnswer, at: i64) -> Result<bool> {
        let webhook = &pending.webhook;
        let mut tx = self.catalog.write().await?;
        let first_at = deliveries::first_attempt_at(&mut tx, webhook.id, &pending.message.id).await?;
        let past = PastAttempts { failures: webhook.failures, first_at };
        let (result, progress) = decide_progress(&answer, past, tx.now(), random_byte());
        let delivery = DeliveryRecord {
            number: 0,
            event_seq: Some(pending.seq),
            message_id: pending.message.id.clone(),
            kind: pending.message.kind.clone(),
            attempt: webhook.failures + 1,
            at,
            result,
            status: answer.status.map(i64::from),
            error: answer.error,
            duration_ms: answer.duration_ms,
        };
        if !queue::record_attempt(&mut tx, &self.owner, webhook, &delivery, progress).await? {
            return Ok(false);
        }
        if let Some(event) = outcome_event(webhook.id, &delivery) {
            events::append_events(&mut tx, &[event]).await?;
        }
        tx.commit().await?;
        Ok(result == DeliveryResult::Delivered)
    }
}

/// Releases the claims of a process that is gone. They would end a little later anyway.
pub(crate) async fn release_claims(catalog: &Catalog, owner: &str) {
    let released = async {
        let mut tx = catalog.write().await?;
        queue::release_all(&mut tx, owner).await?;
        tx.commit().await
    };
    if let Err(error) = released.await {
        tracing::warn!(%error, "webhooks of the previous process wait for a moment");
    }
}

/// What a claimed webhook has to send.
enum NextMessage {
    /// This message.
    Ready(Box<PendingMessage>),
    /// Nothing up to this event.
    None { seen_seq: i64 },
    /// The webhook is paused or removed, or another process sends.
    Lost,
}

/// The event about an attempt that an operator should know of. PURE. An event about webhooks that is given up leaves none,
/// so that a webhook that fails causes no further events for itself.
fn outcome_event(webhook: WebhookId, delivery: &DeliveryRecord) -> Option<NewEvent> {
    let kind = match delivery.result {
        DeliveryResult::GivenUp if !delivery.kind.starts_with(OWN_KINDS) => "webhook.event_given_up",
        DeliveryResult::Gone => "webhook.paused",
        _ => return None,
    };
    let data = serde_json::json!({
        "webhook": webhook.to_string(),
        "event": delivery.event_seq,
        "kind": delivery.kind,
        "attempts": delivery.attempt,
        "error": delivery.error,
    });
    let actor = "fleet".to_owned();
    Some(NewEvent { kind: kind.to_owned(), actor, tenant_id: None, op_id: None, request_id: None, data })
}

/// A byte that spreads the attempts of several webhooks: the last one of an id, which is random.
fn random_byte() -> u8 {
    uuid::Uuid::now_v7().as_bytes()[15]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_about_webhooks_that_is_given_up_leaves_no_event() {
        let made = |kind: &str, result| {
            let delivery = DeliveryRecord {
                number: 0,
                event_seq: Some(7),
                message_id: "evt_7_1".to_owned(),
                kind: kind.to_owned(),
                attempt: 8,
                at: 1,
                result,
                status: None,
                error: Some("no answer".to_owned()),
                duration_ms: 1,
            };
            outcome_event(WebhookId::generate(), &delivery).map(|event| event.kind)
        };
        assert_eq!(made("tenant.created", DeliveryResult::GivenUp).as_deref(), Some("webhook.event_given_up"));
        assert_eq!(made("webhook.event_given_up", DeliveryResult::GivenUp), None);
        assert_eq!(made("webhook.removed", DeliveryResult::Gone).as_deref(), Some("webhook.paused"));
        assert_eq!(made("tenant.created", DeliveryResult::Failed), None);
        assert_eq!(made("tenant.created", DeliveryResult::Delivered), None);
    }
}
