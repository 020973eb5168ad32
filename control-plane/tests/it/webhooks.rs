//! Webhooks with a real receiver on loopback: order, repetition, time limits, and what a dead process leaves.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use catalog::events::{self, EventRecord, NewEvent};
use catalog::webhooks::deliveries::{self, DeliveryRecord, DeliveryResult};
use catalog::webhooks::{self, NewWebhook, WebhookRecord, WebhookState};
use catalog::{Catalog, WebhookId};
use control_plane::background::webhooks::WebhookWorker;
use control_plane::config::ProcessRole;
use control_plane::domains::lookup::{AddressLookup, LookupFailure};
use control_plane::webhooks::client::WebhookClient;
use secrecy::ExposeSecret as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::webhook_sink::{Received, SinkReply, WebhookSink};
use crate::world::World;

/// A lease lasts 45 seconds.
const LEASE: Duration = Duration::from_secs(46);
/// The waits between attempts, each with its tenth.
const WAITS_S: [u64; 7] = [6, 330, 1_980, 7_920, 19_800, 23_760, 31_680];

/// A DNS server that answers each time with the next list, and counts.
#[derive(Debug, Default)]
struct FakeLookup(Mutex<Vec<IpAddr>>);

#[async_trait]
impl AddressLookup for FakeLookup {
    async fn lookup_addresses(&self, _: &str) -> Result<Vec<IpAddr>, LookupFailure> {
        let mut answers = self.0.lock().unwrap();
        if answers.is_empty() { Err(LookupFailure("asked too often".to_owned())) } else { Ok(vec![answers.remove(0)]) }
    }
}

/// The name of another process.
fn new_name() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

fn worker_of(catalog: &Catalog) -> WebhookWorker {
    let client = WebhookClient::new(Arc::new(FakeLookup::default())).attempt_max(Duration::from_secs(30));
    WebhookWorker::new(catalog.clone(), Arc::new(client), &new_name(), CancellationToken::new())
}

async fn add(world: &World, url: String, kinds: &[&str]) -> (WebhookRecord, String) {
    let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let new = NewWebhook { url, kinds, tenant_id: None, private_allowed: true };
    let mut tx = world.app.catalog.write().await.unwrap();
    let (webhook, secret) = webhooks::add_webhook(&mut tx, new).await.unwrap();
    tx.commit().await.unwrap();
    (webhook, secret.expose_secret().to_owned())
}

/// Events with these numbers in their data.
async fn happen(catalog: &Catalog, numbers: std::ops::Range<i64>) {
    let event = |number| NewEvent {
        kind: "tenant.labelled".to_owned(),
        actor: "test".to_owned(),
        tenant_id: None,
        op_id: None,
        request_id: None,
        data: serde_json::json!({ "number": number }),
    };
    let mut tx = catalog.write().await.unwrap();
    events::append_events(&mut tx, &numbers.map(event).collect::<Vec<_>>()).await.unwrap();
    tx.commit().await.unwrap();
}

fn number(received: &Received) -> i64 {
    received.json()["data"]["data"]["number"].as_i64().unwrap()
}

async fn state(world: &World, id: WebhookId) -> WebhookRecord {
    webhooks::get(&mut world.app.catalog.read().await.unwrap(), id).await.unwrap().unwrap()
}

/// The log, oldest first.
async fn log(world: &World, id: WebhookId) -> Vec<DeliveryRecord> {
    let mut tx = world.app.catalog.read().await.unwrap();
    let mut all = deliveries::list_deliveries(&mut tx, id, None, 1_000).await.unwrap();
    all.reverse();
    all
}

async fn events_of_kind(world: &World, kind: &str) -> Vec<EventRecord> {
    let mut tx = world.app.catalog.read().await.unwrap();
    let all = events::list_events(&mut tx, None, None, 0, 10_000).await.unwrap();
    all.into_iter().filter(|event| event.event.kind == kind).collect()
}

/// The signature of a message, as `openssl` makes it.
fn signature_by_openssl(secret: &str, received: &Received) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let key_option = format!("hexkey:{hex}");
    let args = ["dgst", "-sha256", "-mac", "HMAC", "-macopt", &key_option, "-binary"];
    let started = Command::new("openssl").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut openssl = started.unwrap();
    let signed = format!("{}.{}.{}", received.message_id(), received.header("webhook-timestamp"), received.text);
    openssl.stdin.take().unwrap().write_all(signed.as_bytes()).unwrap();
    format!("v1,{}", STANDARD.encode(openssl.wait_with_output().unwrap().stdout))
}

