//! What the logins of a tenant may do, tried as the logins themselves.

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, Row as _};
use tenant_engine::*;

use super::kit::{BASE, Kit, Tenant, base_and, set};

/// A session of a login, whose password the test changed: what the login may do is not a matter of the password.
pub(crate) async fn enter(
    kit: &Kit,
    as_tenant: &Tenant,
    access: AccessMode,
    database: &str,
) -> sqlx::Result<PgConnection> {
    let login = as_tenant.login(access);
    kit.cluster.psql("postgres", &format!("alter role \"{login}\" password 'known'"));
    let dsn: PgConnectOptions = kit.cluster.dsn(database).parse().unwrap();
    PgConnection::connect_with(&dsn.username(&login).password("known")).await
}

async fn code(connection: &mut PgConnection, sql: &'static str) -> String {
    match sqlx::raw_sql(sql).execute(connection).await {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.as_database_error().unwrap().code().unwrap().into_owned(),
    }
}

const ALL: [AccessMode; 2] = [AccessMode::Read, AccessMode::Write];

#[tokio::test(flavor = "multi_thread")]
async fn a_login_enters_its_own_database_only() {
    let kit = Kit::new();
    let (a, b) = (kit.provisioned(&set(&BASE)).await, kit.provisioned(&set(&BASE)).await);
    let image = kit.engine.take_snapshot(&a.at, &a.expected()).await.unwrap().image;
    let c = kit.placed(Identity { tenant: TenantId::generate(), ..a.identity.clone() });
    kit.engine.restore_database(&c.at, image, a.identity.tenant, &c.identity).await.unwrap();
    let template = kit.cluster.psql("postgres", "select datname from pg_database where datname like 'tmpl%'");
    for access in ALL {
        for (from, to) in [(&b, &a), (&b, &c), (&c, &a), (&a, &c)] {
            let error = enter(&kit, from, access, to.database()).await.unwrap_err();
            assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{error}");
        }
        for tenant in [&a, &b, &c] {
            assert!(enter(&kit, tenant, access, tenant.database()).await.is_ok());
        }
        assert!(enter(&kit, &a, access, &template).await.is_err(), "the template lets nobody in");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_may_do_what_its_access_says() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let image = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap().image;
    let restored = kit.placed(Identity { tenant: TenantId::generate(), ..tenant.identity.clone() });
    kit.engine.restore_database(&restored.at, image, tenant.identity.tenant, &restored.identity).await.unwrap();
    let more = base_and(&[("3_app.sql", "create schema app; create table app.later(id serial, a int);")]);
    for tenant in [tenant, restored] {
        kit.migrate(&tenant, &more).await.unwrap();
        let mut read = enter(&kit, &tenant, AccessMode::Read, tenant.database()).await.unwrap();
        let mut write = enter(&kit, &tenant, AccessMode::Write, tenant.database()).await.unwrap();
        for sql in [
            "insert into projects values (1, 'a'); insert into tasks(title, project_id) values ('t', 1)",
            "update tasks set title = 'u'; insert into app.later(a) values (1); delete from tasks",
            "select * from _fleet_identity",
            "select * from _sqlx_migrations",
        ] {
            assert_eq!(code(&mut write, sql).await, "ok", "{sql}");
        }
        assert_eq!(code(&mut read, "select * from projects, app.later, _fleet_identity").await, "ok");
        for sql in ["insert into projects values (2, 'b')", "delete from tasks"] {
            assert_eq!(code(&mut read, sql).await, "25006", "{sql}");
        }
        assert_eq!(code(&mut read, "set default_transaction_read_only = off").await, "ok");
        for sql in ["insert into projects values (2, 'b')", "delete from app.later", "select nextval('tasks_id_seq')"] {
            assert_eq!(code(&mut read, sql).await, "42501", "not only by default: {sql}");
        }
        for session in [&mut read, &mut write] {
            for sql in [
                "update _fleet_identity set generation = 9",
                "delete from _fleet_identity",
                "insert into _sqlx_migrations values (9, 'x', now(), true, '', 0)",
                "delete from _sqlx_migrations",
                "truncate projects",
                "create table public.mine(a int)",
                "create temporary table mine(a int)",
                "create schema mine",
                "drop table projects",
                "alter table projects add column x int",
                "create role mine",
                "create database mine",
                "set role fleet_owner",
                "set role fleet",
                "grant select on projects to public",
                "alter role fleet_read login",
            ] {
                let code = code(session, sql).await;
                // A grant of what one may not grant is a warning.
                assert!(code == "42501" || sql.starts_with("grant"), "{sql}: {code}");
            }
        }
        let acl = kit.ask(
            &tenant,
            "select count(*) from pg_class where relacl::text ~ '[{,]=' and relnamespace = 'public'::regnamespace",
        );
        assert_eq!(acl, "0", "nothing is granted to everybody");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_owns_the_tenants_tables_and_nothing_else() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    for sql in [
        "update _fleet_identity set generation = 9;",
        "drop table _fleet_identity;",
        "alter table _fleet_identity add column x int;",
        "alter table _fleet_identity rename to gone;",
        "alter table _fleet_identity owner to fleet_owner;",
        "drop schema public cascade;",
        "create rule r as on insert to _fleet_identity do instead nothing;",
        "create trigger t before insert on _fleet_identity execute function suppress_redundant_updates_trigger();",
        "do $$ begin set local role none; update _fleet_identity set generation = 9; end $$;",
        "do $$ begin execute 'reset role'; create role mine; end $$;",
        "do $$ begin perform set_config('role', 'fleet', true); end $$;",
        "create database mine;",
        "drop table _sqlx_migrations;",
        "alter role fleet_owner login;",
        "grant fleet_owner to fleet_write;",
    ] {
        let error = kit.migrate(&tenant, &base_and(&[("3_bad.sql", sql)])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MigrationFailed, "{sql}: {error}");
    }
    let seen = kit.engine.inspect_database(&tenant.at, Some(&tenant.expected()), InspectionDepth::Full).await.unwrap();
    assert_eq!((seen.identity, seen.applied.len()), (tenant.identity.clone(), 2));
    let owners = "select string_agg(distinct relname || ' ' || relowner::regrole, ', ' order by relname || ' ' || relowner::regrole) from pg_class \
                  where relnamespace = 'public'::regnamespace and relkind = 'r'";
    assert_eq!(
        kit.ask(&tenant, owners),
        "_fleet_identity fleet, _sqlx_migrations fleet, projects fleet_owner, tasks fleet_owner"
    );
    // A table of the migration's own can be seen by the logins without anybody granting it.
    let mut read = enter(&kit, &tenant, AccessMode::Read, tenant.database()).await.unwrap();
    let row = sqlx::query("select count(*) from tasks").fetch_one(&mut read).await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 0);
}
