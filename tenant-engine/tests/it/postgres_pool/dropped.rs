//! Whatever future is dropped, at whatever point, its place in the budget comes back.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use tenant_engine::{AccessMode, AfterStatements, Pool, SessionLimits, SqlValue};

use super::fixture::{Fixture, cell, keep, statement};

/// Polls at most `polls` times, with a moment for the server between two polls, and drops it then. True when it was
/// ready.
pub(super) async fn give_up_after<F: Future>(polls: usize, future: F) -> bool {
    let mut future = pin!(future);
    for _ in 0..polls {
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return true;
        }
        tokio::time::sleep(Duration::from_micros(700)).await;
    }
    false
}

async fn one_call(pool: &Pool, access: AccessMode, sql: &str, after: AfterStatements) {
    let mut session = pool.new_session(access, SessionLimits::default());
    let _ = session.run_statements(vec![statement(sql), statement("select 1")], after).await;
    let _ = session.commit().await;
}

async fn alone(pool: &Pool, access: AccessMode, sql: &str) {
    let _ = pool
        .new_session(access, SessionLimits::default())
        .run_statements(vec![statement(sql)], AfterStatements::Commit)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_may_be_dropped_anywhere() {
    let fixture = Fixture::budget(3);
    let pools = fixture.pools(3).await;
    let mut finished = 0;
    for polls in 1..60 {
        let pool = &pools[polls % 3];
        // A new text each time: nothing of it is prepared yet.
        let (read, write) = (format!("select {polls}, v from t"), format!("update t set v = 'v{polls}'"));
        let calls = [
            give_up_after(polls / 2, alone(pool, AccessMode::Read, &read)).await,
            give_up_after(polls / 2, alone(pool, AccessMode::Write, &write)).await,
            give_up_after(polls / 2, one_call(pool, AccessMode::Read, &read, AfterStatements::Commit)).await,
            give_up_after(polls / 2, one_call(pool, AccessMode::Write, &write, AfterStatements::Keep)).await,
            give_up_after(polls / 2, alone(pool, AccessMode::Read, "select generate_series(1, 20000)")).await,
        ];
        finished += calls.into_iter().filter(|ready| *ready).count();
        assert!(fixture.report().open <= 3);
    }
    assert!(finished > 20 && finished < 290, "{finished} of 295 were ready");
    for pool in &pools {
        assert_eq!(cell(pool, "select count(*) from t").await, SqlValue::Integer(1));
    }
    fixture.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_and_closing_a_pool_may_be_dropped_anywhere() {
    let fixture = Fixture::budget(2);
    let tenants = fixture.tenants(3).await;
    for polls in 1..40 {
        give_up_after(polls / 2, fixture.connect(&tenants[polls % 3])).await;
    }
    let pool = fixture.pool(&tenants[0]).await;
    let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
    keep(&mut session, "update t set v = v").await.unwrap();
    for polls in 0..3 {
        give_up_after(polls, pool.close()).await;
    }
    drop(session);
    pool.close().await;
    fixture.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_requests_may_be_dropped() {
    let fixture = Fixture::budget(1);
    let pools = fixture.pools(2).await;
    let mut holder = pools[0].new_session(AccessMode::Read, SessionLimits::default());
    keep(&mut holder, "select 1").await.unwrap();
    for polls in 1..10 {
        assert!(!give_up_after(polls, alone(&pools[1], AccessMode::Read, "select 1")).await);
    }
    assert_eq!(fixture.report().waiting_requests, 0);
    holder.commit().await.unwrap();
    assert_eq!(cell(&pools[1], "select 1").await, SqlValue::Integer(1));
    fixture.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_gives_the_place_back() {
    let fixture = Fixture::budget(1);
    let pool = fixture.pool(&fixture.tenant().await).await;
    let panicking = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
            keep(&mut session, "update t set v = 'panicked'").await.unwrap();
            panic!("a bug in the application");
        }
    });
    assert!(panicking.await.is_err());
    assert_eq!(cell(&pool, "select v from t").await, "one".into());
    fixture.settles().await;
}

#[test]
fn a_runtime_that_ends_takes_its_connections_with_it() {
    let fixture = Fixture::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (pool, session) = runtime.block_on(async {
        let pool = fixture.pool(&fixture.tenant().await).await;
        let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
        keep(&mut session, "update t set v = v").await.unwrap();
        (pool, session)
    });
    drop(runtime);
    drop(session);
    assert!(pool.connection_count() <= 1);
    drop(pool);
    assert_eq!(fixture.report().open, 0, "{:?}", fixture.report());
}
