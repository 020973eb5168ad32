//! An error means that nothing was done: a change whose answer is refused, unreadable or never heard is undone.

use std::time::Duration;

use tenant_engine::{AccessMode, AfterStatements, AnswerBudget, ErrorKind, Pool, SessionLimits, SqlValue};

use super::fixture::{Fixture, Tenant, cell, keep, limits, one_with, statement, write};

/// More than an answer may have, and more than is read to its end to save the connection.
const ROWS: i64 = 1_200;
const CAPS: SessionLimits = SessionLimits {
    sql_bytes_max: 100_000,
    value_bytes_max: 1_000_000,
    rows_max: 10,
    bytes_max: 1_000,
    temp_bytes_max: 1_000,
    storage_bytes_max: None,
    statement_timeout: Duration::from_secs(5),
    transaction_timeout: Duration::from_secs(10),
};

/// A tenant whose table `t` holds [`ROWS`] rows, and a function that changes a row for each row that it is selected for.
async fn filled(fixture: &Fixture) -> (Tenant, Pool) {
    let tenant = fixture.tenant().await;
    let pool = fixture.pool(&tenant).await;
    write(&pool, &format!("insert into t select i, 'v' || i from generate_series(2, {ROWS}) i")).await.unwrap();
    let touch = "create function touch(i bigint) returns bigint language sql as $$ update t set v = v || '!' where id = i returning id $$";
    fixture.cluster.psql(tenant.database(), touch);
    (tenant, pool)
}

/// What the table holds.
async fn content(pool: &Pool) -> SqlValue {
    cell(pool, "select count(*) || ':' || md5(string_agg(id || v, ',' order by id)) from t").await
}

#[tokio::test]
async fn a_change_whose_answer_is_refused_is_undone() {
    let fixture = Fixture::new();
    let (_, pool) = filled(&fixture).await;
    let before = content(&pool).await;
    let few = "where id between 1 and 30";
    let table = [
        ("delete from t returning id".to_owned(), ErrorKind::RowsMax),
        (format!("delete from t {few} returning id"), ErrorKind::RowsMax),
        ("update t set v = v || '!' returning id".to_owned(), ErrorKind::RowsMax),
        ("insert into t select id + 10000, v || '!' from t returning id".to_owned(), ErrorKind::RowsMax),
        (
            "insert into t select id, v from t on conflict (id) do update set v = excluded.v || '!' returning id"
                .to_owned(),
            ErrorKind::RowsMax,
        ),
        ("with gone as (delete from t returning id) select * from gone".to_owned(), ErrorKind::RowsMax),
        (format!("with gone as (delete from t {few}) select generate_series(1, 11)"), ErrorKind::RowsMax),
        (format!("select touch(id) from t {few}"), ErrorKind::RowsMax),
        ("delete from t where id = 1 returning repeat('x', 1001)".to_owned(), ErrorKind::BytesMax),
        ("delete from t where id < 9 returning repeat('x', 200)".to_owned(), ErrorKind::BytesMax),
        ("delete from t where id = 1 returning repeat('x', 5000000)".to_owned(), ErrorKind::BytesMax),
        ("delete from t returning array[id]".to_owned(), ErrorKind::UnsupportedType),
        ("delete from t where id = 1 returning t".to_owned(), ErrorKind::UnsupportedType),
        ("delete from t where id = 1 returning 1 / (id - 1)".to_owned(), ErrorKind::SqlInvalid),
    ];
    for (sql, kind) in table {
        let error = one_with(&pool, AccessMode::Write, CAPS, &sql, vec![]).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{sql}: {error}");
        assert_eq!(content(&pool).await, before, "{sql}");
    }
    let explain = "explain analyze delete from t where id = 1";
    let one_row = SessionLimits { rows_max: 1, ..CAPS };
    assert_eq!(
        one_with(&pool, AccessMode::Write, one_row, explain, vec![]).await.unwrap_err().kind(),
        ErrorKind::RowsMax
    );
    assert_eq!(content(&pool).await, before, "explain analyze");
    fixture.settles().await;
}

