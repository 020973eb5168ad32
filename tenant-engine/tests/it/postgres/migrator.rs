//! SQL from outside cannot change a role that another tenant depends on.

use tenant_engine::postgres::fixture::former_migrator;
use tenant_engine::*;

use super::kit::{BASE, Kit, Tenant, base_and, engine, set};

/// What a migration, or a function in a dump, may try with the roles that it runs as. Each is allowed to fail.
const ATTACKS: [&str; 22] = [
    "alter role current_user password 'known'",
    "alter role session_user password 'known'",
    "alter role fleet_owner password 'known'",
    "alter role current_user set transform_null_equals = on",
    "alter role session_user set local_preload_libraries = 'x'",
    "alter role fleet_owner set search_path = 'nosuch'",
    "alter role fleet_owner in database postgres set search_path = 'nosuch'",
    "alter role session_user in database postgres set search_path = 'nosuch'",
    "alter role session_user valid until 'infinity'",
    "alter role session_user inherit",
    "alter role fleet_owner login",
    "alter role all set search_path = 'nosuch'",
    "alter database postgres set search_path = 'nosuch'",
    "set local role none; alter role current_user set timezone = 'Asia/Tokyo'",
    "set local role none; do $y$ begin execute format('grant %I to %I', session_user, 'OTHER_r'); end $y$",
    "grant fleet_owner to \"OTHER_r\"",
    "alter role \"OTHER_w\" password 'known'",
    "set local role none; select lo_create(0)",
    "alter default privileges grant select on tables to session_user",
    "set local role none; alter default privileges grant select on tables to fleet_owner",
    "grant usage on schema public to session_user",
    "create role mine; create database mine",
];

/// The same attempts, each in a block that survives its failure and ends in the role that it began in.
fn attempts(other: &Tenant) -> String {
    let attempt = |attack: &&str| {
        let attack = attack.replace("OTHER", other.database());
        format!(
            "do $x$ begin execute $a$ do $b$ begin {attack}; end $b$ $a$; exception when others then null; end $x$;\n\
             do $x$ begin execute 'set local role fleet_owner'; exception when others then null; end $x$;\n"
        )
    };
    ATTACKS.iter().map(attempt).collect()
}

