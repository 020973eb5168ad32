//! Opening and closing: pools, the budget of connections, files as they were left behind.

use tenant_engine::{AccessMode, AfterStatements, Engine, ErrorKind, SessionLimits, SqlValue};

use super::fixture::{Fixture, cell, keep, limits, read, statement, write};

#[tokio::test]
async fn close_waits_for_what_is_checked_out_and_refuses_the_rest() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let mut open = pool.new_session(AccessMode::Write, SessionLimits::default());
    keep(&mut open, "insert into t values(2, 'two')").await.unwrap();
    assert_eq!(pool.connection_count(), 2);
    let mut waiter = Box::pin(write(&pool, "delete from t"));
    let mut closing = Box::pin(pool.close());
    tokio::select! {
        biased;
        _ = &mut waiter => panic!("the slot is taken"),
        () = &mut closing => panic!("a connection is out"),
        answer = read(&pool, "select 1") => assert_eq!(answer.unwrap_err().kind(), ErrorKind::Closed),
    }
    assert_eq!(waiter.await.unwrap_err().kind(), ErrorKind::Closed);
    // What was begun may be finished.
    open.commit().await.unwrap();
    closing.await;
    assert_eq!(pool.connection_count(), 0);
    pool.close().await;
    assert_eq!(read(&pool, "select 1").await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_pool_that_is_dropped_closes_its_connections() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    let pool = fixture.pool(&tenant).await;
    write(&pool, "insert into t values(2, 'two')").await.unwrap();
    let wal = tenant.path().with_extension("db-wal");
    assert!(wal.exists());
    drop(pool);
    // Ends the workers, and so after what they had still to do.
    fixture.engine.shut_down().await;
    assert!(!wal.exists(), "the last connection folds the log back");
    assert_eq!(fixture.engine.open_pool(&tenant.at, &tenant.expected).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn shutdown_ends_open_sessions_without_a_hang() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    let pool = fixture.pool(&tenant).await;
    let mut open = pool.new_session(AccessMode::Write, SessionLimits::default());
    keep(&mut open, "insert into t values(2, 'two')").await.unwrap();
    fixture.engine.shut_down().await;
    assert_eq!(keep(&mut open, "select 1").await.unwrap_err().kind(), ErrorKind::Closed);
    drop(open);
    assert_eq!(read(&pool, "select 1").await.unwrap_err().kind(), ErrorKind::Closed);
    pool.close().await;
    assert_eq!(pool.connection_count(), 0);
    let rows: i64 = tenant.raw().query_row("select count(*) from t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn idle_connections_of_others_make_room() {
    let fixture = Fixture::with(|options| options.connections_max = Some(4));
    let mut pools = Vec::new();
    for _ in 0..12 {
        pools.push(fixture.pool(&fixture.tenant()).await);
    }
    for pool in pools.iter().chain(&pools) {
        assert_eq!(cell(pool, "select count(*) from t").await, SqlValue::Integer(1));
        write(pool, "update t set v = 'x'").await.unwrap();
        let open: usize = pools.iter().map(tenant_engine::Pool::connection_count).sum();
        assert!(open <= 4, "{open} connections are open");
    }
}

#[tokio::test]
async fn when_every_connection_is_in_use_callers_wait_and_then_are_told() {
    let fixture = Fixture::with(|options| options.connections_max = Some(2));
    let (one, two) = (fixture.pool(&fixture.tenant()).await, fixture.pool(&fixture.tenant()).await);
    let three = fixture.pool(&fixture.tenant()).await;
    let mut reader = one.new_session(AccessMode::Read, SessionLimits::default());
    let mut writer = three.new_session(AccessMode::Write, SessionLimits::default());
    keep(&mut reader, "select 1").await.unwrap();
    keep(&mut writer, "select 1").await.unwrap();
    let mut session = two.new_session(AccessMode::Read, limits(100, 1_000));
    let error = session.run_statements(vec![statement("select 1")], AfterStatements::Commit).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionsMax);
    let mut waiting = Box::pin(read(&two, "select 1"));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("there is no room"),
        () = std::future::ready(()) => {}
    }
    reader.commit().await.unwrap();
    waiting.await.unwrap();
    writer.commit().await.unwrap();
}

#[tokio::test]
async fn files_are_readable_however_they_were_left() {
    let fixture = Fixture::new();
    // Closed cleanly: no log, no shared memory.
    let clean = fixture.tenant();
    assert!(!clean.path().with_extension("db-wal").exists());
    assert_eq!(cell(&fixture.pool(&clean).await, "select count(*) from t").await, SqlValue::Integer(1));

    // Left by a process that died: a log with a committed row, and no shared memory.
    let tenant = fixture.tenant();
    let dead = fixture.tenant();
    let writer = tenant.raw();
    writer.execute_batch("pragma wal_autocheckpoint = 0; insert into t values(2, 'in the log')").unwrap();
    let stamp = dead.raw();
    let id = tenant.expected.tenant.to_string();
    stamp.execute_batch(&format!("update _fleet_identity set tenant_id = '{id}'")).unwrap();
    drop(stamp);
    std::fs::copy(tenant.path(), dead.path()).unwrap();
    std::fs::copy(tenant.path().with_extension("db-wal"), dead.path().with_extension("db-wal")).unwrap();
    drop(writer);
    let pool = fixture.engine.open_pool(&dead.at, &tenant.expected).await.unwrap();
    assert_eq!(cell(&pool, "select v from t where id = 2").await, "in the log".into());
    write(&pool, "insert into t values(3, 'three')").await.unwrap();
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(3));
}

#[tokio::test]
async fn a_file_in_another_journal_mode_is_served_and_becomes_wal_at_the_first_write() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    tenant.raw().execute_batch("pragma journal_mode = delete").unwrap();
    let pool = fixture.pool(&tenant).await;
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    drop(pool);
    let pool = fixture.pool(&tenant).await;
    write(&pool, "insert into t values(2, 'two')").await.unwrap();
    let mode: String = tenant.raw().query_row("pragma journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}
