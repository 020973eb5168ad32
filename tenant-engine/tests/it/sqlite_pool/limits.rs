//! Caps: what reaches one is an error, and the connection is as good as before.

use std::time::{Duration, Instant};

use tenant_engine::{AccessMode, AfterStatements, Error, ErrorKind, Pool, Rows, SessionLimits, SqlStatement, SqlValue};

use super::fixture::{Fixture, cell, keep, limits, one, sqlite, statement};

const ENDLESS: &str = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";

async fn capped(pool: &Pool, limits: SessionLimits, sql: &str) -> Result<Rows, Error> {
    let mut session = pool.new_session(AccessMode::Read, limits);
    session.run_statements(vec![statement(sql)], AfterStatements::Commit).await.map(|mut all| all.remove(0))
}

fn numbers(count: usize) -> String {
    format!("with recursive n(i) as (select 1 union all select i + 1 from n limit {count}) select i from n")
}

#[tokio::test]
async fn rows_and_bytes_are_capped_exactly() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let caps = SessionLimits { rows_max: 10, bytes_max: 100, ..SessionLimits::default() };
    assert_eq!(capped(&pool, caps, &numbers(10)).await.unwrap().rows.len(), 10);
    assert_eq!(capped(&pool, caps, &numbers(11)).await.unwrap_err().kind(), ErrorKind::RowsMax);
    let text = |length: usize| format!("select '{}'", "x".repeat(length));
    assert!(capped(&pool, caps, &text(100)).await.is_ok());
    assert_eq!(capped(&pool, caps, &text(101)).await.unwrap_err().kind(), ErrorKind::BytesMax);
    assert_eq!(capped(&pool, caps, "select zeroblob(101)").await.unwrap_err().kind(), ErrorKind::BytesMax);
    // One cell larger than SQLite itself may make here.
    let huge = SessionLimits { bytes_max: usize::MAX, ..caps };
    assert_eq!(capped(&pool, huge, "select zeroblob(100000000)").await.unwrap_err().kind(), ErrorKind::BytesMax);
    assert_eq!(pool.connection_count(), 1);
}

#[tokio::test]
async fn how_large_a_value_may_be_is_a_limit_of_the_session() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    let pool = fixture.pool(&tenant).await;
    tenant.raw().execute("update t set v = printf('%.*c', 3000000, 'x')", []).unwrap();
    let of = |value_bytes_max| SessionLimits { value_bytes_max, ..SessionLimits::default() };
    for (sql, length) in [
        ("select v from t", 3_000_000),
        ("select v || '' from t", 3_000_000),
        ("select replace(v, 'xx', 'y') from t", 1_500_000),
        ("select json_array(v) from t", 3_000_004),
        ("select json_group_array(v) from t", 3_000_004),
        ("select json_set('{}', '$.a', v) from t", 3_000_008),
        ("select json_pretty(json_array(v)) from t", 3_000_010),
    ] {
        // One connection serves both, in turn.
        for _ in 0..2 {
            let error = capped(&pool, SessionLimits::default(), sql).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BytesMax, "{sql}: {error}");
            let rows = capped(&pool, of(3_100_000), sql).await.unwrap().rows;
            assert_eq!(rows[0][0].size_bytes(), length, "{sql}");
        }
        let error = capped(&pool, of(1_400_000), sql).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BytesMax, "{sql}: {error}");
    }
    let large = vec![SqlValue::Blob(vec![1; 2_000_000])];
    assert_eq!(one(&pool, AccessMode::Read, "select ?1", large.clone()).await.unwrap_err().kind(), ErrorKind::BytesMax);
    let statement = SqlStatement { sql: "insert into t values(2, ?1)".to_owned(), params: large };
    pool.new_session(AccessMode::Write, of(2_100_000))
        .run_statements(vec![statement], AfterStatements::Commit)
        .await
        .unwrap();
    let stored: i64 = tenant.raw().query_row("select sum(length(v)) from t", [], |row| row.get(0)).unwrap();
    assert_eq!(stored, 5_000_000);
    // A smaller one holds, too.
    assert_eq!(capped(&pool, of(1_000), "select zeroblob(1001)").await.unwrap_err().kind(), ErrorKind::BytesMax);
    assert_eq!(pool.connection_count(), 2);
}

#[tokio::test]
async fn parameters_must_fit() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let table: [(&str, Vec<SqlValue>); 5] = [
        ("select ?1", vec![]),
        ("select ?1", vec![1.into(), 2.into()]),
        ("select 1", vec![1.into()]),
        ("select ?2", vec![1.into()]),
        ("select :a, :b", vec![1.into()]),
    ];
    for (sql, params) in table {
        let error = one(&pool, AccessMode::Read, sql, params).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ParameterMismatch, "{sql}: {error}");
    }
    for sql in ["select $1, ?2", "select $1, :a", "select $0", "select $2, $1, $4"] {
        let error = one(&pool, AccessMode::Read, sql, vec![1.into(), 2.into()]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ParameterMismatch, "{sql}: {error}");
    }
    // A cached statement keeps nothing of the parameters it had before.
    let rows = one(&pool, AccessMode::Read, "select ?1 is null, ?1", vec![SqlValue::Null]).await.unwrap();
    assert_eq!(rows.rows, [[SqlValue::Integer(1), SqlValue::Null]]);
}

