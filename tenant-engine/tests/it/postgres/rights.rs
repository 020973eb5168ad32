//! A server that a superuser prepared keeps the functions and relations that tell of other tenants from every session of a
//! tenant, also inside functions and views of migrations, where the check of words does not look.

use std::sync::Arc;

use tenant_engine::postgres::PostgresServer;
use tenant_engine::*;

use super::kit::{BASE, Kit, Tenant, base_and, engine, set};

/// A function that runs any text, one with its owner's rights, and a view.
const ROUTES: (&str, &str) = (
    "0003_routes.sql",
    "create function ask(q text) returns text language plpgsql as $$ declare r text; begin execute q into r; return r; end $$;
     create function ask_owner(q text) returns text language plpgsql security definer as
       $$ declare r text; begin execute q into r; return r; end $$;
     create view locks as select pg_lock_status()::text as it;
     create view names as select datname::text as it from pg_database;",
);

/// What tells of others.
const QUESTIONS: [&str; 14] = [
    "select pg_get_userbyid(10)",
    "select pg_describe_object(1262, 5, 0)",
    "select count(*) from pg_lock_status()",
    "select array_in('{10}', 4096, -1)::text",
    "select count(*) from pg_stat_get_activity(null)",
    "select pg_database_size('postgres')",
    "select shobj_description(5, 'pg_database')",
    "select has_database_privilege('postgres', 'connect')",
    "select count(*) from pg_database",
    "select count(*) from pg_roles",
    "select count(*) from pg_locks",
    "select count(*) from pg_stat_activity",
    "select count(*) from pg_shdepend",
    "select count(*) from pg_subscription",
];

/// What applications do ask.
const ORDINARY: [&str; 16] = [
    "select count(*) from information_schema.columns",
    "select count(*) from information_schema.tables where table_type <> ''",
    "select count(*) from information_schema.table_constraints",
    "select count(*) from information_schema.role_table_grants",
    "select string_agg(tablename, ' ') from pg_tables",
    "select count(*) from (select * from pg_indexes) i",
    "select count(*) from (select * from pg_sequences) s where last_value is null",
    "select count(*) from (select * from pg_stat_user_tables) s",
    "select count(*) from pg_stats",
    "select pg_get_viewdef('names'::regclass)",
    "select string_agg(pg_get_constraintdef(oid), ' ') from pg_constraint",
    "select pg_get_serial_sequence('tasks', 'id')",
    "select pg_total_relation_size('tasks')",
    "select has_table_privilege('tasks', 'select')",
    "select pg_has_role(current_user, 'fleet_read', 'usage')",
    "select to_char(now(), 'YYYY') || md5('x') || (random() < 2)::text || jsonb_build_object('a', 1)::text",
];

async fn asked(kit: &Kit, tenant: &Tenant, sql: &str) -> Result<()> {
    let pool = kit.engine.open_pool(&tenant.at, &tenant.expected()).await?;
    let mut session = pool.new_session(AccessMode::Read, SessionLimits::default());
    session
        .run_statements(vec![SqlStatement { sql: sql.to_owned(), params: Vec::new() }], AfterStatements::Commit)
        .await
        .map(drop)
}

async fn is_walled(kit: &Kit, tenant: &Tenant) {
    for question in QUESTIONS {
        let question = question.replace('\'', "''");
        for route in ["ask", "ask_owner"] {
            let error = asked(kit, tenant, &format!("select {route}('{question}')")).await.unwrap_err();
            assert!(error.message().contains("permission denied"), "{question}: {error}");
        }
    }
    for view in ["locks", "names"] {
        let error = asked(kit, tenant, &format!("select * from {view}")).await.unwrap_err();
        assert!(error.message().contains("permission denied"), "{view}: {error}");
    }
    for question in ORDINARY {
        let question = question.replace('\'', "''");
        asked(kit, tenant, &format!("select ask('{question}')")).await.unwrap_or_else(|e| panic!("{question}: {e}"));
    }
}

async fn rights(kit: &Kit) -> Option<FunctionRights> {
    kit.engine.survey_server(&kit.server()).await.unwrap().function_rights
}

