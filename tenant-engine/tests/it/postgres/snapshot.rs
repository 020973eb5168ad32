//! Dumps and what they become again.

use tenant_engine::*;

use super::kit::{BASE, Kit, Tenant, base_and, engine, set};

async fn take(kit: &Kit, tenant: &Tenant) -> Snapshot {
    kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap()
}

fn clone_of(kit: &Kit, tenant: &Tenant) -> Tenant {
    kit.placed(Identity { tenant: TenantId::generate(), ..tenant.identity.clone() })
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_content_has_an_equal_hash_at_another_second() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    kit.ask(&tenant, "insert into projects select n, 'x' from generate_series(1, 500) n");
    let one = take(&kit, &tenant).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let two = take(&kit, &tenant).await;
    let bytes = |snapshot: &Snapshot| match &snapshot.image {
        SnapshotImage::Memory(bytes) => bytes.clone(),
        SnapshotImage::File(_) => panic!("it is small"),
    };
    assert_ne!(bytes(&one), bytes(&two), "the time differs, or zeroing it proves nothing");
    assert_eq!(one.info.content_hash, two.info.content_hash);
    kit.ask(&tenant, "insert into projects values (501, 'y')");
    assert_ne!(take(&kit, &tenant).await.info.content_hash, one.info.content_hash);
    assert!(one.info.engine_version.starts_with("pg_dump 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_one_goes_through_a_file() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    kit.ask(&tenant, "insert into projects select n, repeat(md5(n::text), 30) from generate_series(1, 12000) n");
    let taken = take(&kit, &tenant).await;
    assert!(matches!(taken.image, SnapshotImage::File(_)));
    let to = clone_of(&kit, &tenant);
    kit.engine.restore_database(&to.at, taken.image, tenant.identity.tenant, &to.identity).await.unwrap();
    let sum = "select count(*), md5(string_agg(name, '' order by id)) from projects";
    assert_eq!(kit.ask(&to, sum), kit.ask(&tenant, sum));
    assert_eq!(std::fs::read_dir(kit.scratch.path()).unwrap().count(), 0);
}

const RICH: &str = "
    create extension pgcrypto; create extension citext;
    create schema app;
    create type app.mood as enum ('ok', 'sad');
    create table app.people(id bigint generated always as identity primary key, mail citext unique, mood app.mood default 'ok',
        parent bigint references app.people(id), check (id > 0));
    create table app.parts(id int, at date) partition by range (at);
    create table app.parts_2026 partition of app.parts for values from ('2026-01-01') to ('2027-01-01');
    create function app.twice(int) returns int language sql begin atomic select $1 * 2; end;
    create view app.moods as select mood, count(*) from app.people group by 1;
    create materialized view app.mat as select 1 as one;
    create index on app.people using gin (to_tsvector('simple', mail::text));
    alter table app.people enable row level security;
    create policy everybody on app.people using (true);
    create function app.touch() returns trigger language plpgsql as $$ begin new.mood := 'ok'; return new; end $$;
    create trigger touch before insert on app.people for each row execute function app.touch();
    insert into app.people(mail) values ('a@example.com'), ('b\ttab\nline;''quote');
    insert into app.parts values (1, '2026-05-05');
    create sequence app.loose start 40; select nextval('app.loose');
    alter table app.people add constraint later check (mail <> '') not valid;
    comment on table app.people is 'COPY public._fleet_identity (tenant_id) FROM stdin;';
    comment on extension citext is 'ours';
    comment on schema app is 'x';
    create statistics app.s on id, mail from app.people;";

#[tokio::test(flavor = "multi_thread")]
async fn everything_in_a_schema_comes_back() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&base_and(&[("3_rich.sql", RICH)])).await;
    kit.ask(
        &tenant,
        "create publication p for all tables; create function public.e() returns event_trigger language plpgsql as \
        'begin end'; create event trigger e on ddl_command_end execute function public.e()",
    );
    let taken = take(&kit, &tenant).await;
    assert_eq!(taken.info.schema_version, Some(3));
    let to = clone_of(&kit, &tenant);
    let done = kit.engine.restore_database(&to.at, taken.image, tenant.identity.tenant, &to.identity).await.unwrap();
    assert_eq!((done.schema_version, done.foreign_key_violations), (Some(3), 0));
    for sql in [
        "select id, mail, mood from app.people order by id",
        "select * from app.parts_2026",
        "select app.twice(21), nextval('app.loose')",
        "select string_agg(conname || convalidated, ',' order by conname) from pg_constraint where connamespace = 'app'::regnamespace",
        "select version, success, encode(checksum, 'hex'), installed_on from _sqlx_migrations order by 1",
        "select string_agg(relname || relkind::text || relowner::regrole || coalesce(relacl::text, ''), ',' order by relname) \
         from pg_class where relnamespace in ('app'::regnamespace, 'public'::regnamespace)",
    ] {
        assert_eq!(kit.ask(&to, sql), kit.ask(&tenant, sql), "{sql}");
    }
    assert_eq!(
        kit.ask(&to, "select count(*) from pg_publication union all select count(*) from pg_event_trigger"),
        "0\n0"
    );
    // It goes on like any other.
    let more = base_and(&[
        ("3_rich.sql", RICH),
        ("4_more.sql", "alter table app.people add column more int; drop view app.moods;"),
    ]);
    assert_eq!(kit.migrate(&to, &more).await.unwrap().applied, [4]);
    let mut write = super::logins::enter(&kit, &to, AccessMode::Write, to.database()).await.unwrap();
    sqlx::raw_sql("insert into app.people(mail) values ('c')").execute(&mut write).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_of_an_archive_is_found_and_leaves_nothing() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    kit.ask(&tenant, "insert into projects select n, 'x' from generate_series(1, 50) n");
    let SnapshotImage::Memory(bytes) = take(&kit, &tenant).await.image else { panic!("it is small") };
    let last = bytes.len() - 1;
    for cut in [0, 4, 20, 60, bytes.len() / 3, last - 300, last] {
        let to = clone_of(&kit, &tenant);
        let image = SnapshotImage::Memory(bytes.slice(..cut));
        let error = kit.engine.restore_database(&to.at, image, tenant.identity.tenant, &to.identity).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{cut} of {last}: {error}");
    }
    let found = kit.cluster.psql("postgres", "select count(*) from pg_database where datname like 't\\_%'");
    assert_eq!(found, "1");
}

