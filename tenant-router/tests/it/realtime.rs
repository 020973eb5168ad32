//! Topics: who gets which messages, in which order, and what a consumer that resumes has missed.

use std::time::Duration;

use catalog::topics::{self, NewTopicMessage};
use catalog::{TenantId, members};
use postgres_fixture::Cluster;
use secrecy::SecretString;
use tenant_router::realtime::{RealtimeLimits, Subscription, SubscriptionEnd, SubscriptionEvent, SubscriptionRequest};
use tenant_router::{Error, ErrorKind, Manage, Read, Result, Role, Router, Tenant, Write};

use crate::world::{World, open};

/// Longer than any wait here takes, so that a lost event fails the test.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A tenant of a router, opened by one of its managers.
pub(crate) async fn tenant(world: &World, router: &Router, name: &str, id: TenantId) -> Tenant<Manage> {
    open(router, name, &world.token_for(id, Role::Manager).await).await.unwrap()
}

/// Follows the topic `tasks` for the caller with this token.
pub(crate) async fn follow(router: &Router, name: &str, token: &str) -> Result<Subscription> {
    let tenant: Tenant<Read> = open(router, name, token).await?;
    tenant.topic("tasks")?.subscribe(SubscriptionRequest::proven_by(SecretString::from(token))).await
}

/// Follows the topic `tasks` from here, or after a number.
async fn follow_from(tenant: &Tenant<Manage>, after: Option<i64>) -> Subscription {
    let request = SubscriptionRequest::proven_by_application();
    let request = match after {
        Some(seq) => request.resume_after(seq),
        None => request,
    };
    tenant.topic("tasks").unwrap().subscribe(request).await.unwrap()
}

pub(crate) async fn next(subscription: &mut Subscription) -> Result<SubscriptionEvent, SubscriptionEnd> {
    tokio::time::timeout(LONG, subscription.next_event()).await.expect("an event or the end comes")
}

pub(crate) async fn next_text(subscription: &mut Subscription) -> String {
    match next(subscription).await.unwrap() {
        SubscriptionEvent::Message(message) => message.read_as().unwrap(),
        reload => panic!("{reload:?} is not a message"),
    }
}

pub(crate) async fn publish(tenant: &Tenant<Manage>, text: &str) -> i64 {
    tenant.topic("tasks").unwrap().publish(text).await.unwrap()
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.map(drop).map_err(|error: Error| error.kind()).unwrap_err()
}