#[tokio::test]
async fn events_arrive_in_order_and_signed() {
    let world = World::new().await;
    happen(&world.app.catalog, 0..3).await;
    let mut sink = WebhookSink::start(&[]).await;
    let (webhook, secret) = add(&world, sink.url(), &[]).await;
    let worker = worker_of(&world.app.catalog);
    worker.send_due().await.unwrap();
    assert!(sink.rest().is_empty(), "what was before is not sent");
    happen(&world.app.catalog, 3..40).await;
    let now_s = world.now() / 1_000;
    worker.send_due().await.unwrap();
    let received = sink.rest();
    assert_eq!(received.iter().map(number).collect::<Vec<_>>(), (3..40).collect::<Vec<_>>());
    let first = &received[0];
    assert_eq!((first.path.as_str(), first.header("content-type")), ("/hook", "application/json"));
    assert_eq!(first.header("webhook-signature"), signature_by_openssl(&secret, first));
    assert!((first.header("webhook-timestamp").parse::<i64>().unwrap() - now_s).abs() <= 1);
    let body = first.json();
    assert_eq!((&body["type"], &body["timestamp"]), (&"tenant.labelled".into(), &body["data"]["at"]));
    for field in ["seq", "at", "kind", "actor", "actor_name", "tenant_id", "tenant", "operation_id", "request_id"] {
        assert!(body["data"].get(field).is_some(), "{field}: {body}");
    }
    let mut ids: Vec<&str> = received.iter().map(Received::message_id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 37);
    let made = log(&world, webhook.id).await;
    assert_eq!((made.len(), made[0].status, made[0].result), (37, Some(204), DeliveryResult::Delivered));
    assert_eq!(state(&world, webhook.id).await.sent_seq, received[36].seq());
    worker.send_due().await.unwrap();
    assert!(sink.rest().is_empty());
}

#[tokio::test]
async fn a_failed_event_is_sent_again_before_the_next_one() {
    let world = World::new().await;
    let mut sink = WebhookSink::start(&[SinkReply::Status(500), SinkReply::Status(404)]).await;
    let (webhook, _) = add(&world, sink.url(), &[]).await;
    let worker = worker_of(&world.app.catalog);
    happen(&world.app.catalog, 1..3).await;
    for wait in [0, 6, 330] {
        world.advance(Duration::from_secs(wait));
        worker.send_due().await.unwrap();
        // It is too early for more.
        worker.send_due().await.unwrap();
    }
    let received = sink.rest();
    assert_eq!(received.iter().map(number).collect::<Vec<_>>(), [1, 1, 1, 2]);
    let ids: Vec<&str> = received.iter().map(Received::message_id).collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "{ids:?}");
    let made = log(&world, webhook.id).await;
    let results: Vec<_> = made.iter().map(|made| (made.attempt, made.status, made.result)).collect();
    assert_eq!(
        results,
        [
            (1, Some(500), DeliveryResult::Failed),
            (2, Some(404), DeliveryResult::Failed),
            (3, Some(204), DeliveryResult::Delivered),
            (1, Some(204), DeliveryResult::Delivered),
        ]
    );
    assert_eq!(state(&world, webhook.id).await.state, WebhookState::Enabled);
}

#[tokio::test]
async fn a_busy_receiver_is_tried_again_when_it_says() {
    let world = World::new().await;
    let mut sink = WebhookSink::start(&[SinkReply::Busy(503, "3600"), SinkReply::Busy(429, "1")]).await;
    let (webhook, _) = add(&world, sink.url(), &[]).await;
    let worker = worker_of(&world.app.catalog);
    happen(&world.app.catalog, 1..2).await;
    // The waits of the plan are 5 s and 5 min.
    for (wait, requests) in [(0, 1), (3_590, 0), (12, 1), (290, 0), (42, 1)] {
        world.advance(Duration::from_secs(wait));
        worker.send_due().await.unwrap();
        assert_eq!(sink.rest().len(), requests, "after another {wait} s");
    }
    let statuses: Vec<_> = log(&world, webhook.id).await.iter().map(|made| made.status).collect();
    assert_eq!(statuses, [Some(503), Some(429), Some(204)]);
}

