//! What a tenant's SQL may and may not do, and that nothing of it is left on the connection.

use tenant_engine::{AccessMode, AfterStatements, ErrorKind, Pool, SessionLimits, SqlValue};

use super::fixture::{Fixture, cell, keep, read, statement, write};

async fn refused(pool: &Pool, sql: &str) {
    for access in [AccessMode::Read, AccessMode::Write] {
        let mut session = pool.new_session(access, SessionLimits::default());
        let error = session.run_statements(vec![statement(sql)], AfterStatements::Commit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SqlForbidden, "{sql}: {error}");
    }
}

#[tokio::test]
async fn queries_and_dml_are_allowed() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    for sql in [
        "select 1",
        " \n select 1 ; -- done",
        "select 'a;b'",
        "/* first; /* nested */ */ select 1",
        "(select 1)",
        "(with x as (select 1) select * from x)",
        "values (1), (2)",
        "table t",
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 10) select sum(i) from n",
        "select $$set_config('a', 'b', false)$$, $x$ ; commit $x$, E'\\'; commit'",
        "select 1 as \"a \"\" b\", 2 as \"select into\"",
        "explain select * from t",
        "explain (analyze, buffers off) select * from t",
        "explain analyze verbose select * from t",
        "explain (select 1)",
        "select generation, state from _fleet_identity",
        "select pg_sleep(0)",
        "select id from t order by id limit 1",
        "select jsonb_build_object('a', 1)->>'a', now() is null, gen_random_uuid() is null",
    ] {
        read(&pool, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    for sql in [
        "insert into t(id, v) values (7, 'seven')",
        "insert into t(id, v) values (7, 'seven') on conflict do nothing",
        "update t set v = 'x' where id = 7",
        "merge into t using (values (8)) s(i) on t.id = s.i when not matched then insert (id, v) values (8, 'eight')",
        "delete from t where id = 7",
        "select * from t for update",
    ] {
        write(&pool, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// What is neither a query nor a change of rows, or reaches beyond the tenant.
const ELSE: &[&str] = &[
    "begin",
    "commit",
    "rollback",
    "savepoint a",
    "abort",
    "end",
    "start transaction",
    "prepare transaction 'x'",
    "set search_path = x",
    "reset all",
    "show all",
    "discard all",
    "listen x",
    "notify x",
    "unlisten *",
    "copy t to stdout",
    "do $$begin end$$",
    "call p()",
    "prepare p as select 1",
    "execute p",
    "deallocate all",
    "declare c cursor for select 1",
    "fetch 1 from c",
    "close c",
    "lock t",
    "vacuum",
    "analyze",
    "cluster",
    "create table x(a int)",
    "create temp table x(a int)",
    "alter table t add x int",
    "drop table t",
    "truncate t",
    "grant select on t to public",
    "revoke all on t from public",
    "comment on table t is 'x'",
    "select 1 into x",
    "select * into temp x from t",
    "with a as (select 1) select * into x from a",
    "explain create table x as select 1",
    "explain execute p",
    "explain (analyze) declare c cursor for select 1",
    "security label on table t is 'x'",
    "load 'x'",
    "checkpoint",
    "reindex table t",
    "refresh materialized view v",
    "select set_config('a.b', 'c', false)",
    "select pg_catalog.set_config('a.b', 'c', false)",
    "select \"set_config\"('a.b', 'c', false)",
    "select pg_catalog . \"set_config\" /* x */ ('a.b', 'c', false)",
    "select SET_Config\n('a.b', 'c', false)",
    "select U&\"\\0073et_config\"('a.b', 'c', false)",
    "select u&\"!0073et_config\" uescape '!' ('a.b', 'c', false)",
    "select E'a'\n'\\'', set_config('a.b', 'c', false) --'",
    "select E'a' -- x\n '\\'', set_config('a.b', 'c', false) --'",
    "select '\\', set_config('a.b', 'c', false) --'",
    "select $a$ $b$ $a$, set_config('a.b', 'c', false) --$b$",
    "update pg_settings set setting = '1s' where name = 'statement_timeout'",
    "select * from pg_catalog.\"pg_settings\"",
    "select pg_advisory_lock(1)",
    "select pg_try_advisory_lock(1)",
    "select pg_advisory_unlock_all()",
    "select pg_terminate_backend(1)",
    "select pg_cancel_backend(1)",
    "select pg_notify('a', 'b')",
    "select query_to_xml('select 1', true, true, '')",
    "select database_to_xml(true, true, '')",
    "select cursor_to_xml('c', 1, true, true, '')",
    "select * from dblink('x', 'y')",
    "select * from ts_stat('select 1')",
    "select ts_rewrite('a'::tsquery, 'select 1')",
    "select lo_import('/etc/passwd')",
    "select pg_read_file('x')",
    "select pg_ls_dir('.')",
    "select pg_stat_file('x')",
    "select pg_advisory_xact_lock(1)",
    "select lo_from_bytea(0, 'x')",
    "select datname from pg_database",
    "select * from pg_catalog.pg_stat_activity",
    "select rolname from \"pg_roles\"",
    "insert into t select 9, set_config('a.b', 'c', false)",
    "select pg_describe_object(1262, 5, 0)",
    "select pg_catalog.\"pg_describe_object\"(1262, 5, 0)",
    "select PG_Describe_Object /* x */ (1262, 5, 0)",
    "select U&\"pg\\005fdescribe_object\"(1262, 5, 0)",
    "select * from pg_identify_object(1262, 5, 0)",
    "select * from pg_identify_object_as_address(1262, 5, 0)",
    "select pg_get_userbyid(10)",
    "select 10::regrole",
    "select cast(10 as pg_catalog.regrole)",
    "select \"regrole\" '10'",
    "select array[10]::regrole[]",
    "select '{10}'::_regrole",
    "select to_regrole('fleet')",
    "select regroleout(10)",
    "select * from jsonb_to_record('{}') as x(a regrole)",
    "select * from pg_lock_status()",
    "select pg_blocking_pids(1)",
    "select * from pg_prepared_xact()",
    "select pg_stat_get_activity(null)",
    "select pg_stat_get_db_numbackends(5)",
    "select pg_database_size('postgres')",
    "select has_database_privilege('postgres', 'connect')",
    "select pg_has_role('fleet', 'usage')",
    "select shobj_description(5, 'pg_database')",
    "select aclexplode(relacl) from pg_class",
    "select makeaclitem(10, 10, 'select', false)",
    "select relacl::aclitem[] from pg_class",
    "select pg_tablespace_databases(1663)",
    "select pg_relation_filepath('t')",
    "select * from pg_show_replication_origin_status()",
    "select * from pg_get_replication_slots()",
    "select pg_current_wal_lsn()",
    "select pg_last_committed_xact()",
    "select * from pg_control_system()",
    "select pg_postmaster_start_time()",
    "select * from pg_parameter_acl",
];

/// A function of the server by any of these words is about more than one database.
const SERVER_WORDS: &str = "(lock_status|userbyid|describe_object|identify_object|has_role|_privilege|regrole|regdatabase|\
    ^acl|stat_get|pg_database|tablespace|replication|_wal|backup|prepared_xact|blocking|ls_|read_file|read_binary|\
    shobj|multixact|control_|hba_|ident_file|postmaster|backend_mem|shmem|advisory|terminate|cancel_backend)";

/// Functions of other words that only a superuser may call, or that look at the tenant's own database.
const HARMLESS: &str = "(^pg_stat_get_snapshot|^pg_wal_lsn_diff$|_send$|_recv$)";

#[tokio::test]
async fn no_function_of_the_server_tells_of_other_tenants() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let question = format!(
        "select distinct proname from pg_proc where pronamespace = 'pg_catalog'::regnamespace and proname ~ '{SERVER_WORDS}'
         and proname !~ '{HARMLESS}' and has_function_privilege('fleet', oid, 'execute') order by 1"
    );
    let functions = fixture.cluster.psql("postgres", &question);
    assert!(functions.lines().count() > 150, "{functions}");
    let mut allowed = Vec::new();
    for function in functions.lines() {
        let sql = format!("select pg_catalog.\"{function}\"()");
        let error = read(&pool, &sql).await.unwrap_err();
        if error.kind() != ErrorKind::SqlForbidden {
            allowed.push(function);
        }
    }
    assert!(allowed.is_empty(), "{allowed:?}");
}

#[tokio::test]
async fn everything_else_is_refused() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    for sql in ELSE {
        refused(&pool, sql).await;
    }
    for sql in ["", " ; ", "-- nothing", "/* nothing", "(", "with x as (select 1)", "selec 1\0"] {
        let error = read(&pool, sql).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::SqlInvalid | ErrorKind::SqlForbidden), "{sql}: {error}");
    }
    let error = read(&pool, "select 1; select 2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SqlInvalid, "{error}");
    // What was refused before it was sent cost nobody a connection.
    assert_eq!(pool.connection_count(), 1);
}

#[tokio::test]
async fn a_refusal_ends_the_transaction_it_is_in() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
    keep(&mut session, "insert into t values(2, 'two')").await.unwrap();
    assert_eq!(keep(&mut session, "commit").await.unwrap_err().kind(), ErrorKind::SqlForbidden);
    assert_eq!(session.commit().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    fixture.settles().await;
}

#[tokio::test]
async fn nothing_is_left_on_a_connection() {
    let fixture = Fixture::budget(2);
    let pool = fixture.pool(&fixture.tenant().await).await;
    let state = "select array_to_string(array(select name || '=' || setting from pg_show_all_settings() a \
        where name not like '%timestamp%' order by name), ' ') \
        || (select count(*) from pg_cursors) || (select count(*) from pg_listening_channels()) \
        || (select count(*) from pg_class where relpersistence = 't') || pg_backend_pid()";
    let before = cell(&pool, state).await;
    for sql in [
        "select set_config('a.b', 'c', false)",
        "update pg_settings set setting = '1' where name = 'work_mem'",
        "select pg_advisory_lock(1)",
        "select 1 into temp x",
        "listen x",
        "declare c cursor with hold for select 1",
        "select pg_advisory_xact_lock(1)",
        "select * from nowhere",
        "select 1 / 0",
    ] {
        let _ = read(&pool, sql).await;
    }
    let mut session = pool.new_session(AccessMode::Read, SessionLimits::default());
    keep(&mut session, "select 1").await.unwrap();
    keep(&mut session, "select nowhere").await.unwrap_err();
    assert_eq!(cell(&pool, state).await, before);
}

#[tokio::test]
async fn one_tenants_login_cannot_enter_another_tenants_database() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.tenant().await, fixture.tenant().await);
    let (a, b) = (one.database(), two.database());
    let entered = format!(
        "select has_database_privilege('{a}_r', '{b}', 'connect') or has_database_privilege('{a}_w', '{b}', 'connect')"
    );
    assert_eq!(fixture.cluster.psql("postgres", &entered), "f");
    let pool = fixture.pool(&one).await;
    assert_eq!(cell(&pool, "select current_database()::text").await, a.into());
}
