//! The change feed between processes: told at once, and found when what was told is lost.

use std::time::{Duration, Instant};

use catalog::changes;
use catalog::{Catalog, TenantId};

use super::suite::{Fixture, seed};

/// Far longer than looking takes, so that a wait which ends by its timeout is seen.
const LONG: Duration = Duration::from_secs(30);

/// Begins to wait in another task; returns once its listener listens.
async fn waiting(fixture: &Fixture) -> (tokio::task::JoinHandle<catalog::Result<()>>, i64) {
    let seq = changes::feed_head(&mut fixture.catalog.read().await.unwrap()).await.unwrap();
    let catalog = fixture.catalog.clone();
    let task = tokio::spawn(async move { changes::wait_for_change(&catalog, seq, LONG).await });
    while listeners(fixture) == "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (task, seq)
}

fn listeners(fixture: &Fixture) -> String {
    // Idle with LISTEN as its last statement: it has been taken.
    fixture.world.psql(
        "select count(*) from pg_stat_activity where datname = current_database() \
         and application_name like '%listening' and state = 'idle' and query ilike 'listen%'",
    )
}

async fn change(catalog: &Catalog, tenant: TenantId) {
    let mut tx = catalog.write().await.unwrap();
    changes::append_changes(&mut tx, &[tenant]).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_another_process_is_heard_at_once() {
    let fixture = Fixture::new().await;
    let other = fixture.other_process().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let (task, seq) = waiting(&fixture).await;
        change(&other, ids[0]).await;
        let committed = Instant::now();
        task.await.unwrap().unwrap();
        fastest = fastest.min(committed.elapsed());
        assert!(changes::known_head(&fixture.catalog) > seq);
    }
    // The fastest of five, on a machine that may be busy; looking alone takes up to a second.
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_told_is_found_by_looking() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    for _ in 0..3 {
        let (task, seq) = waiting(&fixture).await;
        // As a program would that knows nothing of notifications.
        fixture.world.psql(&format!("insert into changes (seq, tenant_id) values ({}, '{}')", seq + 1, ids[0]));
        let started = Instant::now();
        task.await.unwrap().unwrap();
        assert!(started.elapsed() < LONG / 2, "{:?}", started.elapsed());
        assert_eq!(changes::known_head(&fixture.catalog), seq + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_was_cut_off_is_replaced() {
    let fixture = Fixture::new().await;
    let other = fixture.other_process().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let (task, _) = waiting(&fixture).await;
    fixture.world.psql(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() \
         and application_name like '%listening'",
    );
    change(&other, ids[0]).await;
    let started = Instant::now();
    task.await.unwrap().unwrap();
    assert!(started.elapsed() < LONG / 2);
    let (task, _) = waiting(&fixture).await;
    change(&other, ids[0]).await;
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn closing_leaves_no_connection_behind() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let (task, _) = waiting(&fixture).await;
    change(&fixture.catalog, ids[0]).await;
    task.await.unwrap().unwrap();
    fixture.catalog.close().await;
    let sql = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    let deadline = Instant::now() + LONG;
    while fixture.world.psql(sql) != "0" {
        assert!(Instant::now() < deadline, "connections are left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
