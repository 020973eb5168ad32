//! A ledger with another name than sqlx's own: sqlx's migrator and ours take turns on it, copies keep it, and it is
//! guarded alike.

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tenant_engine::*;

use super::kit::{Kit, Tenant};
use super::logins::enter;

const FILES: [(&str, &str); 3] = [
    ("0001_one.sql", "create table a(x int); insert into a values(1);"),
    ("0002_bare.sql", "-- no-transaction\ncreate index concurrently i on a(x);"),
    ("0003_three.sql", "insert into a values(2);"),
];

fn file(name: &str, sql: &str) -> migration::MigrationFile {
    migration::MigrationFile { name: name.to_owned(), sql: sql.to_owned() }
}

/// The files, and more, in the ledger that `sqlx.toml` names so.
fn named(ledger: &str, more: &[(&str, &str)]) -> MigrationSet {
    let mut files: Vec<_> = FILES.iter().chain(more).map(|(name, sql)| file(name, sql)).collect();
    files.push(file("sqlx.toml", &format!("[migrate]\ntable-name = '{ledger}'")));
    MigrationSet::from_files(&files).unwrap()
}

/// sqlx's own migrator, as its command line runs it with this `table-name`.
async fn run_sqlx(dsn: String, role: Option<&str>, ledger: &str) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in FILES {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let options: PgConnectOptions = dsn.parse().unwrap();
    let options = role.map_or(options.clone(), |role| options.options([("role", role)]));
    let mut db = PgConnection::connect_with(&options).await.unwrap();
    let mut migrator = Migrator::new(directory.path()).await.unwrap();
    migrator.dangerous_set_table_name(ledger.to_owned());
    migrator.run(&mut db).await.unwrap();
    db.close().await.unwrap();
}

async fn sqlx_on(kit: &Kit, tenant: &Tenant, ledger: &str) {
    run_sqlx(kit.cluster.dsn(tenant.database()), Some("fleet_owner"), ledger).await;
}

