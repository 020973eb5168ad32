//! Many tenants, few connections: everybody is served, in a fair order, and a flood stays its sender's problem.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tenant_engine::{AccessMode, ErrorKind, SessionLimits, SqlValue};

use super::fixture::{Fixture, cell, limits, one_with, read};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_tenants_share_eight_connections() {
    let fixture = Fixture::budget(8);
    let pools = fixture.pools(64).await;
    let done = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = pools
        .iter()
        .cloned()
        .map(|pool| {
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                for _ in 0..20 {
                    let patient =
                        SessionLimits { statement_timeout: Duration::from_secs(30), ..SessionLimits::default() };
                    one_with(&pool, AccessMode::Read, patient, "select count(*) from t", vec![]).await.unwrap();
                }
                done.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(done.load(Ordering::Relaxed), 64);
    assert!(fixture.report().open <= 8);
    fixture.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_does_not_delay_others_for_long() {
    let fixture = Fixture::budget(8);
    let pools = fixture.pools(4).await;
    let flooder = pools[0].clone();
    let flood: Vec<_> = (0..1_000)
        .map(|_| {
            let pool = flooder.clone();
            let patient = limits(20_000, 20_000);
            tokio::spawn(
                async move { one_with(&pool, AccessMode::Read, patient, "select pg_sleep(0.02)", vec![]).await },
            )
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut longest = Duration::ZERO;
    for round in 0..60 {
        let begun = Instant::now();
        assert_eq!(cell(&pools[1 + round % 3], "select count(*) from t").await, SqlValue::Integer(1));
        longest = longest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A login takes some milliseconds; the machine may be busy with other tests.
    assert!(longest < Duration::from_millis(700), "{longest:?} {:?}", fixture.report());
    for task in flood {
        task.await.unwrap().unwrap();
    }
    fixture.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_floods_is_told_at_once() {
    let fixture = Fixture::budget(2);
    let pools = fixture.pools(2).await;
    let flood: Vec<_> = (0..1_200)
        .map(|_| {
            let pool = pools[0].clone();
            tokio::spawn(async move { read(&pool, "select pg_sleep(0.001)").await.map(drop) })
        })
        .collect();
    let mut full = 0;
    for task in flood {
        if let Err(error) = task.await.unwrap() {
            assert_eq!(error.kind(), ErrorKind::QueueFull, "{error}");
            full += 1;
        }
    }
    assert!(full > 0 && full <= 1_200 - 1_024, "{full}");
    read(&pools[1], "select 1").await.unwrap();
    fixture.settles().await;
}
