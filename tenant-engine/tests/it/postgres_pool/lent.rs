//! Transactions that an application uses through `sqlx` itself: checked at both ends, and clean afterwards.

use std::time::Duration;

use sqlx::{Connection as _, Executor as _, Row as _};
use tenant_engine::postgres::PostgresLentTx;
use tenant_engine::{AccessMode, ErrorKind, Pool, SessionLimits, SqlValue};

use super::dropped::give_up_after;
use super::fixture::{Fixture, cell, limits};

async fn lend(pool: &Pool, access: AccessMode) -> PostgresLentTx {
    pool.lend_sqlx(access, SessionLimits::default()).await.unwrap()
}

/// A pool on a database whose login may do everything that [`LITTER`] tries.
async fn new_pool(fixture: &Fixture) -> Pool {
    let tenant = fixture.tenant().await;
    let grants = "alter sequence t_id_seq restart with 100; grant usage on sequence t_id_seq to public; \
        create role fleet_other; \
        do $$ declare login text; begin for login in select rolname from pg_roles where rolname like 't\\_%' loop \
          execute format('grant temporary on database %I to %I', current_database(), login); \
          execute format('grant fleet_other to %I', login); end loop; end $$";
    fixture.cluster.psql(tenant.database(), grants);
    fixture.pool(&tenant).await
}

async fn number(tx: &mut PostgresLentTx, sql: &'static str) -> i64 {
    sqlx::query(sql).fetch_one(&mut **tx).await.unwrap().get(0)
}

/// Everything that SQL can leave in a session.
const LITTER: [&str; 14] = [
    "set search_path = pg_catalog",
    "set statement_timeout = 0",
    "set default_transaction_isolation = 'serializable'",
    "set session characteristics as transaction read only",
    "set my.secret = 'left behind'",
    "set time zone 'Asia/Tokyo'",
    "set role fleet_other",
    "prepare left_behind as select 1",
    "prepare \"with \"\"quotes\" as select 2",
    "select pg_advisory_lock(4711)",
    "select nextval('t_id_seq')",
    "listen left_behind",
    "declare left_behind cursor with hold for select * from t",
    "create temporary table left_behind (secret text)",
];

/// A query for each of them, and its answer in a clean session.
const CLEAN: [(&str, &str); 12] = [
    ("select current_setting('search_path')", "\"$user\", public"),
    ("select current_setting('statement_timeout')", "5s"),
    ("select current_setting('default_transaction_isolation')", "read committed"),
    ("select current_setting('default_transaction_read_only')", "off"),
    ("select coalesce(current_setting('my.secret', true), '')", ""),
    ("select (current_setting('timezone') = 'Asia/Tokyo')::text", "false"),
    ("select (current_user = session_user)::text", "true"),
    ("select count(*)::text from pg_prepared_statements where from_sql", "0"),
    ("select count(*)::text from pg_locks where locktype = 'advisory'", "0"),
    ("select count(*)::text from pg_listening_channels()", "0"),
    ("select count(*)::text from pg_cursors where name like 'left%'", "0"),
    ("select count(*)::text from pg_class where relname = 'left_behind'", "0"),
];

/// The session of the pool's writing login, once it is idle.
async fn session_of_next_writer(fixture: &Fixture, pool: &Pool) -> i64 {
    fixture.until("the connection was not returned", |report| report.in_use == 0).await;
    let mut tx = lend(pool, AccessMode::Write).await;
    number(&mut tx, "select pg_backend_pid()::bigint").await
}

/// What is not as in a new session.
async fn litter_found(fixture: &Fixture, pool: &Pool) -> Vec<(&'static str, String)> {
    fixture.until("the connection was not returned", |report| report.in_use == 0).await;
    let mut tx = lend(pool, AccessMode::Write).await;
    let mut found = Vec::new();
    for (sql, clean) in CLEAN {
        let now: String = sqlx::query_scalar(sql).fetch_one(&mut *tx).await.unwrap();
        if now != clean {
            found.push((sql, now));
        }
    }
    let sequence = sqlx::query("select currval('t_id_seq')").fetch_one(&mut *tx).await;
    if sequence.is_ok() {
        found.push(("currval", "is defined".to_owned()));
    }
    tx.rollback().await.unwrap();
    found
}

#[tokio::test]
async fn a_lent_transaction_commits_with_savepoints_inside() {
    let fixture = Fixture::new();
    let pool = new_pool(&fixture).await;
    let mut tx = lend(&pool, AccessMode::Write).await;
    sqlx::query("insert into t (v) values ($1)").bind("kept").execute(&mut *tx).await.unwrap();
    let mut inner = tx.begin().await.unwrap();
    sqlx::query("insert into t (v) values ('undone')").execute(&mut *inner).await.unwrap();
    inner.rollback().await.unwrap();
    let mut inner = tx.begin().await.unwrap();
    assert!(inner.execute("select no_such_column from t").await.is_err());
    drop(inner);
    assert_eq!(number(&mut tx, "select count(*) from t").await, 2);
    tx.commit().await.unwrap();
    assert_eq!(cell(&pool, "select string_agg(v, ',' order by v) from t").await, SqlValue::Text("kept,one".to_owned()));
    fixture.settles().await;
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_and_a_reader_reads_one_snapshot() {
    let fixture = Fixture::new();
    let pool = new_pool(&fixture).await;
    let mut reader = lend(&pool, AccessMode::Read).await;
    assert_eq!(number(&mut reader, "select count(*) from t").await, 1);
    let mut tx = lend(&pool, AccessMode::Write).await;
    sqlx::query("delete from t").execute(&mut *tx).await.unwrap();
    drop(tx);
    let mut tx = lend(&pool, AccessMode::Write).await;
    sqlx::query("insert into t (v) values ('two')").execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(number(&mut reader, "select count(*) from t").await, 1, "the snapshot of its beginning");
    assert!(sqlx::query("delete from t").execute(&mut *reader).await.is_err());
    let error = reader.commit().await.unwrap_err();
    assert_eq!((error.kind(), error.message().contains("earlier statement failed")), (ErrorKind::Closed, true));
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(2));
    fixture.settles().await;
}