#[tokio::test]
async fn a_worker_goes_on_at_once_while_more_events_wait() {
    let world = World::new().await;
    let mut sink = WebhookSink::start(&[]).await;
    let (webhook, _) = add(&world, sink.url(), &[]).await;
    happen(&world.app.catalog, 0..250).await;
    let stop = CancellationToken::new();
    let client = Arc::new(WebhookClient::new(Arc::new(FakeLookup::default())));
    let worker = WebhookWorker::new(world.app.catalog.clone(), client, &new_name(), stop.clone());
    // It looks once. The rest is due to the claims that were used up.
    let worker = worker.look_every(Duration::from_secs(3_600));
    let running = tokio::spawn(async move { worker.run_until_stopped().await });
    for expected in 0..250 {
        assert_eq!(number(&sink.next().await), expected);
    }
    stop.cancel();
    running.await.unwrap();
    assert_eq!(log(&world, webhook.id).await.len(), 250);
}

#[tokio::test]
async fn an_event_is_given_up_after_a_day_and_only_the_first_one_tells() {
    let world = World::new().await;
    let mut sink = WebhookSink::start(&[]).await;
    sink.reply(&vec![SinkReply::Status(503); 16]);
    let (webhook, _) = add(&world, sink.url(), &[]).await;
    let worker = worker_of(&world.app.catalog);
    happen(&world.app.catalog, 1..2).await;
    // Eight attempts at the event, and eight at the event that tells of it.
    for round in 0..2 {
        worker.send_due().await.unwrap();
        for wait in WAITS_S {
            world.advance(Duration::from_secs(wait));
            worker.send_due().await.unwrap();
        }
        let received = sink.rest();
        assert_eq!(received.len(), 8, "round {round}");
        assert!(received.iter().all(|one| one.message_id() == received[0].message_id()));
        let told = events_of_kind(&world, "webhook.event_given_up").await;
        assert_eq!(told.len(), 1, "round {round}");
        assert_eq!(told[0].event.data["webhook"], webhook.id.to_string());
        assert_eq!((&told[0].event.data["attempts"], told[0].event.tenant_id), (&8.into(), None));
    }
    assert_eq!(log(&world, webhook.id).await.last().unwrap().result, DeliveryResult::GivenUp);
    assert_eq!(state(&world, webhook.id).await.state, WebhookState::Failing);
    happen(&world.app.catalog, 2..3).await;
    worker.send_due().await.unwrap();
    assert_eq!(number(&sink.next().await), 2, "the next event is not held up");
    assert_eq!(state(&world, webhook.id).await.state, WebhookState::Enabled);
}