/// Nothing of the attempts is left on the server, and the other tenant does not notice.
async fn is_unharmed(kit: &Kit, other: &Tenant, version: i64) {
    let ask = |sql: &str| kit.cluster.psql("postgres", sql);
    assert_eq!(ask("select string_agg(rolname, ' ') from pg_roles where rolname ~ '_m$' and rolcanlogin"), "");
    assert_eq!(ask("select string_agg(rolname, ' ') from pg_roles where rolname = 'mine'"), "");
    let strangers = "select string_agg(r.rolname || ' of ' || g.rolname, ', ') from pg_auth_members m
        join pg_roles r on r.oid = m.member join pg_roles g on g.oid = m.roleid
        where g.rolname = 'fleet_owner' and r.rolname <> 'fleet' or g.rolname ~ '_m$' and r.rolname <> 'fleet'";
    assert_eq!(ask(strangers), "");
    let table = format!("create schema own{version}; create table own{version}.t(a int);");
    let files: Vec<(String, String)> =
        (3..=version).map(|v| (format!("{v}_own.sql"), table.replace(&version.to_string(), &v.to_string()))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, sql)| (name.as_str(), sql.as_str())).collect();
    assert_eq!(kit.migrate(other, &base_and(&files)).await.unwrap().to_version, Some(version));
    for access in [AccessMode::Read, AccessMode::Write] {
        let pool = kit.engine.open_pool(&other.at, &other.expected()).await.unwrap();
        let statement = SqlStatement { sql: "select count(*) from tasks".to_owned(), params: Vec::new() };
        pool.new_session(access, SessionLimits::default())
            .run_statements(vec![statement], AfterStatements::Commit)
            .await
            .unwrap();
        pool.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_changes_no_role_that_others_depend_on() {
    let kit = Kit::new();
    let (evil, other) = (kit.provisioned(&set(&BASE)).await, kit.provisioned(&set(&BASE)).await);
    let seen = "create table seen as select string_agg(datname, ',') as enters from pg_database
                where has_database_privilege(session_user::name, datname, 'connect') and datname like 't\\_%';
                create table who as select session_user::text as login, current_user::text as role;";
    let attack = format!("{seen}\n{}", attempts(&other));
    kit.migrate(&evil, &base_and(&[("3_evil.sql", &attack)])).await.unwrap();
    assert_eq!(kit.ask(&evil, "select enters from seen"), evil.database(), "the login enters its own database only");
    assert_eq!(kit.ask(&evil, "select login || ' ' || role from who"), format!("{}_m fleet_owner", evil.database()));
    is_unharmed(&kit, &other, 3).await;
    // The attacked database goes on, too: what is given to a login that is there is given again.
    let more = base_and(&[("3_evil.sql", &attack), ("4_more.sql", "create table more(a int);")]);
    assert_eq!(kit.migrate(&evil, &more).await.unwrap().applied, [4]);
    is_unharmed(&kit, &other, 4).await;
    kit.engine.drop_database(&evil.at, Some(&evil.expected())).await.unwrap();
    let left = format!("select count(*) from pg_roles where rolname like '{}%'", evil.database());
    assert_eq!(kit.cluster.psql("postgres", &left), "0");
}

/// `drop owned` takes the rights on all databases of a server, whatever their owner.
#[tokio::test(flavor = "multi_thread")]
async fn rights_on_other_databases_that_a_migration_took_are_given_again() {
    let kit = Kit::new();
    let (evil, other) = (kit.provisioned(&set(&BASE)).await, kit.provisioned(&set(&BASE)).await);
    let _ = kit.migrate(&evil, &base_and(&[("3_evil.sql", "drop owned by fleet_owner cascade;")])).await;
    is_unharmed(&kit, &other, 3).await;
    let fresh = kit.provisioned(&base_and(&[("3_schema.sql", "create schema later;")])).await;
    assert_eq!(kit.ask(&fresh, "select count(*) from pg_namespace where nspname = 'later'"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_changes_no_role_that_others_depend_on() {
    let kit = Kit::new();
    let other = kit.provisioned(&set(&BASE)).await;
    let attacks = attempts(&other);
    let body: String = attacks.lines().map(|line| format!("execute $q${}$q$;\n", line.trim_end_matches(';'))).collect();
    kit.cluster.psql("postgres", "create database stranger owner fleet");
    kit.cluster.psql(
        "stranger",
        &format!(
            "grant all on schema public to fleet; set role fleet;
             create function tried(i int) returns boolean language sql as 'select true';
             create table t(i int check (tried(i))); insert into t values (1);
             create or replace function tried(i int) returns boolean language plpgsql as
               $f$ begin {body} return true; end $f$;"
        ),
    );
    let tenant = kit.tenant();
    // A load that fails is an answer, too.
    let adopted = kit
        .engine
        .adopt_database(&tenant.at, &kit.cluster.dsn("stranger").into(), &tenant.identity, &LedgerName::default())
        .await;
    println!("{adopted:?}");
    is_unharmed(&kit, &other, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_served_a_whole_server_is_dropped_or_loses_its_rights() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let former = former_migrator(&kit.postgres);
    // As the version before made it.
    let as_before = |database: &str| {
        kit.cluster.psql(
            "postgres",
            &format!(
                "set role fleet; create role {former} login password 'known' in role fleet_owner role fleet;
                 grant connect on database \"{database}\" to fleet_owner"
            ),
        )
    };
    let attributes = format!("select rolcanlogin::text from pg_roles where rolname = '{former}'");
    as_before(tenant.database());
    let later = engine(kit.scratch.path());
    let more = base_and(&[("3_more.sql", "create table more(a int);")]);
    assert_eq!(later.migrate_database(&tenant.at, &tenant.expected(), &more, None).await.unwrap().applied, [3]);
    assert_eq!(kit.cluster.psql("postgres", &attributes), "");
    let connects = format!("select has_database_privilege('fleet_owner', '{}', 'connect')", tenant.database());
    assert_eq!(kit.cluster.psql("postgres", &connects), "f");
    // One that something depends on stays, and may do nothing.
    as_before(tenant.database());
    kit.ask(&tenant, &format!("grant usage on schema public to {former}"));
    let later = engine(kit.scratch.path());
    later.migrate_database(&tenant.at, &tenant.expected(), &more, None).await.unwrap();
    assert_eq!(kit.cluster.psql("postgres", &attributes), "false");
    let member = format!("select pg_has_role('{former}', 'fleet_owner', 'member')");
    assert_eq!(kit.cluster.psql("postgres", &member), "f");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_left_is_used_again_or_swept() {
    let kit = Kit::new();
    let (one, two) = (kit.provisioned(&set(&BASE)).await, kit.provisioned(&set(&BASE)).await);
    let leave = |tenant: &Tenant, until: &str| {
        let (database, login) = (tenant.database(), format!("{}_m", tenant.database()));
        kit.cluster.psql(
            "postgres",
            &format!(
                "set role fleet;
                 create role \"{login}\" noinherit login password 'known' valid until '{until}' in role fleet_owner role fleet;
                 alter role \"{login}\" set timezone = 'Asia/Tokyo'; grant connect on database \"{database}\" to \"{login}\""
            ),
        );
    };
    leave(&one, "infinity");
    leave(&two, "2020-01-01");
    let later = engine(kit.scratch.path());
    let more = base_and(&[("3_more.sql", "create table more(a int);")]);
    later.migrate_database(&one.at, &one.expected(), &more, None).await.unwrap();
    let left = "select string_agg(rolname, ' ') from pg_roles where rolname ~ '_m$'";
    assert_eq!(kit.cluster.psql("postgres", left), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_migrate_one_database_do_not_take_each_others_login() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let more = base_and(&[("3_more.sql", "select pg_sleep(0.3); create table more(a int);")]);
    let engines: Vec<_> = (0..4).map(|_| engine(kit.scratch.path())).collect();
    let expected = tenant.expected();
    let runs = engines.iter().map(|engine| engine.migrate_database(&tenant.at, &expected, &more, None));
    let outcomes = futures_util::future::join_all(runs).await;
    let applied = outcomes.iter().filter(|outcome| outcome.as_ref().is_ok_and(|run| run.applied == [3])).count();
    assert_eq!(applied, 1, "{outcomes:?}");
    let rest = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    assert!(rest.clone().all(|error| error.kind() == ErrorKind::Busy), "{outcomes:?}");
    kit.migrate(&tenant, &more).await.unwrap();
    assert_eq!(kit.cluster.psql("postgres", "select count(*) from pg_roles where rolname ~ '_m$'"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_a_tenants_function_changed_is_given_again() {
    let kit = Kit::new();
    let change = "create function change() returns int language plpgsql as $$ begin
        execute format('alter role %I password ''known''', current_user);
        execute format('alter role %I set work_mem = ''1GB''', current_user); return 1; end $$;";
    let tenant = kit.provisioned(&base_and(&[("3_change.sql", change)])).await;
    let statement = |sql: &str| vec![SqlStatement { sql: sql.to_owned(), params: Vec::new() }];
    let pool = kit.engine.open_pool(&tenant.at, &tenant.expected()).await.unwrap();
    pool.new_session(AccessMode::Write, SessionLimits::default())
        .run_statements(statement("select change()"), AfterStatements::Commit)
        .await
        .unwrap();
    pool.close().await;
    let pool = kit.engine.open_pool(&tenant.at, &tenant.expected()).await.unwrap();
    pool.new_session(AccessMode::Write, SessionLimits::default())
        .run_statements(statement("select 1"), AfterStatements::Commit)
        .await
        .unwrap();
    pool.close().await;
    let settings = format!(
        "select string_agg(rolname || array_to_string(setconfig, ','), ' ') from pg_db_role_setting
         join pg_roles r on r.oid = setrole where rolname like '{}%'",
        tenant.database()
    );
    let expected = format!("{}_rdefault_transaction_read_only=on", tenant.database());
    assert_eq!(kit.cluster.psql("postgres", &settings), expected);
}
