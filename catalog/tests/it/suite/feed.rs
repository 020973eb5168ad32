//! The change feed.

use std::time::{Duration, Instant};

use catalog::changes::{self, FeedChanges};
use catalog::members::{self, Role};
use catalog::tenants::{self, ReachedSchema, TenantUpdate};
use catalog::{Catalog, Generation, TenantId};

use super::{Fixture, seed};

const LONG: Duration = Duration::from_secs(20);

async fn head(catalog: &Catalog) -> i64 {
    changes::feed_head(&mut catalog.read().await.unwrap()).await.unwrap()
}

async fn since(catalog: &Catalog, seq: i64) -> FeedChanges {
    changes::changes_since(&mut catalog.read().await.unwrap(), seq).await.unwrap()
}

async fn change(catalog: &Catalog, tenant: TenantId) {
    let mut tx = catalog.write().await.unwrap();
    changes::append_changes(&mut tx, &[tenant]).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn every_change_of_a_tenant_is_in_the_feed() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 300).await;
    assert_eq!(since(&fixture.catalog, 0).await, FeedChanges::Tenants { seq: 300, ids: ids.clone() });
    let mut tx = fixture.catalog.write().await.unwrap();
    tenants::update_many(
        &mut tx,
        &[TenantUpdate::for_generation(ids[3], Generation(1)), TenantUpdate::for_generation(ids[4], Generation(9))],
    )
    .await
    .unwrap();
    members::set_member(&mut tx, ids[1], "ann", Role::Reader).await.unwrap();
    tenants::set_schema_many(
        &mut tx,
        &[ReachedSchema { tenant: ids[3], version: Some(2), release: None, ledger: None }],
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(since(&fixture.catalog, 300).await, FeedChanges::Tenants { seq: 303, ids: vec![ids[1], ids[3]] });
    assert_eq!(since(&fixture.catalog, 303).await, FeedChanges::Tenants { seq: 303, ids: vec![] });
}

#[tokio::test]
async fn whoever_is_too_far_behind_drops_everything() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 3).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    changes::trim_feed(&mut tx, 1).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(since(&fixture.catalog, 1).await, FeedChanges::Everything { seq: 3 });
    assert_eq!(since(&fixture.catalog, 2).await, FeedChanges::Tenants { seq: 3, ids: vec![ids[2]] });
    assert_eq!(since(&fixture.catalog, 99).await, FeedChanges::Everything { seq: 3 }, "another catalog");
    let mut tx = fixture.catalog.write().await.unwrap();
    changes::trim_feed(&mut tx, 0).await.unwrap();
    changes::append_everything(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(since(&fixture.catalog, 3).await, FeedChanges::Everything { seq: 4 });
    assert_eq!(since(&fixture.catalog, 4).await, FeedChanges::Tenants { seq: 4, ids: vec![] });
}

#[tokio::test]
async fn a_change_of_this_process_wakes_at_once() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let seq = head(&fixture.catalog).await;
    let waiters: Vec<_> = (0..5)
        .map(|_| {
            let catalog = fixture.catalog.clone();
            tokio::spawn(async move { changes::wait_for_change(&catalog, seq, LONG).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let started = Instant::now();
    change(&fixture.catalog, ids[0]).await;
    for waiter in waiters {
        waiter.await.unwrap().unwrap();
    }
    assert!(started.elapsed() < LONG / 4);
    changes::wait_for_change(&fixture.catalog, seq, LONG).await.unwrap();
    assert!(started.elapsed() < LONG / 2, "what came before is not waited for");
}

#[tokio::test]
async fn a_change_of_another_process_is_noticed() {
    let fixture = Fixture::new().await;
    let other = fixture.other_process().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    for round in 0..3 {
        let seq = head(&fixture.catalog).await;
        let catalog = fixture.catalog.clone();
        let started = Instant::now();
        let waiting = tokio::spawn(async move { changes::wait_for_change(&catalog, seq, LONG).await });
        if round > 0 {
            tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>()).await.unwrap_err();
        }
        change(&other, ids[0]).await;
        waiting.await.unwrap().unwrap();
        assert!(started.elapsed() < LONG / 2);
        assert_eq!(head(&fixture.catalog).await, seq + 1);
    }
}

#[tokio::test]
async fn without_a_change_the_wait_ends_with_its_timeout() {
    let fixture = Fixture::new().await;
    seed(&fixture.catalog, 1).await;
    let seq = head(&fixture.catalog).await;
    let started = Instant::now();
    changes::wait_for_change(&fixture.catalog, seq, Duration::from_millis(30)).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(30));
}

#[tokio::test]
async fn a_rolled_back_change_wakes_nobody() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let seq = head(&fixture.catalog).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    changes::append_changes(&mut tx, &[ids[0]]).await.unwrap();
    drop(tx);
    let started = Instant::now();
    changes::wait_for_change(&fixture.catalog, seq, Duration::from_millis(30)).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(30));
    assert_eq!(head(&fixture.catalog).await, seq);
}
