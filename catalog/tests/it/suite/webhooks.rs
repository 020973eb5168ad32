//! Webhooks: one sender at a time, every selected event once and in order, and a place that never skips one.

use catalog::events::{self, NewEvent};
use catalog::webhooks::deliveries::{self, DeliveryRecord, DeliveryResult};
use catalog::webhooks::queue::{self, LEASE_MS, WebhookProgress};
use catalog::webhooks::{self, NewWebhook, WebhookRecord, WebhookState};
use catalog::{Catalog, ErrorKind, TenantId, WebhookId};
use secrecy::ExposeSecret as _;

use super::{Fixture, START, seed};

fn fleet_webhook(kinds: &[&str]) -> NewWebhook {
    NewWebhook {
        url: "https://receiver.example/".to_owned(),
        kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        tenant_id: None,
        private_allowed: false,
    }
}

async fn add(catalog: &Catalog, new: NewWebhook) -> WebhookRecord {
    let mut tx = catalog.write().await.unwrap();
    let (webhook, _) = webhooks::add_webhook(&mut tx, new).await.unwrap();
    tx.commit().await.unwrap();
    webhook
}

async fn happen(catalog: &Catalog, kind: &str, tenant_id: Option<TenantId>) -> i64 {
    let (actor, data) = ("test".to_owned(), serde_json::json!({}));
    let event = NewEvent { kind: kind.to_owned(), actor, tenant_id, op_id: None, request_id: None, data };
    let mut tx = catalog.write().await.unwrap();
    events::append_events(&mut tx, &[event]).await.unwrap();
    let all = events::list_events(&mut tx, None, None, 0, 10_000).await.unwrap();
    tx.commit().await.unwrap();
    all.last().unwrap().seq
}

async fn claim(catalog: &Catalog, owner: &str) -> Vec<WebhookId> {
    let mut tx = catalog.write().await.unwrap();
    let claimed = queue::claim_due(&mut tx, owner, 10).await.unwrap();
    tx.commit().await.unwrap();
    claimed.into_iter().map(|webhook| webhook.id).collect()
}

async fn next(catalog: &Catalog, id: WebhookId) -> Option<i64> {
    let mut tx = catalog.read().await.unwrap();
    let webhook = webhooks::get(&mut tx, id).await.unwrap().unwrap();
    queue::next_event(&mut tx, &webhook).await.unwrap().event.map(|event| event.seq)
}

fn delivery(seq: i64, result: DeliveryResult) -> DeliveryRecord {
    DeliveryRecord {
        number: 0,
        event_seq: Some(seq),
        message_id: format!("evt_{seq}"),
        kind: "tenant.created".to_owned(),
        attempt: 1,
        at: START,
        result,
        status: Some(200),
        error: None,
        duration_ms: 3,
    }
}

/// Records an attempt at this event, by what the catalog holds now.
async fn record(catalog: &Catalog, owner: &str, id: WebhookId, seq: i64, progress: WebhookProgress) -> bool {
    let mut tx = catalog.write().await.unwrap();
    let webhook = webhooks::get(&mut tx, id).await.unwrap().unwrap();
    let made = delivery(seq, DeliveryResult::Delivered);
    let counted = queue::record_attempt(&mut tx, owner, &webhook, &made, progress).await.unwrap();
    tx.commit().await.unwrap();
    counted
}

const DELIVERED: WebhookProgress = WebhookProgress::Advance { delivered: true };