#[tokio::test]
async fn nothing_of_a_session_reaches_the_next_borrower() {
    let fixture = Fixture::new();
    let pool = new_pool(&fixture).await;
    let before = session_of_next_writer(&fixture, &pool).await;
    for committed in [true, false] {
        let mut left = 0;
        for litter in LITTER {
            fixture.until("the connection was not returned", |report| report.in_use == 0).await;
            let mut tx = lend(&pool, AccessMode::Write).await;
            // A right that this login lacks leaves nothing; the test counts what it could leave.
            left += usize::from(tx.execute(litter).await.is_ok());
            match committed {
                true => drop(tx.commit().await),
                false => drop(tx),
            }
            assert_eq!(litter_found(&fixture, &pool).await, [], "after {litter}");
        }
        assert_eq!(left, LITTER.len(), "the login may do all of it");
    }
    assert_eq!(session_of_next_writer(&fixture, &pool).await, before, "the session was cleaned, not replaced");
    fixture.settles().await;
}

#[tokio::test]
async fn sql_that_ends_the_transaction_is_found_out_at_the_commit() {
    let fixture = Fixture::new();
    let pool = new_pool(&fixture).await;
    for sql in ["commit", "rollback", "reset all", "rollback; begin", "commit; begin; select 1", "commit and chain"] {
        let mut tx = lend(&pool, AccessMode::Write).await;
        tx.execute(sql).await.unwrap();
        tx.execute("insert into t (v) values ('outside')").await.unwrap();
        let error = tx.commit().await.unwrap_err();
        let told = error.message().contains("has ended the transaction");
        assert_eq!((error.kind(), told), (ErrorKind::Closed, true), "{sql}: {error}");
        tx_cleanup(&fixture, &pool).await;
    }
    let mut tx = lend(&pool, AccessMode::Write).await;
    tx.execute("commit").await.unwrap();
    drop(tx);
    assert_eq!(litter_found(&fixture, &pool).await, []);
    fixture.settles().await;
}

/// SQL without a transaction commits at once; removes what the statement has left.
async fn tx_cleanup(fixture: &Fixture, pool: &Pool) {
    assert_eq!(litter_found(fixture, pool).await, []);
    let mut tx = lend(pool, AccessMode::Write).await;
    sqlx::query("delete from t where v = 'outside'").execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_commit_after_the_time_limit_and_a_broken_constraint_are_refused() {
    let fixture = Fixture::new();
    let pool = new_pool(&fixture).await;
    let mut late = pool.lend_sqlx(AccessMode::Write, limits(1_000, 50)).await.unwrap();
    late.execute("delete from t").await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(late.commit().await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    let mut tx = lend(&pool, AccessMode::Write).await;
    tx.execute("insert into t (v) values ('one')").await.unwrap_err();
    assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    fixture.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_borrowers_future_may_be_dropped_anywhere() {
    let fixture = Fixture::budget(3);
    let pool = new_pool(&fixture).await;
    for polls in 1..40 {
        let work = async {
            let mut tx = lend(&pool, AccessMode::Write).await;
            tx.execute("set my.secret = 'left behind'").await.unwrap();
            sqlx::query("update t set v = v || '!'").execute(&mut *tx).await.unwrap();
            let mut inner = tx.begin().await.unwrap();
            sqlx::query("select generate_series(1, 20000)").fetch_all(&mut *inner).await.unwrap();
            inner.commit().await.unwrap();
            std::future::pending::<()>().await;
        };
        assert!(!give_up_after(polls / 2, work).await);
        assert_eq!(litter_found(&fixture, &pool).await, [], "{polls}");
    }
    assert_eq!(cell(&pool, "select v from t").await, SqlValue::Text("one".to_owned()));
    fixture.settles().await;
}

#[tokio::test]
async fn a_server_that_falls_silent_ends_a_rollback_in_an_error() {
    let fixture = Fixture::new();
    let pool = new_pool(&fixture).await;
    let tx = lend(&pool, AccessMode::Write).await;
    fixture.cluster.freeze();
    let error = tx.rollback().await.unwrap_err();
    fixture.cluster.thaw();
    assert_eq!(error.kind(), ErrorKind::ServerUnreachable, "{error}");
}

#[tokio::test]
async fn a_login_that_may_not_write_gets_no_writing_transaction() {
    let fixture = Fixture::new();
    let pool = new_pool(&fixture).await;
    drop(lend(&pool, AccessMode::Write).await);
    // A fence takes this role from the login before it ends the sessions.
    fixture.cluster.psql("postgres", "create role fleet_write");
    let error = pool.lend_sqlx(AccessMode::Write, SessionLimits::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    drop(lend(&pool, AccessMode::Read).await);
}

#[tokio::test]
async fn a_lent_transaction_begins_only_on_the_expected_database() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let pool = fixture.pool(&tenant).await;
    drop(lend(&pool, AccessMode::Write).await);
    fixture.cluster.psql(tenant.database(), "update _fleet_identity set generation = 9");
    // A change of the identity ends the sessions, as a fence does.
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where usename like 't\\_%'";
    fixture.cluster.psql("postgres", end);
    let error = pool.lend_sqlx(AccessMode::Write, SessionLimits::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
}
