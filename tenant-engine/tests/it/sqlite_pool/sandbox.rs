//! What a tenant's SQL may and may not do.

use tenant_engine::{AccessMode, ErrorKind, Pool, SqlValue};

use super::fixture::{Fixture, Tenant, cell, one, read, write};

const SCHEMA: &str = "
    create table parent(id integer primary key, name text);
    create table child(id integer primary key, parent references parent(id) on delete cascade);
    create table log(id integer primary key autoincrement, what text);
    create trigger parent_added after insert on parent begin insert into log(what) values('added ' || new.name); end;
    create trigger parent_refused before insert on parent when new.name = 'bad'
      begin select raise(rollback, 'bad names are refused'); end;
    create view names as select name from parent;
    create virtual table docs using fts5(body);
    create virtual table boxes using rtree(id, x0, x1);
    create table stats(id integer primary key, n int, doubled int generated always as (n * 2));
    create index parent_name on parent(name);
    insert into parent(name) values('first');
    analyze;";

async fn sandbox() -> (Fixture, Tenant, Pool) {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    tenant.raw().execute_batch(SCHEMA).unwrap();
    let pool = fixture.pool(&tenant).await;
    (fixture, tenant, pool)
}

const ALLOWED: [&str; 52] = [
    "select 1",
    " \n select 1 ; -- done",
    "select 'a;b'",
    "/* first; */ select 1;;",
    "select * from t",
    "select * from names",
    "select t.v, parent.name from t left join parent using (id) order by 1 limit 1",
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 10) select sum(i) from n",
    "select name, row_number() over (order by name) from parent",
    "select json_extract('{\"a\":1}', '$.a'), upper('x'), date('now'), hex(randomblob(4))",
    "select value from json_each('[1,2]')",
    "select name from sqlite_schema",
    "select name from sqlite_master where type = 'table'",
    "select * from sqlite_sequence",
    "select * from sqlite_stat1",
    "select generation, state from _fleet_identity",
    "select version from _sqlx_migrations",
    "explain select * from t",
    "explain query plan select * from t where id = 1",
    "explain insert into t values(9, 'nine')",
    "values (1), (2)",
    "pragma table_info(t)",
    "pragma table_info = t",
    "pragma main.table_xinfo('t')",
    "pragma table_list",
    "pragma table_list('t')",
    "pragma index_list(parent)",
    "pragma index_info(parent_name)",
    "pragma index_xinfo(parent_name)",
    "pragma foreign_key_list(child)",
    "pragma user_version",
    "PRAGMA USER_VERSION",
    "select name from pragma_table_info('t')",
    "insert into t values(2, 'two')",
    "insert into t(v) select name from parent",
    "insert into t values(2, 'zwei') on conflict(id) do update set v = excluded.v returning v",
    "replace into t values(3, 'three')",
    "update t set v = upper(v) where id = 2",
    "update t set v = p.name || t.id from parent p where p.id = 1",
    "insert into parent(name) values('second')",
    "insert into child(parent) values(1)",
    "delete from parent where id = 1",
    "insert into stats(n) values(21)",
    "select doubled from stats",
    "insert into docs values('the quick brown fox')",
    "select rowid from docs where docs match 'quick'",
    "update docs set body = 'a slow fox'",
    "delete from docs where docs match 'slow'",
    "insert into docs(docs) values('optimize')",
    "insert into boxes values(1, 0, 1)",
    "select id from boxes where x0 < 1",
    "delete from t",
];

#[tokio::test]
async fn what_applications_do_is_allowed() {
    let (_fixture, _tenant, pool) = sandbox().await;
    for sql in ALLOWED {
        if let Err(error) = write(&pool, sql).await {
            panic!("{sql}: {error}");
        }
    }
    // The trigger ran, the cascade too.
    assert_eq!(cell(&pool, "select count(*) from log where what = 'added second'").await, SqlValue::Integer(1));
    assert_eq!(cell(&pool, "select count(*) from child").await, SqlValue::Integer(0));
}

const FORBIDDEN: [&str; 59] = [
    "attach ':memory:' as other",
    "attach '/etc/passwd' as other",
    "detach main",
    "begin",
    "begin immediate",
    "commit",
    "end",
    "rollback",
    "savepoint s",
    "release s",
    "rollback to s",
    "create table u(a)",
    "create table u as select * from t",
    "create temp table u(a)",
    "create index i on t(v)",
    "create view w as select 1",
    "create temp view w as select 1",
    "create trigger x after insert on t begin select 1; end",
    "create temp trigger x after insert on t begin select 1; end",
    "create virtual table f using fts5(body)",
    "create virtual table temp.f using fts5vocab(main, docs, row)",
    "drop table t",
    "drop index parent_name",
    "drop view names",
    "drop trigger parent_added",
    "drop table docs",
    "alter table t add column w",
    "alter table t rename to u",
    "alter table t rename column v to w",
    "alter table log drop column what",
    "reindex",
    "analyze",
    "vacuum",
    "vacuum into '/tmp/stolen.db'",
    "insert into _fleet_identity select * from _fleet_identity",
    "update _fleet_identity set generation = 2",
    "UPDATE _FLEET_IDENTITY SET state = 'tombstone'",
    "delete from _fleet_identity",
    "delete from _sqlx_migrations",
    "insert into _sqlx_migrations values(9)",
    "update sqlite_schema set sql = ''",
    "delete from docs_data",
    "update boxes_node set data = x''",
    "delete from sqlite_sequence",
    "delete from sqlite_stat1",
    "select * from dbstat",
    "select load_extension('x')",
    "select fts3_tokenizer('simple')",
    "pragma journal_mode",
    "pragma journal_mode = delete",
    "pragma user_version = 5",
    "pragma foreign_keys = off",
    "pragma writable_schema = on",
    "pragma query_only = off",
    "pragma database_list",
    "pragma wal_checkpoint",
    "pragma synchronous = off",
    "select * from pragma_database_list",
    "/*fleet*/ commit",
];