/// Two tenants, two processes, one name of the topic.
async fn topics_stay_apart(world: World) {
    let ids = world.tenants(&["acme", "globex"]).await;
    let routers = [world.router().await, world.other_router().await];
    let [mut acme, mut globex] = [Vec::new(), Vec::new()];
    let mut followers = Vec::new();
    for router in &routers {
        acme.push(tenant(&world, router, "acme", ids[0]).await);
        globex.push(tenant(&world, router, "globex", ids[1]).await);
    }
    for (name, tenants) in [("acme", &acme), ("globex", &globex)] {
        for tenant in tenants {
            followers.push((name, follow_from(tenant, None).await, Vec::new()));
        }
    }
    let other_topic = acme[0].topic("tasks:7").unwrap().publish("of another topic").await.unwrap();
    let mut numbers = vec![other_topic];
    for round in 0..3 {
        for process in 0..2 {
            numbers.push(publish(&acme[process], &format!("acme {round} {process}")).await);
            numbers.push(publish(&globex[process], &format!("globex {round} {process}")).await);
        }
    }
    assert!(numbers.is_sorted_by(|one, two| one < two), "{numbers:?}");
    for (name, subscription, seen) in &mut followers {
        for round in 0..3 {
            for process in 0..2 {
                let SubscriptionEvent::Message(message) = next(subscription).await.unwrap() else {
                    panic!("no message")
                };
                assert_eq!(message.read_as::<String>().unwrap(), format!("{name} {round} {process}"));
                seen.push(message.seq());
            }
        }
        assert!(seen.is_sorted_by(|one, two| one < two));
    }
    assert_eq!(followers[0].2, followers[1].2, "both processes see one order");
    // Nothing else came: the next event is the next message.
    publish(&acme[0], "last of acme").await;
    publish(&globex[1], "last of globex").await;
    for (name, subscription, _) in &mut followers {
        assert_eq!(next_text(subscription).await, format!("last of {name}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tenants_and_two_processes_with_one_topic_name_on_sqlite() {
    topics_stay_apart(World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tenants_and_two_processes_with_one_topic_name_on_postgres() {
    let cluster = Cluster::start();
    topics_stay_apart(World::on_postgres(&cluster).await).await;
}

#[tokio::test]
async fn a_consumer_that_resumes_gets_what_it_missed_or_is_told_to_reload() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let limits = RealtimeLimits { queue_messages_max: 3, ..RealtimeLimits::default() };
    let router = world.builder().realtime_limits(limits).build().await.unwrap();
    let acme = tenant(&world, &router, "acme", id).await;
    let mut first = follow_from(&acme, None).await;
    let seen = publish(&acme, "seen").await;
    assert_eq!(next_text(&mut first).await, "seen");
    assert_eq!(first.position(), Some(seen));
    drop(first);
    acme.topic("notes").unwrap().publish("of another topic").await.unwrap();
    for text in ["missed 1", "missed 2", "missed 3"] {
        publish(&acme, text).await;
    }
    // With the same process, and with a new one after a crash.
    for router in [router.clone(), world.other_router().await] {
        let again = tenant(&world, &router, "acme", id).await;
        let mut resumed = follow_from(&again, Some(seen)).await;
        assert_eq!(resumed.start(), seen);
        for text in ["missed 1", "missed 2", "missed 3"] {
            assert_eq!(next_text(&mut resumed).await, text);
        }
        assert_eq!(resumed.position(), Some(seen + 4));
    }
    let mut live = follow_from(&acme, Some(seen + 3)).await;
    let newest = publish(&acme, "live").await;
    assert_eq!((next_text(&mut live).await, next_text(&mut live).await), ("missed 3".to_owned(), "live".to_owned()));
    // More than the queue holds, or a number that the catalog does not know.
    for after in [seen, 0, newest + 1_000, i64::MAX] {
        let mut resumed = follow_from(&acme, Some(after)).await;
        assert!(matches!(next(&mut resumed).await, Ok(SubscriptionEvent::Reload { .. })), "{after}");
        publish(&acme, "goes on").await;
        assert_eq!(next_text(&mut resumed).await, "goes on");
    }
}

#[tokio::test]
async fn a_reader_that_is_too_far_behind_tells_its_subscribers() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let acme = tenant(&world, &router, "acme", id).await;
    let mut subscription = follow_from(&acme, None).await;
    let mut tx = world.catalog.write().await.unwrap();
    let message = NewTopicMessage { tenant: id, topic: "tasks".to_owned(), payload: "\"gone\"".to_owned() };
    let many = vec![message; usize::try_from(topics::MESSAGES_MAX).unwrap() + 1];
    // In one transaction, so that the reader sees the messages only after the oldest of them are removed.
    topics::append_messages(&mut tx, &many).await.unwrap();
    topics::trim_messages(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    let seq = topics::MESSAGES_MAX + 1;
    assert_eq!(next(&mut subscription).await, Ok(SubscriptionEvent::Reload { seq }));
    publish(&acme, "goes on").await;
    assert_eq!(next_text(&mut subscription).await, "goes on");
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex", "initech"]).await;
    let limits = RealtimeLimits {
        subscriptions_max: 3,
        tenant_subscriptions_max: 2,
        message_bytes_max: 20,
        tenant_messages_per_second_max: 2,
        ..RealtimeLimits::default()
    };
    let router = world.builder().realtime_limits(limits).build().await.unwrap();
    let acme = tenant(&world, &router, "acme", ids[0]).await;
    let globex = tenant(&world, &router, "globex", ids[1]).await;
    for name in ["", "Tasks", "a/b", "a b", "ü", "*", &"a".repeat(65)] {
        assert_eq!(kind(acme.topic(name)), ErrorKind::TopicInvalid, "{name}");
    }
    let tasks = acme.topic("tasks").unwrap();
    assert_eq!(kind(tasks.publish(&"a".repeat(19)).await), ErrorKind::MessageTooLarge);
    let request = SubscriptionRequest::proven_by_application;
    let _one = tasks.subscribe(request()).await.unwrap();
    let two = tasks.subscribe(request()).await.unwrap();
    assert_eq!(kind(tasks.subscribe(request()).await), ErrorKind::SubscriptionsMax, "of the tenant");
    let _three = follow_from(&globex, None).await;
    drop(two);
    let _four = tasks.subscribe(request()).await.unwrap();
    let initech = tenant(&world, &router, "initech", ids[2]).await;
    assert_eq!(kind(initech.topic("x").unwrap().subscribe(request()).await), ErrorKind::SubscriptionsMax, "of all");
    let mut refused = false;
    for _ in 0..3 {
        refused |= tasks.publish("x").await.map_err(|error| error.kind()) == Err(ErrorKind::MessagesMax);
    }
    assert!(refused, "three messages in less than a second");
    publish(&globex, "free").await;
}

#[tokio::test]
async fn raw_json_is_one_line() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let acme = tenant(&world, &router, "acme", id).await;
    let mut subscription = follow_from(&acme, None).await;
    let raw = serde_json::value::RawValue::from_string("{\n\"task\":\r\n7}".to_owned()).unwrap();
    acme.topic("tasks").unwrap().publish(&raw).await.unwrap();
    let SubscriptionEvent::Message(message) = next(&mut subscription).await.unwrap() else { panic!("no message") };
    assert_eq!(message.payload(), "{ \"task\":  7}");
    assert_eq!(message.read_as::<String>().unwrap_err().kind(), ErrorKind::RowMismatch);
}

#[tokio::test]
async fn only_a_writer_publishes_and_every_member_follows() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let mut tx = world.catalog.write().await.unwrap();
    members::set_member(&mut tx, id, "ann", Role::Reader).await.unwrap();
    tx.commit().await.unwrap();
    let ann = world.token(catalog::tokens::TokenScope::Member { principal: "ann".to_owned() }).await;
    let mut subscription = follow(&router, "acme", &ann).await.unwrap();
    assert_eq!(open::<Write>(&router, "acme", &ann).await.unwrap_err().kind(), ErrorKind::Forbidden);
    publish(&tenant(&world, &router, "acme", id).await, "hello").await;
    assert_eq!(next_text(&mut subscription).await, "hello");
}
