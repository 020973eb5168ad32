//! Opening and closing: identities, pools, the budget of connections.

use tenant_engine::{
    AccessMode, AfterStatements, ErrorKind, Generation, IdentityState, SessionLimits, SqlValue, TenantId,
};

use super::fixture::{Fixture, cell, keep, limits, read, statement, write};

#[tokio::test]
async fn only_the_expected_database_is_served() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let error = fixture.connect(&fixture.nobody()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    let mut other = tenant.clone();
    other.expected.tenant = TenantId::generate();
    assert_eq!(fixture.connect(&other).await.unwrap_err().kind(), ErrorKind::WrongTenant);
    let mut later = tenant.clone();
    later.expected.generation = Generation(7);
    assert_eq!(fixture.connect(&later).await.unwrap_err().kind(), ErrorKind::Fenced);
    let mut frozen = tenant.clone();
    frozen.expected.states = vec![IdentityState::Frozen];
    assert_eq!(fixture.connect(&frozen).await.unwrap_err().kind(), ErrorKind::Fenced);
    fixture.cluster.psql(tenant.database(), "delete from _fleet_identity");
    assert_eq!(fixture.connect(&tenant).await.unwrap_err().kind(), ErrorKind::Missing);
    fixture.cluster.psql(tenant.database(), "drop table _fleet_identity");
    assert_eq!(fixture.connect(&tenant).await.unwrap_err().kind(), ErrorKind::Missing);
    fixture.settles().await;
}

#[tokio::test]
async fn a_frozen_database_is_read_and_not_written() {
    let fixture = Fixture::new();
    let mut tenant = fixture.tenant().await;
    fixture.cluster.psql(tenant.database(), "update _fleet_identity set state = 'frozen'");
    tenant.expected.states = vec![IdentityState::Active, IdentityState::Frozen];
    let pool = fixture.pool(&tenant).await;
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    assert_eq!(write(&pool, "delete from t").await.unwrap_err().kind(), ErrorKind::Fenced);
    fixture.settles().await;
}

#[tokio::test]
async fn close_waits_for_what_is_checked_out_and_refuses_the_rest() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let mut open = pool.new_session(AccessMode::Write, SessionLimits::default());
    keep(&mut open, "insert into t values(2, 'two')").await.unwrap();
    assert_eq!(pool.connection_count(), 2);
    let mut closing = Box::pin(pool.close());
    tokio::select! {
        biased;
        () = &mut closing => panic!("a connection is out"),
        answer = read(&pool, "select 1") => assert_eq!(answer.unwrap_err().kind(), ErrorKind::Closed),
    }
    // What was begun may be finished.
    open.commit().await.unwrap();
    closing.await;
    assert_eq!(pool.connection_count(), 0);
    pool.close().await;
    assert_eq!(read(&pool, "select 1").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(fixture.report().open, 0);
}

#[tokio::test]
async fn a_pool_that_is_dropped_closes_its_connections() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    write(&pool, "insert into t values(2, 'two')").await.unwrap();
    assert_eq!(fixture.report().idle, 2);
    drop(pool);
    fixture.until("connections are open", |report| report.open == 0).await;
}

#[tokio::test]
async fn shutdown_ends_open_sessions_without_a_hang() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let pool = fixture.pool(&tenant).await;
    let mut open = pool.new_session(AccessMode::Write, SessionLimits::default());
    keep(&mut open, "insert into t values(2, 'two')").await.unwrap();
    let begun = std::time::Instant::now();
    fixture.requests.shut_down().await;
    assert!(begun.elapsed().as_secs() < 2);
    assert_eq!(keep(&mut open, "select 1").await.unwrap_err().kind(), ErrorKind::Closed);
    drop(open);
    assert_eq!(read(&pool, "select 1").await.unwrap_err().kind(), ErrorKind::Closed);
    pool.close().await;
    assert_eq!((pool.connection_count(), fixture.report().open), (0, 0));
    assert_eq!(fixture.connect(&tenant).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(fixture.cluster.psql(tenant.database(), "select count(*) from t"), "1");
}

#[tokio::test]
async fn idle_connections_of_others_make_room() {
    let fixture = Fixture::budget(4);
    let pools = fixture.pools(12).await;
    for pool in pools.iter().chain(&pools) {
        assert_eq!(cell(pool, "select count(*) from t").await, SqlValue::Integer(1));
        write(pool, "update t set v = 'x'").await.unwrap();
        let open: usize = pools.iter().map(tenant_engine::Pool::connection_count).sum();
        assert!(open <= 4, "{open} connections are open");
        assert!(fixture.report().open <= 4);
    }
    assert!(fixture.report().switches >= 30, "{:?}", fixture.report());
    assert!(fixture.sessions() <= 5);
    fixture.settles().await;
}

#[tokio::test]
async fn when_every_connection_is_in_use_callers_wait_and_then_are_told() {
    let fixture = Fixture::budget(2);
    let pools = fixture.pools(3).await;
    let mut held = Vec::new();
    for pool in &pools[..2] {
        let mut session = pool.new_session(AccessMode::Read, SessionLimits::default());
        keep(&mut session, "select 1").await.unwrap();
        held.push(session);
    }
    let mut session = pools[2].new_session(AccessMode::Read, limits(100, 1_000));
    let error = session.run_statements(vec![statement("select 1")], AfterStatements::Commit).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionsMax, "{error}");
    let mut waiting = Box::pin(read(&pools[2], "select 1"));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("there is no room"),
        () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {}
    }
    held.remove(0).commit().await.unwrap();
    waiting.await.unwrap();
    held.remove(0).commit().await.unwrap();
    fixture.settles().await;
}

#[tokio::test]
async fn a_slice_can_be_changed_while_serving() {
    let fixture = Fixture::budget(8);
    let pools = fixture.pools(8).await;
    let mut held = Vec::new();
    for pool in &pools[..4] {
        let mut session = pool.new_session(AccessMode::Read, SessionLimits::default());
        keep(&mut session, "select 1").await.unwrap();
        held.push(session);
    }
    assert_eq!((fixture.report().open, fixture.report().budget), (8, 8));
    fixture.requests.set_slice(&fixture.server, 2);
    fixture.until("idle ones are open", |report| report.open == 4 && report.budget == 2).await;
    for mut session in held {
        session.commit().await.unwrap();
    }
    fixture.until("more than the slice are open", |report| report.open == 2).await;
    for pool in &pools {
        read(pool, "select 1").await.unwrap();
    }
    fixture.requests.set_slice(&fixture.server, 100_000);
    // Of 60 the server reserves 3; a fifth of the rest is for fleet work, and 2 are left alone.
    assert_eq!(fixture.report().budget, 44);
    fixture.settles().await;
}