async fn refused(connection: &mut PgConnection, sql: String) -> bool {
    let outcome = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(connection).await;
    // A login that reads has no right to write, and its transactions are read-only.
    outcome.is_err_and(|error| matches!(&*error.as_database_error().unwrap().code().unwrap(), "42501" | "25006"))
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlx_and_we_take_turns_on_a_ledger_of_any_name() {
    let kit = Kit::new();
    for ledger in ["schema_migrations", "public.\"Ops\"", "\"order\""] {
        let set = named(ledger, &[]);
        let ours = kit.provisioned(&set).await;
        sqlx_on(&kit, &ours, ledger).await;
        assert_eq!(kit.ask(&ours, "select count(*) from a"), "2", "{ledger}: sqlx ran nothing again");
        assert_eq!(kit.ask(&ours, "select to_regclass('public._sqlx_migrations') is null"), "t");

        let theirs = kit.provisioned(&MigrationSet::empty_in(set.ledger().clone())).await;
        sqlx_on(&kit, &theirs, ledger).await;
        assert_eq!(kit.migrate(&theirs, &set).await.unwrap().applied, Vec::<i64>::new(), "{ledger}");
        let dropped = kit.provisioned(&MigrationSet::empty_in(set.ledger().clone())).await;
        kit.ask(&dropped, &format!("drop table public.\"{}\"", set.ledger()));
        assert_eq!(kit.migrate(&dropped, &set).await.unwrap().applied, [1, 2, 3], "{ledger}");
        let next = named(ledger, &[("4_four.sql", "insert into a values(4)")]);
        for tenant in [&ours, &theirs, &dropped] {
            assert_eq!(kit.migrate(tenant, &next).await.unwrap().applied, [4], "{ledger}");
            let found =
                kit.engine.inspect_database(&tenant.at, Some(&tenant.expected()), InspectionDepth::Full).await.unwrap();
            assert_eq!(found.applied.len(), 4);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_names_another_ledger_runs_nothing() {
    let kit = Kit::new();
    let (usual, ops) = (named("_sqlx_migrations", &[]), named("ops", &[]));
    for (made, other) in [(&usual, &ops), (&ops, &usual)] {
        let full = kit.provisioned(made).await;
        let empty = kit.provisioned(&MigrationSet::empty_in(made.ledger().clone())).await;
        // Of another component, with the name that the wrong set would take.
        let beside = kit.provisioned(made).await;
        kit.ask(&beside, &format!("create table {}(like {} including all)", other.ledger(), made.ledger()));
        kit.ask(&beside, &format!("grant all on {} to fleet_owner", other.ledger()));
        for tenant in [full, empty, beside] {
            let error = kit.migrate(&tenant, other).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MigrationInvalid, "{error}");
            assert!(error.message().contains(made.ledger().as_str()), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_guarded_in_every_copy() {
    let kit = Kit::new();
    let set = named("\"Ops\"", &[]);
    let tenant = kit.provisioned(&set).await;
    let taken = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
    assert_eq!(taken.info.schema_version, Some(3));
    let copy = kit.placed(Identity { tenant: TenantId::generate(), ..tenant.identity.clone() });
    let restored =
        kit.engine.restore_database(&copy.at, taken.image, tenant.identity.tenant, &copy.identity).await.unwrap();
    assert_eq!((restored.schema_version, &restored.classes), (Some(3), &taken.info.classes));
    let print = async |of: &Tenant| kit.engine.compute_fingerprint(&of.at, &of.expected()).await.unwrap();
    assert_eq!(print(&tenant).await.first_difference(&print(&copy).await), None);
    for tenant in [&tenant, &copy] {
        for access in [AccessMode::Read, AccessMode::Write] {
            let mut login = enter(&kit, tenant, access, tenant.database()).await.unwrap();
            assert!(!refused(&mut login, "select version from \"Ops\"".to_owned()).await);
            for bad in ["delete from \"Ops\"", "drop table \"Ops\"", "comment on table _fleet_identity is null"] {
                assert!(refused(&mut login, bad.to_owned()).await, "{bad}");
            }
        }
        let bad = kit.migrate(tenant, &named("\"Ops\"", &[("4_bad.sql", "truncate \"Ops\"")])).await.unwrap_err();
        assert!(bad.message().contains("'Ops' belongs to the engine"), "{bad}");
        let hidden = "do $$ begin execute 'comment on table _fleet_identity is null'; end $$";
        let bad = kit.migrate(tenant, &named("\"Ops\"", &[("4_bad.sql", hidden)])).await.unwrap_err();
        assert_eq!(bad.kind(), ErrorKind::MigrationFailed, "{bad}");
        assert_eq!(kit.migrate(tenant, &set).await.unwrap().applied, Vec::<i64>::new());
        sqlx_on(&kit, tenant, "\"Ops\"").await;
    }
    assert_eq!(kit.ask(&copy, "select count(*) from a"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_adopted_with_the_ledger_of_the_fleet_only() {
    let kit = Kit::new();
    kit.cluster.psql("postgres", "create database outside template template0 owner fleet");
    run_sqlx(kit.cluster.dsn("outside"), Some("fleet"), "schema_migrations").await;
    let adopt = async |ledger: &str| {
        let to = kit.tenant();
        let ledger = LedgerName::parse(ledger).unwrap();
        kit.engine
            .adopt_database(&to.at, &kit.cluster.dsn("outside").into(), &to.identity, &ledger)
            .await
            .map(|copied| (to, copied))
    };
    for other in ["_sqlx_migrations", "ops"] {
        let error = adopt(other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAdoptable, "{error}");
        assert!(error.message().contains("its ledger is public.schema_migrations"), "{error}");
    }
    // A table that was renamed keeps the name of its key.
    kit.cluster.psql("outside", "alter index schema_migrations_pkey rename to _sqlx_migrations_pkey");
    let (tenant, copied) = adopt("schema_migrations").await.unwrap();
    assert_eq!(copied.schema_version, Some(3));
    let set = named("schema_migrations", &[]);
    assert_eq!(kit.migrate(&tenant, &set).await.unwrap().applied, Vec::<i64>::new());
    assert_eq!(kit.ask(&tenant, "select count(*) from a"), "2");
    let mut login = enter(&kit, &tenant, AccessMode::Write, tenant.database()).await.unwrap();
    assert!(refused(&mut login, "delete from schema_migrations".to_owned()).await);
    sqlx_on(&kit, &tenant, "schema_migrations").await;
}
