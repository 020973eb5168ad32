//! Messages of topics.

use std::time::{Duration, Instant};

use catalog::topics::{self, MessagePage, NewTopicMessage};
use catalog::{Catalog, TenantId};

use super::Fixture;

const LONG: Duration = Duration::from_secs(20);

fn new_message(tenant: TenantId, topic: &str, payload: &str) -> NewTopicMessage {
    NewTopicMessage { tenant, topic: topic.to_owned(), payload: payload.to_owned() }
}

async fn append(catalog: &Catalog, messages: &[NewTopicMessage]) -> i64 {
    let mut tx = catalog.write().await.unwrap();
    let first = topics::append_messages(&mut tx, messages).await.unwrap();
    tx.commit().await.unwrap();
    first
}

async fn after(catalog: &Catalog, seq: i64) -> MessagePage {
    topics::messages_after(&mut catalog.read().await.unwrap(), seq, 1_000).await.unwrap()
}

async fn trim(catalog: &Catalog) {
    let mut tx = catalog.write().await.unwrap();
    topics::trim_messages(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
}

fn texts(page: &MessagePage) -> Vec<(i64, &str)> {
    page.messages.iter().map(|stored| (stored.seq, &*stored.message.payload)).collect()
}

#[tokio::test]
async fn messages_are_numbered_in_commit_order_and_read_by_number() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (acme, globex) = (TenantId::generate(), TenantId::generate());
    assert_eq!(after(catalog, 0).await, MessagePage { messages: vec![], seq: 0, is_incomplete: false });
    let many: Vec<_> = (1..=70).map(|number| new_message(acme, "tasks", &number.to_string())).collect();
    assert_eq!(append(catalog, &many).await, 1);
    assert_eq!(append(&fixture.other_process().await, &[new_message(globex, "tasks", "\"ü\"")]).await, 71);
    let page = after(catalog, 68).await;
    assert_eq!((texts(&page), page.seq), (vec![(69, "69"), (70, "70"), (71, "\"ü\"")], 71));
    assert_eq!(page.messages[2].message, new_message(globex, "tasks", "\"ü\""));
    let short = topics::messages_after(&mut catalog.read().await.unwrap(), 0, 2).await.unwrap();
    assert_eq!((texts(&short), short.seq), (vec![(1, "1"), (2, "2")], 2));
    let unknown = after(catalog, 72).await;
    assert_eq!((unknown.seq, unknown.is_incomplete), (71, true), "the number of another catalog");
}

#[tokio::test]
async fn what_one_topic_missed_is_its_own_or_said_to_be_incomplete() {
    let fixture = Fixture::new().await;
    let (acme, globex) = (TenantId::generate(), TenantId::generate());
    let messages = [
        new_message(acme, "tasks", "1"),
        new_message(globex, "tasks", "2"),
        new_message(acme, "notes", "3"),
        new_message(acme, "tasks", "4"),
        new_message(acme, "tasks", "5"),
    ];
    append(&fixture.catalog, &messages).await;
    let mut tx = fixture.catalog.read().await.unwrap();
    let mut between = async |after, until, limit| {
        topics::topic_messages_between(&mut tx, acme, "tasks", after, until, limit).await.unwrap()
    };
    let page = between(0, 4, 10).await;
    assert_eq!((texts(&page), page.is_incomplete), (vec![(1, "1"), (4, "4")], false));
    assert_eq!(texts(&between(1, 5, 2).await), [(4, "4"), (5, "5")]);
    assert!(between(0, 5, 2).await.is_incomplete, "more than the limit");
    assert!(between(9, 9, 2).await.is_incomplete, "the number of another catalog");
}

#[tokio::test]
async fn old_messages_go_and_their_readers_are_told() {
    let fixture = Fixture::new().await;
    let (catalog, acme) = (&fixture.catalog, TenantId::generate());
    append(catalog, &[new_message(acme, "tasks", "\"old\""), new_message(acme, "tasks", "\"older\"")]).await;
    fixture.advance(topics::MESSAGE_AGE_MAX_MS + 1);
    append(catalog, &[new_message(acme, "tasks", "\"young\"")]).await;
    trim(catalog).await;
    assert_eq!(texts(&after(catalog, 2).await), [(3, "\"young\"")]);
    assert!(after(catalog, 1).await.is_incomplete);
    fixture.advance(topics::MESSAGE_AGE_MAX_MS + 1);
    trim(catalog).await;
    // The newest number stays, and the text of its message does not.
    assert_eq!(after(catalog, 3).await, MessagePage { messages: vec![], seq: 3, is_incomplete: false });
    assert_eq!(after(catalog, 2).await, MessagePage { messages: vec![], seq: 3, is_incomplete: true });

    assert_eq!(append(catalog, &[new_message(acme, "tasks", "4")]).await, 4);
    assert_eq!(texts(&after(catalog, 3).await), [(4, "4")]);
    assert!(after(catalog, 2).await.is_incomplete);
    trim(catalog).await;
    assert_eq!(texts(&after(catalog, 3).await), [(4, "4")], "a young message stays");
}

#[tokio::test]
async fn a_message_wakes_the_readers_of_all_processes_and_not_those_of_changes() {
    let fixture = Fixture::new().await;
    let other = fixture.other_process().await;
    for (writer, seq) in [(&fixture.catalog, 0), (&other, 1), (&other, 2)] {
        let catalog = fixture.catalog.clone();
        let waiting = tokio::spawn(async move { topics::wait_for_message(&catalog, seq, LONG).await });
        let started = Instant::now();
        append(writer, &[new_message(TenantId::generate(), "tasks", "1")]).await;
        waiting.await.unwrap().unwrap();
        assert!(started.elapsed() < LONG / 2);
        assert_eq!(after(&fixture.catalog, seq).await.seq, seq + 1);
    }
    assert_eq!(catalog::changes::known_head(&fixture.catalog), 0);
    // A message that was rolled back wakes nobody.
    let mut tx = fixture.catalog.write().await.unwrap();
    topics::append_messages(&mut tx, &[new_message(TenantId::generate(), "tasks", "1")]).await.unwrap();
    drop(tx);
    let started = Instant::now();
    topics::wait_for_message(&fixture.catalog, 3, Duration::from_millis(30)).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(30));
}