/// What `pg_restore` refuses in the middle leaves neither a database nor logins.
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_the_server_refuses_leaves_nothing() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    // Only a superuser may create it, so restoring cannot.
    kit.ask(&tenant, "create extension pg_buffercache");
    let to = clone_of(&kit, &tenant);
    let image = take(&kit, &tenant).await.image;
    let error = kit.engine.restore_database(&to.at, image, tenant.identity.tenant, &to.identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ServerPrivilege, "{error}");
    assert!(error.message().contains("pg_buffercache"), "{error}");
    let left = format!(
        "select count(*) from pg_database where datname = '{0}' union all \
                        select count(*) from pg_roles where rolname like '{0}%'",
        to.database()
    );
    assert_eq!(kit.cluster.psql("postgres", &left), "0\n0");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_are_missing_or_too_old_are_named() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let tools = tempfile::tempdir().unwrap();
    let with = |tools: &std::path::Path| {
        let options = tenant_engine::postgres::PostgresOptions {
            tools: Some(tools.to_path_buf()),
            ..tenant_engine::postgres::PostgresOptions::new(kit.scratch.path())
        };
        tenant_engine::postgres::PostgresEngine::new(options)
    };
    let error = with(tools.path()).take_snapshot(&tenant.at, &tenant.expected()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ToolMissing, "{error}");
    let script = tools.path().join("pg_dump");
    std::fs::write(&script, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 11.22 (Debian 11.22-1)'\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let error = with(tools.path()).take_snapshot(&tenant.at, &tenant.expected()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ToolTooOld, "{error}");
    assert!(error.message().contains("11") && error.message().contains("install"), "{error}");
    assert!(engine(kit.scratch.path()).take_snapshot(&tenant.at, &tenant.expected()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_locked_makes_a_dump_busy() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let options: sqlx::postgres::PgConnectOptions = kit.cluster.dsn(tenant.database()).parse().unwrap();
    let mut locker = <sqlx::PgConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    sqlx::raw_sql("begin; lock table projects in access exclusive mode").execute(&mut locker).await.unwrap();
    let error = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
}
