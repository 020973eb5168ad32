//! Reading and writing: what is answered, and in what transaction.

use tenant_engine::{AccessMode, AfterStatements, ErrorKind, SessionLimits, SqlValue};

use super::fixture::{Fixture, cell, keep, one, read, statement, write};

#[tokio::test]
async fn reads_and_writes() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let rows = one(&pool, AccessMode::Read, "select id, v from t where id = ?1", vec![1.into()]).await.unwrap();
    assert_eq!(rows.columns, ["id", "v"]);
    assert_eq!(rows.rows, [[SqlValue::Integer(1), "one".into()]]);
    assert_eq!(rows.rows_affected, 0);
    let rows = one(&pool, AccessMode::Write, "insert into t(v) values(?1)", vec!["two".into()]).await.unwrap();
    assert_eq!((rows.columns.len(), rows.rows.len(), rows.rows_affected), (0, 0, 1));
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(2));
    assert_eq!(write(&pool, "update t set v = v || '!'").await.unwrap().rows_affected, 2);
    assert_eq!(write(&pool, "delete from t where id = 99").await.unwrap().rows_affected, 0);
}

#[tokio::test]
async fn dml_with_returning_answers_rows_and_counts_them() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let rows = write(&pool, "insert into t(v) values('two'), ('three') returning id, v").await.unwrap();
    assert_eq!(rows.columns, ["id", "v"]);
    assert_eq!(rows.rows, [[SqlValue::Integer(2), "two".into()], [SqlValue::Integer(3), "three".into()]]);
    assert_eq!(rows.rows_affected, 2);
}

#[tokio::test]
async fn every_kind_of_value_survives_the_trip() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let values = vec![
        SqlValue::Null,
        SqlValue::Integer(i64::MIN),
        SqlValue::Integer(i64::MAX),
        SqlValue::Real(-0.5),
        SqlValue::Text(String::new()),
        SqlValue::Text("naïve \0 \u{1F600}".to_owned()),
        SqlValue::Blob(Vec::new()),
        SqlValue::Blob(vec![0, 255, 1]),
    ];
    let rows = one(&pool, AccessMode::Read, "select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8", values.clone()).await.unwrap();
    assert_eq!(rows.rows, [values]);
    for real in [f64::INFINITY, f64::NEG_INFINITY, f64::MAX, 5e-324, -0.0] {
        let rows = one(&pool, AccessMode::Read, "select ?1", vec![real.into()]).await.unwrap();
        assert_eq!(rows.rows, [[SqlValue::Real(real)]]);
    }
    // SQLite would store NULL.
    let error = one(&pool, AccessMode::Read, "select ?1", vec![f64::NAN.into()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ParameterMismatch, "{error}");
}

#[tokio::test]
async fn text_that_is_not_utf_8_comes_back_as_its_bytes() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let sql = "select cast(x'ff41' as text), typeof(cast(x'ff41' as text)), 'fine'";
    let rows = read(&pool, sql).await.unwrap();
    assert_eq!(rows.rows, [[SqlValue::Blob(vec![0xff, 0x41]), "text".into(), "fine".into()]]);
}

#[tokio::test]
async fn statements_of_one_call_are_one_transaction() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
    let batch = ["insert into t values(2, 'two')", "insert into t values(3, 'one')", "insert into t values(4, 'four')"];
    let failed = session.run_statements(batch.map(statement).to_vec(), AfterStatements::Commit).await.unwrap_err();
    assert_eq!((failed.kind(), failed.message()), (ErrorKind::Constraint, "UNIQUE constraint failed: t.v"));
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    // The session is over, and says so instead of beginning anew.
    assert_eq!(keep(&mut session, "select 1").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(session.commit().await.unwrap_err().kind(), ErrorKind::Closed);
    session.rollback().await.unwrap();
}

#[tokio::test]
async fn a_kept_transaction_sees_one_snapshot_and_commits_at_the_end() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let mut reader = pool.new_session(AccessMode::Read, SessionLimits::default());
    keep(&mut reader, "select count(*) from t").await.unwrap();
    let mut writer = pool.new_session(AccessMode::Write, SessionLimits::default());
    keep(&mut writer, "insert into t values(2, 'two')").await.unwrap();
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    writer.commit().await.unwrap();
    writer.commit().await.unwrap();
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(2));
    let again = keep(&mut reader, "select count(*) from t").await.unwrap();
    assert_eq!(again.rows, [[SqlValue::Integer(1)]]);
    reader.rollback().await.unwrap();
    assert_eq!(keep(&mut reader, "select 1").await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn nothing_to_commit_or_roll_back_is_fine() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
    session.commit().await.unwrap();
    assert_eq!(session.run_statements(Vec::new(), AfterStatements::Commit).await.unwrap(), []);
    session.rollback().await.unwrap();
    pool.new_session(AccessMode::Write, SessionLimits::default()).rollback().await.unwrap();
}

#[tokio::test]
async fn what_sqlite_calls_a_full_disk_or_a_damaged_file_may_be_the_statement_s_own_fault() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    let schema = "create table numbered(id integer primary key autoincrement, v);
        insert into numbered values(9223372036854775807, 'last');
        create table plain(id integer primary key, body);
        insert into plain values(1, 'one');
        create virtual table found using fts5(body, content='plain', content_rowid='id');";
    tenant.raw().execute_batch(schema).unwrap();
    let pool = fixture.pool(&tenant).await;
    for (sql, word) in [
        ("insert into numbered(v) values('more')", "AUTOINCREMENT"),
        ("insert into found(found, rank) values('integrity-check', 1)", "virtual table"),
    ] {
        let error = write(&pool, sql).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SqlInvalid, "{sql}: {error}");
        assert!(error.message().contains(word), "{sql}: {error}");
    }
    assert_eq!(cell(&pool, "select count(*) from numbered").await, SqlValue::Integer(1));
    assert_eq!(write(&pool, "update numbered set v = 'still'").await.unwrap().rows_affected, 1);
}
