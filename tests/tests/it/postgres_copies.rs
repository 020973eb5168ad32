//! A schema that is hard to restore goes through everything that makes a copy: backup, verify, restore, clone, move,
//! archive and adopt. And one that no server can restore is told at its first backup.

use fleet_tests::postgres::{PostgresFleet, SERVER};

/// Functions that name tables without a schema, in a check, an index, a generated column and a materialized view; columns
/// that a restore orders anew; a publication.
const HARD: &str = "create table box(id int primary key); insert into box values (1), (2);
    create function known(i int) returns boolean language sql stable as $$ select exists(select from box where id = i) $$;
    create table a_ref(t int check (known(t)), gone int, other text); alter table a_ref drop column gone;
    insert into a_ref values (1, 'one'), (2, 'two');
    create function one() returns int language sql immutable as 'select 1';
    create function plus(i int) returns int language sql immutable as 'select one() + i';
    create table gen(i int, j int generated always as (plus(i)) stored); insert into gen values (41);
    create index on gen (plus(i));
    create materialized view z as select count(*) as n from box;
    create function boxes() returns bigint language sql stable as 'select n from z';
    create materialized view a as select boxes() as n;
    create table child(x int) inherits (a_ref); alter table a_ref add column late text default 'late';
    insert into child values (2, 'c', 3);
    create publication sent for table box;";

const SEEN: &str =
    "select (select string_agg(t || other || late, ',' order by t, other) from a_ref) || (select j from gen)
    || (select n from a) || (select pubname from pg_publication)";

/// The release of the example with one more version for Postgres.
fn migrate(pg: &PostgresFleet, sql: &str) {
    for (engine, more) in [("sqlite", "create table more (id integer primary key);"), ("postgres", sql)] {
        let folder = pg.fleet.dir().join("app").join(engine);
        std::fs::create_dir_all(&folder).unwrap();
        let from = fleet_tests::workspace_root().join(format!("migrations/example/{engine}/0001_tasks.sql"));
        std::fs::copy(from, folder.join("0001_tasks.sql")).unwrap();
        std::fs::write(folder.join("0002_more.sql"), more).unwrap();
    }
    pg.fleet.ok(&["migrate", "run", "app", "--all"]);
}

#[test]
fn a_schema_that_is_hard_to_restore_survives_every_kind_of_copy() {
    let pg = PostgresFleet::with_tenants(&["acme"]);
    migrate(&pg, HARD);
    let seen = pg.cluster.psql(&pg.database("acme"), SEEN);
    assert_eq!(seen, "1onelate,2clate,2twolate422sent");
    pg.fleet.ok(&["backup", "run", "acme"]);
    let listed = pg.fleet.json(&["backup", "list", "acme"]);
    assert!(listed["items"][0]["verified_at"].is_string(), "the first one is verified by itself: {listed}");
    pg.fleet.ok(&["backup", "verify", "acme"]);
    pg.fleet.ok(&["restore", "run", "acme", "--to", "latest", "--as", "restored"]);
    pg.fleet.ok(&["tenant", "clone", "acme", "cloned"]);
    pg.fleet.ok(&["tenant", "archive", "cloned", "--yes"]);
    pg.fleet.ok(&["tenant", "unarchive", "cloned"]);
    for tenant in ["restored", "cloned"] {
        assert_eq!(pg.cluster.psql(&pg.database(tenant), SEEN), seen, "{tenant}");
    }
    pg.cluster.psql("postgres", "create database outside owner fleet");
    pg.cluster.psql("outside", &format!("set role fleet; {HARD}"));
    let dsn = pg.dsn_file("outside.dsn", &pg.cluster.dsn("outside"));
    pg.fleet.ok(&["tenant", "adopt", "adopted", "--dsn-file", &dsn, "--server", SERVER]);
    assert_eq!(pg.cluster.psql(&pg.database("adopted"), SEEN), seen);
    let other = pg.add_other("pg2");
    pg.fleet.ok(&["tenant", "move", "acme", "--to", "pg2"]);
    let moved = other.psql("postgres", "select datname from pg_database where datname like 't\\_%'");
    assert_eq!(other.psql(&moved, SEEN), seen);
}

#[test]
fn a_tenant_that_cannot_be_restored_is_told_at_its_first_backup() {
    let pg = PostgresFleet::with_tenants(&["acme"]);
    migrate(
        &pg,
        "create table clock(now int); insert into clock values (1);
         create function fails(i int) returns int language plpgsql immutable as
           $$ begin if (select now from clock) > 1 then raise 'too late'; end if; return i; end $$;
         create table early(i int); create index early_index on early (fails(i)); insert into early values (1);
         update clock set now = 2;",
    );
    let output = pg.fleet.run(&["backup", "run", "acme"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}");
    for part in ["not_restorable", "early_index", "too late"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let listed = pg.fleet.json(&["backup", "list", "acme"]);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "it is kept, as what there is: {listed}");
    assert!(listed["items"][0]["verify_error"].as_str().unwrap().contains("early_index"), "{listed}");
    assert_eq!(pg.databases().len(), 1, "nothing half-made is left");
}

/// Filling the materialized view of a copy adds a row to another table: a copy that is not equal.
const UNEQUAL: &str = "create table log(what text);
    create function noted() returns int language plpgsql as $$ begin insert into log values ('seen'); return 1; end $$;
    create materialized view once as select noted() as n; insert into log values ('secret');";

#[test]
fn rows_that_a_restore_changes_are_found_by_everything_that_makes_a_copy() {
    let pg = PostgresFleet::with_tenants(&["acme"]);
    migrate(&pg, UNEQUAL);
    let refused = |arguments: &[&str]| {
        let output = pg.fleet.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{arguments:?}: {text}");
        for part in ["copy_differs", "public.log has 2 rows here and 3 there"] {
            assert!(text.contains(part), "{arguments:?} {part}: {text}");
        }
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(pg.databases().len(), 1, "{arguments:?}: nothing half-made is left");
    };
    refused(&["backup", "run", "acme"]);
    refused(&["backup", "verify", "acme"]);
    refused(&["restore", "run", "acme", "--to", "latest", "--yes"]);
    refused(&["restore", "run", "acme", "--to", "latest", "--as", "restored"]);
    refused(&["tenant", "clone", "acme", "cloned"]);
    refused(&["tenant", "archive", "acme", "--yes"]);
    let _other = pg.add_other("pg2");
    refused(&["tenant", "move", "acme", "--to", "pg2"]);
    // The tenant serves where it was, and its newest backup is no good one.
    pg.fleet.ok(&["query", "select count(*) from log", "acme"]);
    let listed = pg.fleet.json(&["backup", "list", "acme"]);
    assert!(listed["items"][0]["verify_error"].as_str().unwrap().contains("public.log"), "{listed}");
}