#[tokio::test]
async fn an_endless_statement_is_stopped_and_the_connection_lives() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let begin = Instant::now();
    let error = capped(&pool, limits(100, 10_000), ENDLESS).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(pool.connection_count(), 1);
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    // Also while it writes: nothing of it stays.
    let mut session = pool.new_session(AccessMode::Write, limits(100, 10_000));
    let sql = "insert into t(v) with recursive n(i) as (select 1 union all select i + 1 from n) select 'v' || i from n";
    let error = session.run_statements(vec![statement(sql)], AfterStatements::Commit).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
}

#[tokio::test]
async fn the_deadline_is_for_the_whole_call() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let mut session = pool.new_session(AccessMode::Read, limits(100, 10_000));
    let long = "with recursive n(i) as (select 1 union all select i + 1 from n limit 200000) select count(*) from n";
    let many = (0..1_000).map(|_| statement(long)).collect();
    assert_eq!(
        session.run_statements(many, AfterStatements::Commit).await.unwrap_err().kind(),
        ErrorKind::DeadlineExceeded
    );
}

#[tokio::test]
async fn an_idle_transaction_is_rolled_back_at_its_deadline() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let mut idle = pool.new_session(AccessMode::Write, limits(5_000, 100));
    keep(&mut idle, "insert into t values(2, 'two')").await.unwrap();
    // The next writer gets the slot although nobody touched the idle session.
    let begin = Instant::now();
    let mut next = pool.new_session(AccessMode::Write, SessionLimits::default());
    let rows = next.run_statements(vec![statement("select count(*) from t")], AfterStatements::Commit).await.unwrap();
    assert_eq!(rows[0].rows, [[SqlValue::Integer(1)]]);
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    assert_eq!(keep(&mut idle, "select 1").await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(idle.commit().await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
}

#[tokio::test]
async fn a_transaction_cannot_outlive_its_deadline_by_staying_busy() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let mut session = pool.new_session(AccessMode::Write, limits(60_000, 200));
    keep(&mut session, "insert into t values(2, 'two')").await.unwrap();
    let begin = Instant::now();
    assert_eq!(keep(&mut session, ENDLESS).await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
}

#[tokio::test]
async fn a_closure_runs_many_statements_in_one_transaction() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let sum = sqlite(&pool)
        .with_transaction(AccessMode::Write, SessionLimits::default(), |tx| {
            for number in 2..=100_i64 {
                assert_eq!(
                    tx.execute("insert into t values(?1, ?2)", &[number.into(), format!("n{number}").into()])?,
                    1
                );
            }
            tx.query("select sum(id) from t", &[])
        })
        .await
        .unwrap();
    assert_eq!(sum.rows, [[SqlValue::Integer(5050)]]);
    let refused = sqlite(&pool).with_transaction(AccessMode::Write, SessionLimits::default(), |tx| {
        tx.execute("delete from t", &[])?;
        tx.query("select * from nowhere", &[]).map(drop)
    });
    assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::SqlInvalid);
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(100));
}

#[tokio::test]
async fn a_panic_in_a_closure_is_an_error_and_rolls_back() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let panicked = sqlite(&pool).with_transaction::<()>(AccessMode::Write, SessionLimits::default(), |tx| {
        tx.execute("delete from t", &[])?;
        panic!("a bug in the application")
    });
    assert_eq!(panicked.await.unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    let insert = SqlStatement { sql: "insert into t values(2, 'two')".to_owned(), params: vec![] };
    pool.new_session(AccessMode::Write, SessionLimits::default())
        .run_statements(vec![insert], AfterStatements::Commit)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_change_whose_answer_is_refused_is_undone() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let fill = format!("insert into t select i + 1, 'v' || i from ({}) where i > 1", numbers(1_200));
    one(&pool, AccessMode::Write, &fill, vec![]).await.unwrap();
    let content = "select count(*) || ':' || group_concat(id || v, ',') from (select * from t order by id)";
    let before = cell(&pool, content).await;
    let caps = SessionLimits { rows_max: 10, bytes_max: 1_000, ..SessionLimits::default() };
    for (sql, kind) in [
        ("delete from t returning id", ErrorKind::RowsMax),
        ("update t set v = v || '!' returning id", ErrorKind::RowsMax),
        ("insert into t select id + 10000, v || '!' from t returning id", ErrorKind::RowsMax),
        ("replace into t select id, v || '!' from t returning id", ErrorKind::RowsMax),
        ("delete from t where id = 1 returning printf('%.*c', 1001, 'x')", ErrorKind::BytesMax),
        ("delete from t where id = 1 returning abs(-9223372036854775807 - id)", ErrorKind::SqlInvalid),
    ] {
        for batch in [vec![statement(sql)], vec![statement("update t set v = v || '?' where id = 1"), statement(sql)]] {
            let error = pool
                .new_session(AccessMode::Write, caps)
                .run_statements(batch, AfterStatements::Commit)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), kind, "{sql}: {error}");
            assert_eq!(cell(&pool, content).await, before, "{sql}");
        }
    }
}

#[tokio::test]
async fn numbered_parameters_are_bound_by_their_numbers() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let values = || vec![1.into(), 2.into(), 3.into()];
    for (sql, expected) in [
        ("select $1, $2, $3", [1, 2, 3]),
        ("select $3, $1, $2", [3, 1, 2]),
        ("select $2, $3, $2", [2, 3, 2]),
        ("select ?3, ?1, ?2", [3, 1, 2]),
        ("select ?, ?, ?", [1, 2, 3]),
    ] {
        let rows = one(&pool, AccessMode::Read, sql, values()).await.unwrap();
        assert_eq!(rows.rows, [expected.map(SqlValue::Integer)], "{sql}");
    }
}
