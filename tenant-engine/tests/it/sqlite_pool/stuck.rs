//! Statements that SQLite cannot stop at their deadline: they are answered, do nothing, and hold up nobody else.

use tenant_engine::{AccessMode, ErrorKind, SqlValue};

use super::fixture::{Fixture, cell, limits, read, statement};

/// Three steps of SQLite that take a second together or more, with no look at the clock between them.
const SLOW: &str =
    "(printf('%.*c', 900000, 'a') like '%' || printf('%.*c', 100, 'a') || printf('%.*c', 90, '_') || 'b')
    + (printf('%.*c', 900001, 'a') like '%' || printf('%.*c', 100, 'a') || printf('%.*c', 90, '_') || 'b')
    + (printf('%.*c', 900002, 'a') like '%' || printf('%.*c', 100, 'a') || printf('%.*c', 90, '_') || 'b')";

#[tokio::test]
async fn a_write_that_is_answered_at_its_deadline_is_not_committed_later() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let mut session = pool.new_session(AccessMode::Write, limits(100, 100));
    let sql = format!("insert into t(id, v) select 2, {SLOW}");
    let refused =
        session.run_statements(vec![statement(&sql)], tenant_engine::AfterStatements::Commit).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DeadlineExceeded, "{refused}");
    // Readers are served meanwhile; the next write comes after the stuck one.
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    let mut next = pool.new_session(AccessMode::Write, limits(60_000, 60_000));
    next.run_statements(vec![statement("update t set v = v")], tenant_engine::AfterStatements::Commit).await.unwrap();
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
}

#[tokio::test]
async fn many_stuck_statements_do_not_stop_other_tenants() {
    let fixture = Fixture::new();
    let mut asked = Vec::new();
    for _ in 0..6 {
        let pool = fixture.pool(&fixture.tenant()).await;
        for _ in 0..2 {
            let mut session = pool.new_session(AccessMode::Read, limits(50, 50));
            let sql = format!("select {SLOW}");
            asked.push(tokio::spawn(async move {
                session.run_statements(vec![statement(&sql)], tenant_engine::AfterStatements::Commit).await
            }));
        }
    }
    let quick = fixture.pool(&fixture.tenant()).await;
    for request in asked {
        assert_eq!(request.await.unwrap().unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(cell(&quick, "select count(*) from t").await, SqlValue::Integer(1));
    }
}

#[tokio::test]
async fn values_are_bounded_alone_and_together() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let sum = |value: &str, count: usize| format!("select {}", vec![value; count].join(" + "));
    for sql in [
        "select length(zeroblob(1000001) || 1)".to_owned(),
        "select zeroblob(999000) || zeroblob(2000)".to_owned(),
        sum("length(zeroblob(60000000) || 1)", 60),
        sum("length(zeroblob(900000) || 1)", 200),
    ] {
        let refused = read(&pool, &sql).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BytesMax, "{refused}");
    }
    assert!(read(&pool, &sum("length(zeroblob(10000) || 1)", 200)).await.is_ok());
    // The smaller limit ends with its statement.
    assert!(read(&pool, "select zeroblob(999000)").await.is_ok());
}

#[tokio::test]
async fn a_text_with_many_patterns_gets_small_values() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let patterns = |count: usize| format!("select {}", vec!["x'00' like 'a'"; count].join(","));
    assert!(read(&pool, &patterns(4)).await.is_ok());
    let some = format!("{}, length(zeroblob(200000) || 1)", patterns(20));
    assert_eq!(read(&pool, &some).await.unwrap_err().kind(), ErrorKind::BytesMax);
    assert_eq!(read(&pool, &patterns(1_001)).await.unwrap_err().kind(), ErrorKind::SqlTooComplex);
    let expensive = "select unhex(printf('%.*c', 900000, 'x'), printf('%.*c', 900000, 'x'))";
    let refused = read(&pool, expensive).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SqlTooComplex, "{refused}");
}
