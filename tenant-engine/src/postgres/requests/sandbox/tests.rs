//! Tests the check of words against every function and relation of PostgreSQL 15 to 18.

use super::*;

const FUNCTIONS: &str = include_str!("../../../../tests/fixtures/postgres_functions.txt");
const RELATIONS: &str = include_str!("../../../../tests/fixtures/postgres_relations.txt");

/// Each line has the form (allowed, versions, name).
fn lines(fixture: &'static str) -> impl Iterator<Item = (bool, &'static str, &'static str)> {
    fixture.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (head, name) = line.split_once(' ').unwrap();
        (head.starts_with('+'), &head[1..], name)
    })
}

fn allows(sql: &str) -> bool {
    match check_statement(sql) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::SqlForbidden, "{sql}: {error}");
            false
        }
    }
}

#[test]
fn every_function_of_each_version_is_judged() {
    let mut counts = [[0; 2]; 4];
    for (allowed, versions, name) in lines(FUNCTIONS) {
        for sql in [
            format!("select {name}()"),
            format!("select pg_catalog . \"{name}\" (1)"),
            format!("select * from t, {} /* x */ (2) f", name.to_uppercase()),
            format!("insert into t select {name}(3)"),
            format!("insert into t(a) select 1 from {name}('x')"),
        ] {
            assert_eq!(allows(&sql), allowed, "{sql}");
        }
        for version in versions.bytes() {
            counts[usize::from(version - b'5')][usize::from(allowed)] += 1;
        }
    }
    // Refused and allowed names of versions 15 to 18.
    assert_eq!(counts, [[384, 2262], [394, 2300], [402, 2317], [424, 2363]]);
}

#[test]
fn every_relation_of_each_version_is_judged() {
    for (allowed, _, name) in lines(RELATIONS) {
        for sql in [
            format!("select * from {name}"),
            format!("select 1 from t, pg_catalog.{name} x"),
            format!("select 1 from t join \"{name}\" on true"),
            format!("table {name}"),
            format!("select null::{name}"),
            format!("update {name} set a = 1"),
        ] {
            assert_eq!(allows(&sql), allowed, "{sql}");
        }
    }
}

#[test]
fn what_a_later_version_adds_is_refused_until_it_is_judged() {
    for sql in [
        "select pg_new_function()",
        "select pg_catalog.pg_new_function()",
        "select has_new_privilege('x')",
        "select to_regrolename('x')",
        "select binary_upgrade_new()",
        "select * from pg_new_view",
        "select * from t, pg_new_view",
        "select * from t left join pg_new_view on true",
        "select pg_catalog.pg_new_view from t",
        "table pg_new_view",
        "insert into pg_new_view values (1)",
        "update pg_new_view set a = 1",
        "delete from only pg_new_view",
        "select 1 from t where exists (select 1 from pg_new_view)",
        "select 1::regdatabase",
        "select * from pg_stat_new",
    ] {
        assert!(!allows(sql), "{sql}");
    }
}

/// A value may be read as a type known by its number only, or a text may be run as SQL.
#[test]
fn what_hides_a_type_or_a_statement_is_refused() {
    for sql in [
        "select array_in('{10}', 4096, -1)",
        "select pg_catalog.array_in('{10}', 4096, -1)::text",
        "select record_in('(10)', 1248, -1)",
        "select domain_in('10', 99999, -1)",
        "select range_in('[10,11)', 99999, -1)",
        "select multirange_in('{[10,11)}', 99999, -1)",
        "select histogram_bounds from pg_stats where tablename = 'pg_database'",
        "select stavalues1 from pg_statistic",
        "select pgr_dijkstra('select 1', 1, 2)",
        "insert into t select query_to_xml('select 1', true, true, '')",
        "update t set a = pg_get_userbyid(10)",
        "insert into t values (pg_get_userbyid(10))",
        "merge into t using s on pg_get_userbyid(10) is null when matched then delete",
    ] {
        assert!(!allows(sql), "{sql}");
    }
}

#[test]
fn names_of_an_application_are_its_own() {
    for sql in [
        "select pg_rating, m.pg_rating from movies m where pg_rating = 'PG-13' order by pg_rating",
        "insert into pgbooks.time_in (a) values (1)",
        "insert into lo_put (a, b) values (1, 2)",
        "insert into public.ts_stat (a) values (1)",
        "update t set (a, b) = (1, 2), pg_rating = 3",
        "with acl_entries (a) as (select 1) select * from acl_entries",
        "insert into lo_orders(a) select lo_orders_total(1)",
        "select has_items(1), aclx(2), regress(3), to_registry(4)",
        "select * from t tablesample system (10), u tablesample bernoulli (10)",
    ] {
        assert!(allows(sql), "{sql}");
    }
}