#[tokio::test]
async fn the_same_among_other_statements_of_a_transaction() {
    let fixture = Fixture::new();
    let (_, pool) = filled(&fixture).await;
    let before = content(&pool).await;
    for refused in ["delete from t returning id", "delete from t where id < 30 returning id", "select touch(id) from t"]
    {
        let batch = vec![statement("update t set v = v || '?' where id = 1"), statement(refused)];
        let error =
            pool.new_session(AccessMode::Write, CAPS).run_statements(batch, AfterStatements::Commit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RowsMax, "{refused}: {error}");
        let mut session = pool.new_session(AccessMode::Write, CAPS);
        keep(&mut session, "update t set v = v || '?' where id = 2").await.unwrap();
        assert_eq!(keep(&mut session, refused).await.unwrap_err().kind(), ErrorKind::RowsMax, "{refused}");
        assert_eq!(session.commit().await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(content(&pool).await, before, "{refused}");
    }
    fixture.settles().await;
}

#[tokio::test]
async fn a_constraint_that_fails_at_the_commit_undoes_the_answer_too() {
    let fixture = Fixture::new();
    let (tenant, pool) = filled(&fixture).await;
    fixture.cluster.psql(tenant.database(), "alter table t add unique (v, id) deferrable initially deferred");
    let unique = "alter table t drop constraint t_v_key, add unique (v) deferrable initially deferred";
    fixture.cluster.psql(tenant.database(), unique);
    let before = content(&pool).await;
    for sql in ["insert into t values (5000, 'v7') returning id", "insert into t values (5000, 'v7')"] {
        let error = one_with(&pool, AccessMode::Write, CAPS, sql, vec![]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Constraint, "{sql}: {error}");
        assert_eq!(content(&pool).await, before, "{sql}");
    }
    fixture.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_answers_and_is_not_heard_in_time_is_undone_and_says_so() {
    let fixture = Fixture::new();
    let (_, pool) = filled(&fixture).await;
    let before = content(&pool).await;
    let sql = "delete from t where id = 1 returning id";
    let short = SessionLimits { statement_timeout: Duration::from_millis(300), ..CAPS };
    fixture.cluster.freeze();
    let error = one_with(&pool, AccessMode::Write, short, sql, vec![]).await.unwrap_err();
    // Before anything can fail: a frozen server does not end.
    fixture.cluster.thaw();
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded | ErrorKind::ServerUnreachable), "{error}");
    while let Err(error) = super::fixture::read(&pool, "select 1").await {
        assert_ne!(error.kind(), ErrorKind::ConnectionLost, "a read is never in doubt: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(content(&pool).await, before);
    fixture.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_waited_for_its_connection_is_not_left_in_doubt() {
    let fixture = Fixture::budget(2);
    let (_, pool) = filled(&fixture).await;
    let before = content(&pool).await;
    let mut holder = pool.new_session(AccessMode::Write, SessionLimits::default());
    keep(&mut holder, "select 1").await.unwrap();
    let (slow, mut reader) = (pool.clone(), pool.new_session(AccessMode::Read, SessionLimits::default()));
    keep(&mut reader, "select 1").await.unwrap();
    let waiting = tokio::spawn(async move {
        let sql = "update t set v = v || '!' where id = 1 and pg_sleep(3) is not null";
        one_with(&slow, AccessMode::Write, limits(900, 10_000), sql, vec![]).await
    });
    fixture.until("nobody waits", |report| report.waiting_requests == 1).await;
    // The server, told of 900 ms, would end the statement long after its caller gave up.
    tokio::time::sleep(Duration::from_millis(500)).await;
    holder.commit().await.unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    reader.commit().await.unwrap();
    assert_eq!(content(&pool).await, before);
    fixture.settles().await;
}

#[tokio::test]
async fn a_change_whose_answer_finds_no_memory_is_undone() {
    let fixture = Fixture::new();
    let (_, pool) = filled(&fixture).await;
    let before = content(&pool).await;
    let answers = AnswerBudget::new(400_000);
    let counting = pool.clone().with_answer_share(answers.new_share());
    let sql = "delete from t where id < 300 returning repeat('x', 1000)";
    let error = one_with(&counting, AccessMode::Write, SessionLimits::default(), sql, vec![]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AnswersMax, "{error}");
    assert_eq!((content(&pool).await, answers.held_bytes()), (before, 0));
    let rows = one_with(&counting, AccessMode::Write, SessionLimits::default(), "delete from t returning id", vec![])
        .await
        .unwrap();
    assert!(answers.held_bytes() > 0);
    drop(rows);
    assert_eq!(answers.held_bytes(), 0);
    fixture.settles().await;
}