#[tokio::test]
async fn a_receiver_that_is_gone_pauses_its_webhook() {
    let world = World::new().await;
    let mut sink = WebhookSink::start(&[SinkReply::Status(410)]).await;
    let (webhook, _) = add(&world, sink.url(), &["tenant.labelled"]).await;
    let worker = worker_of(&world.app.catalog);
    happen(&world.app.catalog, 1..3).await;
    worker.send_due().await.unwrap();
    world.advance(Duration::from_secs(86_400));
    worker.send_due().await.unwrap();
    assert_eq!(sink.rest().iter().map(number).collect::<Vec<_>>(), [1]);
    assert_eq!(state(&world, webhook.id).await.state, WebhookState::Paused);
    assert_eq!(log(&world, webhook.id).await[0].result, DeliveryResult::Gone);
    assert_eq!(events_of_kind(&world, "webhook.paused").await.len(), 1);
    let mut tx = world.app.catalog.write().await.unwrap();
    webhooks::resume_webhook(&mut tx, webhook.id).await.unwrap();
    tx.commit().await.unwrap();
    worker.send_due().await.unwrap();
    assert_eq!(sink.rest().iter().map(number).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let world = World::new().await;
    let mut sink = WebhookSink::start(&[SinkReply::Redirect("/elsewhere")]).await;
    let (webhook, _) = add(&world, sink.url(), &[]).await;
    happen(&world.app.catalog, 1..2).await;
    worker_of(&world.app.catalog).send_due().await.unwrap();
    assert_eq!(sink.rest().iter().map(|one| one.path.as_str()).collect::<Vec<_>>(), ["/hook"]);
    let made = log(&world, webhook.id).await;
    assert_eq!((made[0].status, made[0].result), (Some(302), DeliveryResult::Failed));
    assert!(made[0].error.as_ref().unwrap().contains("redirects are not followed"));
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_or_listen_is_a_failure() {
    let world = World::new().await;
    let sink = WebhookSink::start(&[SinkReply::Never]).await;
    let (slow, _) = add(&world, sink.url(), &[]).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (absent, _) = add(&world, format!("http://{closed}/"), &[]).await;
    let client = WebhookClient::new(Arc::new(FakeLookup::default())).attempt_max(Duration::from_millis(300));
    let worker = WebhookWorker::new(world.app.catalog.clone(), Arc::new(client), &new_name(), CancellationToken::new());
    happen(&world.app.catalog, 1..2).await;
    worker.send_due().await.unwrap();
    for (webhook, error) in [(slow, "no answer within 0.3 s"), (absent, "refused")] {
        let made = log(&world, webhook.id).await;
        assert_eq!((made.len(), made[0].status, made[0].result), (1, None, DeliveryResult::Failed));
        assert!(made[0].error.as_ref().unwrap().contains(error), "{made:?}");
    }
}

#[tokio::test]
async fn an_endless_body_is_not_read() {
    let world = World::new().await;
    let mut sink = WebhookSink::start(&[SinkReply::Endless]).await;
    let (webhook, _) = add(&world, sink.url(), &[]).await;
    happen(&world.app.catalog, 1..3).await;
    worker_of(&world.app.catalog).send_due().await.unwrap();
    assert_eq!(sink.rest().iter().map(number).collect::<Vec<_>>(), [1, 2]);
    assert!(log(&world, webhook.id).await.iter().all(|made| made.result == DeliveryResult::Delivered));
}

#[tokio::test]
async fn a_host_is_looked_up_once_per_attempt_and_may_not_turn_inwards() {
    let world = World::new().await;
    let mut sink = WebhookSink::start(&[]).await;
    let url = format!("http://receiver.example:{}/", sink.address.port());
    let (webhook, _) = add(&world, url, &[]).await;
    // A second look-up in the first attempt would get the metadata address.
    let answers = ["127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1"].map(|text| text.parse().unwrap());
    let lookup = Arc::new(FakeLookup(Mutex::new(answers.to_vec())));
    let client = Arc::new(WebhookClient::new(Arc::clone(&lookup) as Arc<dyn AddressLookup>));
    let worker = WebhookWorker::new(world.app.catalog.clone(), client, &new_name(), CancellationToken::new());
    happen(&world.app.catalog, 1..3).await;
    worker.send_due().await.unwrap();
    world.advance(Duration::from_secs(6));
    worker.send_due().await.unwrap();
    assert_eq!(sink.rest().iter().map(number).collect::<Vec<_>>(), [1], "only the checked address was reached");
    let made = log(&world, webhook.id).await;
    assert_eq!(made.len(), 3);
    for (made, address) in made[1..].iter().zip(["169.254.169.254", "::ffff:127.0.0.1"]) {
        let error = made.error.as_ref().unwrap();
        assert!(error.contains(address) && error.contains("is not public"), "{error}");
    }
    assert!(lookup.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_private_address_is_refused_at_every_attempt_without_permission() {
    let world = World::new().await;
    let mut sink = WebhookSink::start(&[]).await;
    let new = |url: String| NewWebhook { url, kinds: Vec::new(), tenant_id: None, private_allowed: false };
    let mut tx = world.app.catalog.write().await.unwrap();
    // As if an older version had accepted it.
    let (literal, _) = webhooks::add_webhook(&mut tx, new(sink.url().replace("http:", "https:"))).await.unwrap();
    let named = format!("https://receiver.example:{}/", sink.address.port());
    let (named, _) = webhooks::add_webhook(&mut tx, new(named)).await.unwrap();
    tx.commit().await.unwrap();
    let lookup = FakeLookup(Mutex::new(vec!["127.0.0.1".parse().unwrap()]));
    let client = Arc::new(WebhookClient::new(Arc::new(lookup)));
    let worker = WebhookWorker::new(world.app.catalog.clone(), client, &new_name(), CancellationToken::new());
    happen(&world.app.catalog, 1..2).await;
    worker.send_due().await.unwrap();
    assert!(sink.rest().is_empty());
    for webhook in [literal, named] {
        let made = log(&world, webhook.id).await;
        assert!(made[0].error.as_ref().unwrap().contains("is not public"), "{made:?}");
    }
}

#[tokio::test]
async fn two_processes_send_each_event_once_and_in_order() {
    let world = World::new().await;
    let mut sink = WebhookSink::start(&[]).await;
    let (webhook, _) = add(&world, sink.url(), &[]).await;
    let other = world.another(ProcessRole::Embedded).await;
    let (one, two) = (worker_of(&world.app.catalog), worker_of(&other.catalog));
    for round in 0..5 {
        happen(&world.app.catalog, round * 20..(round + 1) * 20).await;
        let (first, second) = tokio::join!(one.send_due(), two.send_due());
        first.unwrap();
        second.unwrap();
    }
    assert_eq!(sink.rest().iter().map(number).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    assert_eq!(log(&world, webhook.id).await.len(), 100);
    other.shut_down(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_killed_process_loses_no_event() {
    let world = World::new().await;
    let mut sink = WebhookSink::start(&[SinkReply::Status(204), SinkReply::Never]).await;
    let (webhook, _) = add(&world, sink.url(), &[]).await;
    happen(&world.app.catalog, 1..4).await;
    let worker = worker_of(&world.app.catalog);
    let sending = tokio::spawn(async move { worker.send_due().await });
    let (first, second) = (sink.next().await, sink.next().await);
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    let successor = worker_of(&world.app.catalog);
    successor.send_due().await.unwrap();
    assert!(sink.rest().is_empty(), "the lease of the dead process holds");
    world.advance(LEASE);
    successor.send_due().await.unwrap();
    let rest = sink.rest();
    assert_eq!((number(&first), number(&second)), (1, 2));
    assert_eq!(rest.iter().map(number).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(rest[0].message_id(), second.message_id(), "the receiver can tell the repetition");
    assert_eq!(log(&world, webhook.id).await.len(), 3);
}

#[tokio::test]
async fn a_stopping_process_finishes_its_attempt_and_gives_the_webhook_back() {
    let world = World::new().await;
    let go = Arc::new(Notify::new());
    let mut sink = WebhookSink::start(&[SinkReply::Held(Arc::clone(&go))]).await;
    let (webhook, _) = add(&world, sink.url(), &[]).await;
    happen(&world.app.catalog, 1..3).await;
    let stopping = CancellationToken::new();
    let client = Arc::new(WebhookClient::new(Arc::new(FakeLookup::default())));
    let worker = WebhookWorker::new(world.app.catalog.clone(), client, &new_name(), stopping.clone());
    let running = tokio::spawn(async move { worker.run_until_stopped().await });
    let first = sink.next().await;
    stopping.cancel();
    go.notify_one();
    running.await.unwrap();
    assert!(sink.rest().is_empty(), "the next event is left to another process");
    assert_eq!(state(&world, webhook.id).await.sent_seq, first.seq());
    worker_of(&world.app.catalog).send_due().await.unwrap();
    assert_eq!(sink.rest().iter().map(number).collect::<Vec<_>>(), [2], "at once, and only what is left");
}

#[tokio::test]
async fn a_removed_webhook_gets_nothing_more() {
    let world = World::new().await;
    let go = Arc::new(Notify::new());
    let mut sink = WebhookSink::start(&[SinkReply::Held(Arc::clone(&go))]).await;
    let (webhook, _) = add(&world, sink.url(), &[]).await;
    happen(&world.app.catalog, 1..3).await;
    let worker = worker_of(&world.app.catalog);
    let sending = tokio::spawn(async move { worker.send_due().await });
    sink.next().await;
    let mut tx = world.app.catalog.write().await.unwrap();
    webhooks::remove_webhook(&mut tx, webhook.id).await.unwrap();
    tx.commit().await.unwrap();
    go.notify_one();
    sending.await.unwrap().unwrap();
    assert!(sink.rest().is_empty());
    assert!(log(&world, webhook.id).await.is_empty());
}
