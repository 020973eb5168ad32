//! Errors of the caller's own statement, whatever state they carry: the caller reads the words, nothing is repeated, and
//! the connection lives.

use tenant_engine::{AccessMode, ErrorKind, Pool, SessionLimits, SqlValue};

use super::fixture::{Fixture, cell, keep, one, write};

/// States that mean trouble of the server when the server itself says them, states of other classes, and invented ones.
const STATES: [&str; 40] = [
    "57P01", "57P02", "57P03", "57P04", "57P05", "57014", "53300", "53100", "53200", "53400", "53000", "XX000",
    "XX001", "XX002", "28P01", "28000", "08000", "08006", "08P01", "3D000", "58030", "58P01", "55P03", "55006",
    "55000", "54000", "54001", "40001", "40P01", "25006", "25P02", "25P03", "25P04", "3F000", "0A000", "F0000",
    "HV000", "72000", "42P04", "ABCDE",
];

/// Counts its calls outside of any transaction, then raises.
const RAISES: &str = "create sequence calls;
    create function fails(state text) returns int language plpgsql as $$
        begin
            perform nextval('calls');
            raise exception 'the author''s words' using errcode = state;
        end $$;
    create function fails_later() returns trigger language plpgsql as $$ begin perform fails(new.v); return new; end $$;
    create table watched(v text);
    create trigger watch before insert on watched for each row execute function fails_later();
    grant usage, select on sequence calls to public;
    grant select, insert on watched to public;";

async fn with_functions(fixture: &Fixture) -> Pool {
    let tenant = fixture.tenant().await;
    fixture.cluster.psql(tenant.database(), RAISES);
    fixture.pool(&tenant).await
}

fn is_callers_own(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::SqlInvalid | ErrorKind::SqlTooComplex | ErrorKind::BytesMax)
}

async fn calls(pool: &Pool) -> SqlValue {
    cell(pool, "select last_value from calls").await
}

#[tokio::test]
async fn a_raised_state_is_the_statement_s_own_fault_and_nothing_is_repeated() {
    let fixture = Fixture::new();
    let pool = with_functions(&fixture).await;
    let process = one(&pool, AccessMode::Write, "select pg_backend_pid()", vec![]).await.unwrap().rows;
    let mut count = 0;
    for state in STATES {
        for sql in ["select fails($1)", "insert into watched values ($1)"] {
            let error = one(&pool, AccessMode::Write, sql, vec![state.into()]).await.unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::SqlInvalid, "the author's words"), "{state} {sql}");
            count += 1;
        }
        let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
        keep(&mut session, "insert into t values (2, 'undone')").await.unwrap();
        let error = keep(&mut session, &format!("select fails('{state}')")).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::SqlInvalid, "the author's words"), "{state}");
        count += 1;
        assert_eq!(calls(&pool).await, SqlValue::Integer(count), "{state}: it ran once");
    }
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    assert_eq!(one(&pool, AccessMode::Write, "select pg_backend_pid()", vec![]).await.unwrap().rows, process);
    fixture.settles().await;
}

#[tokio::test]
async fn a_function_that_ends_its_own_session_is_no_outage() {
    let fixture = Fixture::new();
    let pool = with_functions(&fixture).await;
    let ends = "select set_config('exit_on_error', 'on', false)";
    for state in ["57P01", "53300", "XX001", "28P01", "57P03"] {
        let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
        if let Err(error) = keep(&mut session, ends).await {
            assert_eq!(error.kind(), ErrorKind::SqlForbidden, "{error}");
        }
        let error = keep(&mut session, &format!("select fails('{state}')")).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::SqlInvalid | ErrorKind::Closed), "{state}: {error}");
    }
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
}

#[tokio::test]
async fn classes_keep_what_the_author_means_by_them() {
    let fixture = Fixture::new();
    let pool = with_functions(&fixture).await;
    for (state, kind) in [
        ("23505", ErrorKind::Constraint),
        ("23514", ErrorKind::Constraint),
        ("44000", ErrorKind::Constraint),
        ("42501", ErrorKind::SqlForbidden),
        ("P0001", ErrorKind::SqlInvalid),
        ("22012", ErrorKind::SqlInvalid),
    ] {
        let error = one(&pool, AccessMode::Write, "select fails($1)", vec![state.into()]).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (kind, "the author's words"), "{state}");
    }
}

#[tokio::test]
async fn limits_and_missing_preconditions_are_the_statement_s_own_fault() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let more = "create table wide(v text); create index on wide(v);
        create materialized view empty as select 1 as a with no data;
        create function endless(n int) returns int language plpgsql as $$ begin return endless(n + 1); end $$;
        grant all on all tables in schema public to public;";
    fixture.cluster.psql(tenant.database(), more);
    let pool = fixture.pool(&tenant).await;
    let large = "(select string_agg(md5(i::text), '') from generate_series(1, 1000) i)";
    for sql in [
        &format!("insert into wide select {large}"),
        "select endless(1)",
        "select repeat('x', 1200000000)",
        "select length(array_fill(1, array[200000000])::text)",
        "select lastval()",
        "select currval('t_id_seq')",
        "select a from empty",
        "select nowhere.nothing()",
        "select 1 / 0",
        "select * from t offset -1",
        "select length(to_tsvector(string_agg(md5(i::text), ' '))) from generate_series(1, 60000) i",
    ] {
        let error = write(&pool, sql).await.unwrap_err();
        let state = format!("{sql}: {:?} {error}", error.kind());
        assert!(is_callers_own(error.kind()) && !error.kind().is_transient() && !error.message().is_empty(), "{state}");
    }
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    fixture.settles().await;
}