async fn state(catalog: &Catalog, id: WebhookId) -> WebhookRecord {
    webhooks::get(&mut catalog.read().await.unwrap(), id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_webhook_begins_at_the_end_of_the_log_and_gets_what_it_selects() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 2).await;
    happen(&fixture.catalog, "tenant.created", None).await;
    let all = add(&fixture.catalog, fleet_webhook(&[])).await;
    let some = add(&fixture.catalog, fleet_webhook(&["tenant.deleted", "tenant.created"])).await;
    let own = NewWebhook { tenant_id: Some(ids[1]), ..fleet_webhook(&[]) };
    let own = add(&fixture.catalog, own).await;
    assert_eq!((all.state, all.created_at, all.delivered_at), (WebhookState::Enabled, START, None));
    for webhook in [&all, &some, &own] {
        assert_eq!(next(&fixture.catalog, webhook.id).await, None, "what was before is not sent");
    }
    assert!(!queue::any_due(&mut fixture.catalog.read().await.unwrap()).await.unwrap());
    let first = happen(&fixture.catalog, "member.set", Some(ids[0])).await;
    let second = happen(&fixture.catalog, "tenant.deleted", Some(ids[0])).await;
    let third = happen(&fixture.catalog, "member.set", Some(ids[1])).await;
    assert!(queue::any_due(&mut fixture.catalog.read().await.unwrap()).await.unwrap());
    for (webhook, seq) in [(&all, first), (&some, second), (&own, third)] {
        assert_eq!(next(&fixture.catalog, webhook.id).await, Some(seq));
    }
    fixture.catalog.close().await;
}

#[tokio::test]
async fn a_place_moves_over_what_is_not_selected_without_a_claim() {
    let fixture = Fixture::new().await;
    let webhook = add(&fixture.catalog, fleet_webhook(&["tenant.deleted"])).await;
    let last = happen(&fixture.catalog, "tenant.created", None).await;
    assert!(claim(&fixture.catalog, "a").await.is_empty());
    assert_eq!(state(&fixture.catalog, webhook.id).await.sent_seq, last);
    assert!(!queue::any_due(&mut fixture.catalog.read().await.unwrap()).await.unwrap());
    fixture.catalog.close().await;
}

#[tokio::test]
async fn one_process_at_a_time_sends_and_only_its_attempts_count() {
    let fixture = Fixture::new().await;
    let webhook = add(&fixture.catalog, fleet_webhook(&[])).await;
    let other = fixture.other_process().await;
    let first = happen(&fixture.catalog, "tenant.created", None).await;
    let second = happen(&fixture.catalog, "tenant.created", None).await;
    assert_eq!(claim(&fixture.catalog, "a").await, [webhook.id]);
    assert!(claim(&other, "b").await.is_empty());
    assert!(claim(&fixture.catalog, "a").await.is_empty(), "it sends already");
    assert!(!record(&other, "b", webhook.id, first, DELIVERED).await);
    assert!(record(&fixture.catalog, "a", webhook.id, first, DELIVERED).await);
    assert_eq!(next(&other, webhook.id).await, Some(second));
    // The process dies. Its lease was renewed with the attempt.
    fixture.advance(LEASE_MS - 1);
    assert!(claim(&other, "b").await.is_empty());
    fixture.advance(1);
    let before = state(&other, webhook.id).await;
    assert_eq!(claim(&other, "b").await, [webhook.id]);
    assert!(!record(&fixture.catalog, "a", webhook.id, second, DELIVERED).await, "a has lost the lease");
    assert_eq!(state(&other, webhook.id).await, before, "and changes nothing");
    assert!(record(&other, "b", webhook.id, second, DELIVERED).await);
    let mut tx = other.write().await.unwrap();
    queue::release_all(&mut tx, "a").await.unwrap();
    assert!(queue::held_webhook(&mut tx, "b", webhook.id).await.unwrap().is_some(), "only its own claims");
    let made = delivery(second, DeliveryResult::Delivered);
    assert!(!queue::record_attempt(&mut tx, "b", &before, &made, DELIVERED).await.unwrap(), "the place has moved");
    queue::release_webhook(&mut tx, "b", webhook.id, None).await.unwrap();
    tx.commit().await.unwrap();
    happen(&other, "tenant.created", None).await;
    assert_eq!(claim(&fixture.catalog, "a").await, [webhook.id], "given back, taken at once");
    other.close().await;
    fixture.catalog.close().await;
}

