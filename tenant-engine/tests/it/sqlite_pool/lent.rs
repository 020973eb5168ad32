//! Code of an application that uses `rusqlite` in a tenant's transaction: the same rules as for all tenant SQL.

use rusqlite::params;
use tenant_engine::sqlite::{RusqliteTx, from_rusqlite};
use tenant_engine::{AccessMode, ErrorKind, Pool, Result, SessionLimits, SqlValue};

use super::fixture::{Fixture, cell, limits};

async fn run<T: Send + 'static>(
    pool: &Pool,
    access: AccessMode,
    work: impl FnOnce(&RusqliteTx<'_>) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T> {
    pool.with_rusqlite(access, SessionLimits::default(), |tx| work(tx).map_err(from_rusqlite)).await
}

#[tokio::test]
async fn statements_rows_and_parameters_are_those_of_rusqlite() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let added = run(&pool, AccessMode::Write, |tx| {
        assert_eq!(tx.execute("insert into t (v) values (?1)", params!["two"])?, 1);
        assert_eq!((tx.last_insert_rowid(), tx.changes()), (2, 1));
        tx.execute_batch("insert into t (v) values ('three'); update t set v = v || '!' where id = 1;")?;
        let mut statement = tx.prepare("select v from t where id >= :from order by id")?;
        let values = statement.query_map(&[(":from", &1)], |row| row.get::<_, String>(0))?;
        values.collect::<rusqlite::Result<Vec<_>>>()
    });
    assert_eq!(added.await.unwrap(), ["one!", "two", "three"]);
    let count =
        run(&pool, AccessMode::Read, |tx| tx.query_row("select count(*) from t", [], |row| row.get::<_, i64>(0)));
    assert_eq!(count.await.unwrap(), 3);
}

#[tokio::test]
async fn an_error_rolls_back() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let failed = run(&pool, AccessMode::Write, |tx| {
        tx.execute("delete from t", [])?;
        tx.execute("insert into t (v) values ('two'), ('two')", [])
    });
    assert_eq!(failed.await.unwrap_err().kind(), ErrorKind::Constraint);
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
}

#[tokio::test]
async fn the_sandbox_holds_for_lent_transactions() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    for (sql, kind) in [
        ("attach database '/tmp/other.db' as other", ErrorKind::SqlForbidden),
        ("commit", ErrorKind::SqlForbidden),
        ("savepoint s", ErrorKind::SqlForbidden),
        ("drop table t", ErrorKind::SqlForbidden),
        ("create temp table s (secret text)", ErrorKind::SqlForbidden),
        ("pragma query_only = off", ErrorKind::SqlForbidden),
        ("pragma database_list", ErrorKind::SqlForbidden),
        ("update _fleet_identity set generation = 9", ErrorKind::SqlForbidden),
        ("select load_extension('x')", ErrorKind::SqlForbidden),
        ("/*fleet*/ commit", ErrorKind::SqlForbidden),
        ("selekt", ErrorKind::SqlInvalid),
        ("select 1; select 2", ErrorKind::SqlInvalid),
    ] {
        let prepared = run(&pool, AccessMode::Write, move |tx| tx.prepare(sql).map(drop)).await.unwrap_err();
        assert_eq!(prepared.kind(), kind, "{sql}: {prepared}");
        let batch = run(&pool, AccessMode::Write, move |tx| tx.execute_batch(&format!("select 1; {sql}"))).await;
        assert!(batch.is_err() || sql.starts_with("select 1"), "{sql}");
    }
    let written = run(&pool, AccessMode::Read, |tx| tx.execute("delete from t", [])).await.unwrap_err();
    assert_eq!(written.kind(), ErrorKind::ReadOnlyTransaction);
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
}

#[tokio::test]
async fn a_lent_transaction_ends_at_its_deadline_and_keeps_the_limit_on_values() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
    let late = pool.with_rusqlite(AccessMode::Read, limits(100, 100), move |tx| {
        tx.query_row(endless, [], |_| Ok(())).map_err(from_rusqlite)
    });
    assert_eq!(late.await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    let large = run(&pool, AccessMode::Read, |tx| tx.query_row("select zeroblob(2000000)", [], |_| Ok(())));
    assert_eq!(large.await.unwrap_err().kind(), ErrorKind::BytesMax);
    let small = SessionLimits { value_bytes_max: 100, ..SessionLimits::default() };
    let refused = pool.with_rusqlite(AccessMode::Read, small, |tx| {
        tx.query_row("select zeroblob(200)", [], |_| Ok(())).map_err(from_rusqlite)
    });
    assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::BytesMax);
    assert_eq!(cell(&pool, "select length(zeroblob(200))").await, SqlValue::Integer(200), "the limit is back");
}

#[tokio::test]
async fn sqlx_is_refused_on_a_file_and_says_what_to_use() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let error = pool.lend_sqlx(AccessMode::Read, SessionLimits::default()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::OtherEngine, "the tenant's database is SQLite: use rusqlite")
    );
}