async fn prepare(kit: &Kit) {
    let script = kit.engine.preparation_script(&kit.server()).await.unwrap().unwrap();
    kit.cluster.psql_script(&script);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_server_tells_a_tenant_nothing_of_others() {
    let kit = Kit::new();
    let all = base_and(&[ROUTES]);
    let before = kit.provisioned(&all).await;
    assert_eq!(rights(&kit).await, Some(FunctionRights::Granted));
    asked(&kit, &before, "select ask('select pg_get_userbyid(10)')").await.unwrap();
    prepare(&kit).await;
    assert_eq!(rights(&kit).await, Some(FunctionRights::Revoked));
    is_walled(&kit, &before).await;
    // Templates that were made before are made again: by this process, and by others.
    let other = Kit { engine: engine(kit.scratch.path()), ..kit };
    let after = other.provisioned(&all).await;
    is_walled(&other, &after).await;
    let longer = base_and(&[ROUTES, ("0004_more.sql", "create table more(a int);")]);
    let later = other.provisioned(&longer).await;
    is_walled(&other, &later).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_every_kind_are_behind_the_wall() {
    let kit = Kit::new();
    prepare(&kit).await;
    // Run again, it changes nothing.
    prepare(&kit).await;
    let source = kit.provisioned(&base_and(&[ROUTES])).await;
    let snapshot = kit.engine.take_snapshot(&source.at, &source.expected()).await.unwrap();
    let copy = kit.tenant();
    let restored =
        kit.engine.restore_database(&copy.at, snapshot.image, source.identity.tenant, &copy.identity).await.unwrap();
    assert!(restored.left_out.is_empty(), "{:?}", restored.left_out);
    is_walled(&kit, &copy).await;
    kit.cluster.psql("postgres", "create database outside template template0 owner fleet");
    let make = BASE.iter().chain([&ROUTES]).map(|(_, sql)| *sql).collect::<String>();
    kit.cluster.psql("outside", &format!("set role fleet; {make}"));
    let adopted = kit.tenant();
    kit.engine
        .adopt_database(&adopted.at, &kit.cluster.dsn("outside").into(), &adopted.identity, &LedgerName::default())
        .await
        .unwrap();
    is_walled(&kit, &adopted).await;
    // Only the server's own template may be copied with another locale: the check of words stands alone there.
    kit.cluster.psql(
        "postgres",
        "create database german template template0 owner fleet locale_provider icu icu_locale 'de-AT' locale 'C'",
    );
    let elsewhere = kit.tenant();
    kit.engine
        .adopt_database(&elsewhere.at, &kit.cluster.dsn("german").into(), &elsewhere.identity, &LedgerName::default())
        .await
        .unwrap();
    assert_eq!(rights(&kit).await, Some(FunctionRights::Revoked));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_a_superuser_prepares_its_server_by_itself() {
    let kit = Kit::new();
    let older = kit.provisioned(&set(&BASE)).await;
    kit.cluster.psql("postgres", "alter role fleet superuser");
    let kit = Kit {
        engine: engine(kit.scratch.path()),
        postgres: Arc::new(PostgresServer::from_secret(&kit.postgres.secret_text()).unwrap()),
        ..kit
    };
    let new = kit.provisioned(&base_and(&[ROUTES])).await;
    is_walled(&kit, &new).await;
    assert_eq!(rights(&kit).await, Some(FunctionRights::RevokedInNew));
    prepare(&kit).await;
    assert_eq!(rights(&kit).await, Some(FunctionRights::Revoked));
    kit.cluster.psql("postgres", "comment on database fleet_template is 'fleet rights of an earlier version'");
    assert_eq!(rights(&kit).await, Some(FunctionRights::Outdated));
    assert_eq!(kit.ask(&older, "select count(*) from projects"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_only_a_superuser_may_create_comes_with_the_template() {
    let kit = Kit::new();
    let plain = kit.provisioned(&set(&BASE)).await;
    let with = base_and(&[("0003_extension.sql", "create extension if not exists pageinspect;")]);
    let error = kit.migrate(&plain, &with).await.unwrap_err();
    assert!(error.message().contains("\"pageinspect\"") && error.message().contains("server prepare"), "{error}");
    kit.cluster.psql("postgres", "create database outside template template0 owner fleet");
    kit.cluster.psql("outside", "create extension pageinspect; set role fleet; create table t(a int)");
    let refused = kit.tenant();
    let source = || kit.cluster.dsn("outside").into();
    let error =
        kit.engine.adopt_database(&refused.at, &source(), &refused.identity, &LedgerName::default()).await.unwrap_err();
    assert!(error.message().contains("\"pageinspect\"") && error.message().contains("fleet_template"), "{error}");
    prepare(&kit).await;
    kit.cluster.psql("fleet_template", "create extension pageinspect");
    kit.cluster.psql(plain.database(), "create extension pageinspect");
    kit.migrate(&plain, &with).await.unwrap();
    let new = kit.provisioned(&with).await;
    let snapshot = kit.engine.take_snapshot(&new.at, &new.expected()).await.unwrap();
    let copy = kit.tenant();
    kit.engine.restore_database(&copy.at, snapshot.image, new.identity.tenant, &copy.identity).await.unwrap();
    assert_eq!(kit.ask(&copy, "select count(*) from pg_extension where extname = 'pageinspect'"), "1");
    let adopted = kit.tenant();
    kit.engine.adopt_database(&adopted.at, &source(), &adopted.identity, &LedgerName::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_files_of_a_tenant_are_bounded_where_that_is_permitted() {
    let kit = Kit::new();
    let before = kit.provisioned(&set(&BASE)).await;
    let limit = |tenant: &Tenant, access| {
        let login = tenant.login(access);
        kit.cluster.psql(
            "postgres",
            &format!(
                "select coalesce(string_agg(s, ' '), 'none') from pg_db_role_setting, unnest(setconfig) s
             where setrole = '{login}'::regrole and s like 'temp%'"
            ),
        )
    };
    assert_eq!(limit(&before, AccessMode::Write), "none");
    prepare(&kit).await;
    kit.migrate(&before, &set(&BASE)).await.unwrap();
    let after = kit.provisioned(&set(&BASE)).await;
    for tenant in [&before, &after] {
        for access in [AccessMode::Read, AccessMode::Write] {
            assert_eq!(limit(tenant, access), "temp_file_limit=4GB");
        }
    }
    kit.migrate(&before, &set(&BASE)).await.unwrap();
    assert_eq!(kit.engine.audit_roles(&kit.server()).await.unwrap().findings, []);
}