#[tokio::test]
async fn the_webhook_that_is_furthest_behind_is_claimed_first() {
    let fixture = Fixture::new().await;
    let mut added = Vec::new();
    for _ in 0..3 {
        added.push(add(&fixture.catalog, fleet_webhook(&[])).await.id);
        happen(&fixture.catalog, "tenant.created", None).await;
    }
    let first = state(&fixture.catalog, added[0]).await.sent_seq + 1;
    assert_eq!(claim(&fixture.catalog, "a").await, added);
    // The first one overtakes the second one.
    for seq in first..first + 2 {
        assert!(record(&fixture.catalog, "a", added[0], seq, DELIVERED).await);
    }
    fixture.advance(LEASE_MS);
    assert_eq!(claim(&fixture.catalog, "b").await, [added[1], added[0], added[2]]);
    fixture.catalog.close().await;
}

#[tokio::test]
async fn a_failed_event_waits_for_its_time_and_keeps_its_place() {
    let fixture = Fixture::new().await;
    let webhook = add(&fixture.catalog, fleet_webhook(&[])).await;
    let first = happen(&fixture.catalog, "tenant.created", None).await;
    claim(&fixture.catalog, "a").await;
    assert!(record(&fixture.catalog, "a", webhook.id, first, WebhookProgress::RetryAt(START + 5_000)).await);
    let mut tx = fixture.catalog.write().await.unwrap();
    queue::release_webhook(&mut tx, "a", webhook.id, None).await.unwrap();
    tx.commit().await.unwrap();
    let failing = state(&fixture.catalog, webhook.id).await;
    assert_eq!((failing.state, failing.failures), (WebhookState::Failing, 1));
    fixture.advance(4_999);
    assert!(claim(&fixture.catalog, "a").await.is_empty());
    fixture.advance(1);
    assert_eq!(claim(&fixture.catalog, "a").await, [webhook.id]);
    assert_eq!(next(&fixture.catalog, webhook.id).await, Some(first));
    assert!(record(&fixture.catalog, "a", webhook.id, first, DELIVERED).await);
    let sent = state(&fixture.catalog, webhook.id).await;
    assert_eq!((sent.state, sent.failures, sent.delivered_at), (WebhookState::Enabled, 0, Some(START + 5_000)));
    fixture.catalog.close().await;
}

#[tokio::test]
async fn a_wait_that_a_wrong_clock_wrote_does_not_block() {
    let fixture = Fixture::new().await;
    let webhook = add(&fixture.catalog, fleet_webhook(&[])).await;
    let first = happen(&fixture.catalog, "tenant.created", None).await;
    claim(&fixture.catalog, "a").await;
    let wrong = START + 400 * 86_400_000;
    assert!(record(&fixture.catalog, "a", webhook.id, first, WebhookProgress::RetryAt(wrong)).await);
    fixture.advance(LEASE_MS);
    assert_eq!(claim(&fixture.catalog, "b").await, [webhook.id]);
    fixture.catalog.close().await;
}