#[tokio::test]
async fn what_is_not_listed_is_forbidden_and_does_nothing() {
    let (_fixture, tenant, pool) = sandbox().await;
    let before = dump(&tenant);
    for sql in FORBIDDEN {
        for access in [AccessMode::Read, AccessMode::Write] {
            let Err(error) = one(&pool, access, sql, Vec::new()).await else { panic!("allowed: {sql}") };
            // SQLite asks nobody about VACUUM; it fails because a transaction is always open.
            let kind = match access {
                AccessMode::Read if sql.starts_with("vacuum") => ErrorKind::ReadOnlyTransaction,
                _ => ErrorKind::SqlForbidden,
            };
            assert_eq!(error.kind(), kind, "{sql}: {error}");
            assert!(!error.message().is_empty(), "{sql}");
        }
    }
    assert_eq!(dump(&tenant), before);
    assert_eq!(cell(&pool, "select 1").await, SqlValue::Integer(1));
}

/// Everything the refused statements could have changed.
fn dump(tenant: &Tenant) -> Vec<String> {
    let db = tenant.raw();
    let mut all = Vec::new();
    for sql in [
        "select coalesce(sql, name) from sqlite_schema",
        "select generation || state from _fleet_identity",
        "select name || seq from sqlite_sequence",
        "select stat from sqlite_stat1",
        "select user_version from pragma_user_version",
        "select journal_mode from pragma_journal_mode",
    ] {
        let mut statement = db.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, rusqlite::types::Value>(0)).unwrap();
        all.extend(rows.map(|row| format!("{:?}", row.unwrap())));
    }
    all
}

const INVALID: [&str; 15] = [
    "",
    "   ",
    ";",
    "-- nothing",
    "/* nothing; */",
    "selec 1",
    "select * from nowhere",
    "select nothing from t",
    "select nofunction(1)",
    "select 1; select 2",
    "select 1; attach 'x' as y",
    "select 1; garbage",
    "insert into t values(7, 'x'); insert into t values(8, 'y')",
    "select 1\0; drop table t",
    "select 'unfinished",
];

#[tokio::test]
async fn bad_sql_is_invalid() {
    let (_fixture, _tenant, pool) = sandbox().await;
    for sql in INVALID {
        let Err(error) = write(&pool, sql).await else { panic!("allowed: {sql}") };
        assert_eq!(error.kind(), ErrorKind::SqlInvalid, "{sql}: {error}");
        let several = sql.starts_with("select 1;") || sql.starts_with("insert");
        assert_eq!(error.message().contains("more than one statement"), several, "{sql}: {error}");
    }
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
}

#[tokio::test]
async fn a_very_long_text_is_refused_and_costs_no_stack() {
    let (_fixture, _tenant, pool) = sandbox().await;
    for sql in ["select 1;".repeat(100_000), ";".repeat(900_000), format!("select '{}'", "x".repeat(100_000))] {
        assert_eq!(read(&pool, &sql).await.unwrap_err().kind(), ErrorKind::SqlTooComplex);
    }
    for sql in ["select 1;".repeat(10_000), ";".repeat(90_000), format!("select {}1", "-".repeat(90_000))] {
        assert_eq!(read(&pool, &sql).await.unwrap_err().kind(), ErrorKind::SqlInvalid);
    }
}

#[tokio::test]
async fn a_read_transaction_cannot_write() {
    let (_fixture, _tenant, pool) = sandbox().await;
    for sql in ["insert into t values(2, 'two')", "delete from t", "insert into docs values('x')"] {
        let error = read(&pool, sql).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnlyTransaction, "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_statement_that_rolls_back_ends_the_transaction() {
    let (_fixture, _tenant, pool) = sandbox().await;
    for bad in ["insert into parent(name) values('bad')", "insert or rollback into t values(1, 'again')"] {
        let failed = super::fixture::sqlite(&pool)
            .with_transaction(AccessMode::Write, Default::default(), move |tx| {
                tx.execute("insert into t values(5, 'five')", &[])?;
                assert_eq!(tx.execute(bad, &[]).unwrap_err().kind(), ErrorKind::Constraint);
                // Nothing may run outside the transaction that checked the identity.
                assert_eq!(tx.execute("insert into t values(6, 'six')", &[]).unwrap_err().kind(), ErrorKind::Closed);
                Ok(())
            })
            .await
            .unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Closed);
        assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    }
}
