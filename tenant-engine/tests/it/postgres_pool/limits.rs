//! Caps: what reaches one is an error, and the place in the budget comes back.

use std::time::{Duration, Instant};

use tenant_engine::{AccessMode, AfterStatements, ErrorKind, SessionLimits, SqlValue};

use super::fixture::{Fixture, cell, keep, limits, one, one_with, read, statement, write};

#[tokio::test]
async fn rows_and_bytes_are_capped_exactly() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let caps = SessionLimits { rows_max: 10, bytes_max: 100, ..SessionLimits::default() };
    let capped = |sql: String| {
        let pool = pool.clone();
        async move { one_with(&pool, AccessMode::Read, caps, &sql, vec![]).await }
    };
    let numbers = |count: u64| format!("select generate_series(1, {count})");
    assert_eq!(capped(numbers(10)).await.unwrap().rows.len(), 10);
    assert_eq!(capped(numbers(11)).await.unwrap_err().kind(), ErrorKind::RowsMax);
    let text = |length: usize| format!("select repeat('x', {length})");
    assert!(capped(text(100)).await.is_ok());
    assert_eq!(capped(text(101)).await.unwrap_err().kind(), ErrorKind::BytesMax);
    assert_eq!(
        capped("select repeat('x', 51), repeat('y', 50)".to_owned()).await.unwrap_err().kind(),
        ErrorKind::BytesMax
    );
    // So much is left that reading it would take longer than a new connection.
    assert_eq!(capped(numbers(100_000_000)).await.unwrap_err().kind(), ErrorKind::RowsMax);
    let error = one_with(&pool, AccessMode::Write, caps, &numbers(100_000_000), vec![]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RowsMax, "{error}");
    assert_eq!(cell(&pool, "select 1").await, SqlValue::Integer(1));
    fixture.settles().await;
}

#[tokio::test]
async fn an_answer_that_is_cut_off_in_a_transaction_ends_it() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let mut session = pool.new_session(AccessMode::Write, SessionLimits { rows_max: 10, ..SessionLimits::default() });
    keep(&mut session, "insert into t values(2, 'two')").await.unwrap();
    assert_eq!(keep(&mut session, "select generate_series(1, 1000)").await.unwrap_err().kind(), ErrorKind::RowsMax);
    assert_eq!(session.commit().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    fixture.settles().await;
}

#[tokio::test]
async fn parameters_must_fit() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let table: [(&str, Vec<SqlValue>); 4] = [
        ("select $1::int", vec![]),
        ("select $1::int", vec![1.into(), 2.into()]),
        ("select 1", vec![1.into()]),
        ("select $2::int + $1::int", vec![1.into()]),
    ];
    for (sql, params) in table {
        let error = one(&pool, AccessMode::Read, sql, params).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ParameterMismatch, "{sql}: {error}");
    }
    let error = one(&pool, AccessMode::Read, "select ?1", vec![1.into()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SqlInvalid);
    let rows = one(&pool, AccessMode::Read, "select $1::int is null, $1", vec![SqlValue::Null]).await.unwrap();
    assert_eq!(rows.rows, [[SqlValue::Boolean(true), SqlValue::Null]]);
    assert_eq!(pool.connection_count(), 1);
}

#[tokio::test]
async fn a_long_statement_is_stopped_by_the_server_and_the_connection_lives() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    for access in [AccessMode::Read, AccessMode::Write] {
        one_with(&pool, access, limits(300, 10_000), "select 1", vec![]).await.unwrap();
        let begun = Instant::now();
        let error = one_with(&pool, access, limits(300, 10_000), "select pg_sleep(10)", vec![]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    }
    let mut session = pool.new_session(AccessMode::Write, limits(300, 10_000));
    keep(&mut session, "insert into t values(2, 'two')").await.unwrap();
    assert_eq!(keep(&mut session, "select pg_sleep(10)").await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    assert!(fixture.report().closes.is_empty(), "{:?}", fixture.report());
    fixture.settles().await;
}

#[tokio::test]
async fn limits_of_a_session_are_its_own() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let sleep = "select pg_sleep(0.3)";
    assert!(one_with(&pool, AccessMode::Read, limits(100, 10_000), sleep, vec![]).await.is_err());
    assert!(one_with(&pool, AccessMode::Read, limits(5_000, 10_000), sleep, vec![]).await.is_ok());
    assert!(one_with(&pool, AccessMode::Read, limits(100, 10_000), sleep, vec![]).await.is_err());
    let shown = "select current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')";
    let rows = one_with(&pool, AccessMode::Read, limits(4_000, 9_000), shown, vec![]).await.unwrap();
    assert_eq!(rows.rows, [["4s".into(), "14s".into()]]);
    assert_eq!(pool.connection_count(), 1);
}

#[tokio::test]
async fn an_open_transaction_ends_at_its_deadline_though_its_holder_does_nothing() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let mut session = pool.new_session(AccessMode::Write, limits(5_000, 300));
    keep(&mut session, "update t set v = 'locked'").await.unwrap();
    // Waits for the row, which the deadline sets free.
    let rows = write(&pool, "update t set v = 'two'").await.unwrap();
    assert_eq!(rows.rows_affected, 1);
    assert_eq!(keep(&mut session, "select 1").await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(session.commit().await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(cell(&pool, "select v from t").await, "two".into());
    fixture.settles().await;
}

#[tokio::test]
async fn a_call_is_cut_by_what_is_left_of_its_transaction() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let begun = Instant::now();
    let mut session = pool.new_session(AccessMode::Read, limits(5_000, 400));
    keep(&mut session, "select 1").await.unwrap();
    assert_eq!(keep(&mut session, "select pg_sleep(3)").await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    fixture.settles().await;
}

#[tokio::test]
async fn a_dropped_session_rolls_back() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    for _ in 0..20 {
        let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
        keep(&mut session, "update t set v = 'dropped'").await.unwrap();
        drop(session);
    }
    assert_eq!(write(&pool, "update t set v = v || '!'").await.unwrap().rows_affected, 1);
    assert_eq!(cell(&pool, "select v from t").await, "one!".into());
    let report = fixture.report();
    assert!(report.closes.is_empty() && report.open <= 4, "{report:?}");
    // In the middle of a statement: the server is told to stop by the closed connection.
    let mut session = pool.new_session(AccessMode::Write, limits(20_000, 20_000));
    let long = session.run_statements(
        vec![statement("update t set v = 'long' where pg_sleep(19) is not null")],
        AfterStatements::Commit,
    );
    assert!(tokio::time::timeout(Duration::from_millis(100), long).await.is_err());
    drop(session);
    assert_eq!(write(&pool, "update t set v = 'after'").await.unwrap().rows_affected, 1);
    assert_eq!(read(&pool, "select v from t").await.unwrap().rows, [["after".into()]]);
    fixture.settles().await;
}