#[tokio::test]
async fn a_paused_webhook_sends_nothing_and_goes_on_where_it_was() {
    let fixture = Fixture::new().await;
    let webhook = add(&fixture.catalog, fleet_webhook(&[])).await;
    let first = happen(&fixture.catalog, "tenant.created", None).await;
    claim(&fixture.catalog, "a").await;
    let mut tx = fixture.catalog.write().await.unwrap();
    assert_eq!(webhooks::resume_webhook(&mut tx, webhook.id).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(webhooks::pause_webhook(&mut tx, webhook.id).await.unwrap().state, WebhookState::Paused);
    assert_eq!(webhooks::pause_webhook(&mut tx, webhook.id).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(queue::held_webhook(&mut tx, "a", webhook.id).await.unwrap().is_none());
    tx.commit().await.unwrap();
    // The attempt that was under way counts, and the webhook stays paused.
    assert!(record(&fixture.catalog, "a", webhook.id, first, DELIVERED).await);
    let second = happen(&fixture.catalog, "tenant.created", None).await;
    fixture.advance(LEASE_MS);
    assert!(claim(&fixture.catalog, "a").await.is_empty());
    let mut tx = fixture.catalog.write().await.unwrap();
    assert_eq!(webhooks::resume_webhook(&mut tx, webhook.id).await.unwrap().state, WebhookState::Enabled);
    tx.commit().await.unwrap();
    assert_eq!(claim(&fixture.catalog, "a").await, [webhook.id]);
    assert_eq!(next(&fixture.catalog, webhook.id).await, Some(second));
    assert!(record(&fixture.catalog, "a", webhook.id, second, WebhookProgress::Pause).await);
    assert_eq!(state(&fixture.catalog, webhook.id).await.state, WebhookState::Paused);
    fixture.catalog.close().await;
}

#[tokio::test]
async fn a_secret_is_shown_once_and_stored_sealed() {
    let fixture = Fixture::new().await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let (webhook, secret) = webhooks::add_webhook(&mut tx, fleet_webhook(&[])).await.unwrap();
    let (other, others) = webhooks::add_webhook(&mut tx, fleet_webhook(&[])).await.unwrap();
    assert_ne!(secret.expose_secret(), others.expose_secret());
    let text = secret.expose_secret().strip_prefix("whsec_").unwrap().to_owned();
    let key = webhooks::signing_key(&mut tx, webhook.id).await.unwrap().unwrap();
    assert_eq!(key.expose_secret().len(), 32);
    use base64::Engine as _;
    assert_eq!(base64::engine::general_purpose::STANDARD.encode(key.expose_secret()), text);
    assert!(!format!("{webhook:?}{secret:?}").contains(&text));
    webhooks::remove_webhook(&mut tx, other.id).await.unwrap();
    assert!(webhooks::signing_key(&mut tx, other.id).await.unwrap().is_none());
    tx.commit().await.unwrap();
    fixture.catalog.close().await;
}

#[tokio::test]
async fn a_log_keeps_the_latest_attempts_and_goes_with_its_webhook() {
    let fixture = Fixture::new().await;
    let webhook = add(&fixture.catalog, fleet_webhook(&[])).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    for attempt in 1..=502 {
        let made = DeliveryRecord { attempt, ..delivery(1, DeliveryResult::Failed) };
        assert_eq!(deliveries::append_delivery(&mut tx, webhook.id, &made).await.unwrap(), attempt);
    }
    let all = deliveries::list_deliveries(&mut tx, webhook.id, None, 1_000).await.unwrap();
    assert_eq!((all.len(), all[0].attempt, all[499].attempt), (500, 502, 3));
    let page = deliveries::list_deliveries(&mut tx, webhook.id, Some(all[1].number), 2).await.unwrap();
    assert_eq!(page.iter().map(|made| made.attempt).collect::<Vec<_>>(), [500, 499]);
    webhooks::remove_webhook(&mut tx, webhook.id).await.unwrap();
    assert!(deliveries::list_deliveries(&mut tx, webhook.id, None, 10).await.unwrap().is_empty());
    assert_eq!(webhooks::remove_webhook(&mut tx, webhook.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(webhooks::pause_webhook(&mut tx, webhook.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    drop(tx);
    fixture.catalog.close().await;
}

#[tokio::test]
async fn a_fleet_has_a_limited_number_of_webhooks() {
    let fixture = Fixture::new().await;
    let mut tx = fixture.catalog.write().await.unwrap();
    for _ in 0..100 {
        webhooks::add_webhook(&mut tx, fleet_webhook(&[])).await.unwrap();
    }
    let refused = webhooks::add_webhook(&mut tx, fleet_webhook(&[])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    let first = webhooks::list_webhooks(&mut tx, None, 60).await.unwrap();
    let rest = webhooks::list_webhooks(&mut tx, Some(first[59].id), 60).await.unwrap();
    assert_eq!((first.len(), rest.len()), (60, 40));
    drop(tx);
    fixture.catalog.close().await;
}
