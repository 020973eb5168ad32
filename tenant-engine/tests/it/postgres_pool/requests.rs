//! Reading and writing: what is answered, and in what transaction.

use tenant_engine::{AccessMode, AfterStatements, ErrorKind, SessionLimits, SqlValue};

use super::fixture::{Fixture, cell, keep, one, read, statement, write};

#[tokio::test]
async fn reads_and_writes() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let rows = one(&pool, AccessMode::Read, "select id, v from t where id = $1", vec![1.into()]).await.unwrap();
    assert_eq!(rows.columns, ["id", "v"]);
    assert_eq!(rows.rows, [[SqlValue::Integer(1), "one".into()]]);
    assert_eq!(rows.rows_affected, 0);
    let rows = one(&pool, AccessMode::Write, "insert into t values(2, $1)", vec!["two".into()]).await.unwrap();
    assert_eq!((rows.columns.len(), rows.rows.len(), rows.rows_affected), (0, 0, 1));
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(2));
    assert_eq!(write(&pool, "update t set v = v || '!'").await.unwrap().rows_affected, 2);
    assert_eq!(write(&pool, "delete from t where id = 99").await.unwrap().rows_affected, 0);
    let both = "with gone as (delete from t where id = 2 returning id) insert into t select 3, 'three' from gone";
    assert_eq!(write(&pool, both).await.unwrap().rows_affected, 1);
    fixture.settles().await;
}

#[tokio::test]
async fn dml_with_returning_answers_rows_and_counts_them() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let rows = write(&pool, "insert into t values(2, 'two'), (3, 'three') returning id, v").await.unwrap();
    assert_eq!(rows.columns, ["id", "v"]);
    assert_eq!(rows.rows, [[SqlValue::Integer(2), "two".into()], [SqlValue::Integer(3), "three".into()]]);
    assert_eq!(rows.rows_affected, 2);
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let error = read(&pool, "insert into t values(2, 'two')").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnlyTransaction, "{error}");
    let mut session = pool.new_session(AccessMode::Read, SessionLimits::default());
    keep(&mut session, "select 1").await.unwrap();
    assert_eq!(keep(&mut session, "delete from t").await.unwrap_err().kind(), ErrorKind::ReadOnlyTransaction);
    let error = write(&pool, "update _fleet_identity set generation = 9").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SqlForbidden, "{error}");
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    fixture.settles().await;
}

#[tokio::test]
async fn statements_of_one_call_are_one_transaction() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
    let batch = ["insert into t values(2, 'two')", "insert into t values(3, 'one')", "insert into t values(4, 'four')"];
    let failed = session.run_statements(batch.map(statement).to_vec(), AfterStatements::Commit).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Constraint);
    assert!(failed.message().contains("t_v_key"), "{failed}");
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    // The session is over, and says so instead of beginning anew.
    assert_eq!(keep(&mut session, "select 1").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(session.commit().await.unwrap_err().kind(), ErrorKind::Closed);
    session.rollback().await.unwrap();
    let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
    let answers = session
        .run_statements(vec![statement(batch[0]), statement("select count(*) from t")], AfterStatements::Commit)
        .await;
    assert_eq!(answers.unwrap()[1].rows, [[SqlValue::Integer(2)]]);
    fixture.settles().await;
}

#[tokio::test]
async fn a_kept_transaction_sees_one_snapshot_and_commits_at_the_end() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
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
    fixture.settles().await;
}

#[tokio::test]
async fn nothing_to_commit_or_roll_back_is_fine() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
    session.commit().await.unwrap();
    assert_eq!(session.run_statements(Vec::new(), AfterStatements::Commit).await.unwrap(), []);
    session.rollback().await.unwrap();
    pool.new_session(AccessMode::Write, SessionLimits::default()).rollback().await.unwrap();
}

#[tokio::test]
async fn a_constraint_checked_at_the_commit_fails_the_commit() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    fixture.cluster.psql(
        tenant.database(),
        "alter table t drop constraint t_v_key; alter table t add unique (v) deferrable initially deferred",
    );
    let pool = fixture.pool(&tenant).await;
    assert_eq!(write(&pool, "insert into t values(2, 'one')").await.unwrap_err().kind(), ErrorKind::Constraint);
    let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
    keep(&mut session, "insert into t values(2, 'one')").await.unwrap();
    assert_eq!(session.commit().await.unwrap_err().kind(), ErrorKind::Constraint);
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    fixture.settles().await;
}

#[tokio::test]
async fn a_statement_from_before_a_migration_is_prepared_again() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let pool = fixture.pool(&tenant).await;
    for sql in ["select * from t", "select * from t where id = 1"] {
        assert_eq!(read(&pool, sql).await.unwrap().columns, ["id", "v"]);
    }
    fixture.cluster.psql(tenant.database(), "alter table t add column n integer default 5");
    assert_eq!(read(&pool, "select * from t").await.unwrap().columns, ["id", "v", "n"]);
    fixture.cluster.psql(tenant.database(), "alter table t drop column n");
    let mut session = pool.new_session(AccessMode::Read, SessionLimits::default());
    let batch = vec![statement("select 1"), statement("select * from t")];
    assert_eq!(session.run_statements(batch, AfterStatements::Keep).await.unwrap()[1].columns, ["id", "v"]);
    session.commit().await.unwrap();
    fixture.settles().await;
}
