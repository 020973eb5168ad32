//! A ledger with another name than sqlx's own: sqlx's migrator and ours take turns on it, and it is guarded alike.

use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use tenant_engine::*;

use super::kit::{Kit, Tenant};

const FILES: [(&str, &str); 3] = [
    ("0001_one.sql", "create table a(x); insert into a values(1);"),
    ("0002_bare.sql", "-- no-transaction\ninsert into a values(2);"),
    ("0003_three.sql", "create index i on a(x);"),
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
async fn run_sqlx(ledger: &str, tenant: &Tenant) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in FILES {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let mut db = SqliteConnectOptions::new().filename(tenant.path()).connect().await.unwrap();
    let mut migrator = Migrator::new(directory.path()).await.unwrap();
    migrator.dangerous_set_table_name(ledger.to_owned());
    migrator.run(&mut db).await.unwrap();
    db.close().await.unwrap();
}

async fn try_sql(kit: &Kit, tenant: &Tenant, sql: &str) -> Result<()> {
    let pool = kit.engine.open_pool(&tenant.at, &tenant.expected()).await?;
    let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
    let statement = SqlStatement { sql: sql.to_owned(), params: Vec::new() };
    session.run_statements(vec![statement], AfterStatements::Commit).await.map(drop)
}

#[tokio::test]
async fn sqlx_and_we_take_turns_on_a_ledger_of_any_name() {
    let kit = Kit::new();
    for ledger in ["schema_migrations", "Ops", "\"Ops\"", "main.ops", "\"order\""] {
        let set = named(ledger, &[]);
        let ours = kit.provisioned(&set).await;
        run_sqlx(ledger, &ours).await;
        assert_eq!(ours.number("select count(*) from a"), 2, "{ledger}: sqlx ran nothing again");
        assert_eq!(ours.number("select count(*) from sqlite_schema where name = '_sqlx_migrations'"), 0);

        let theirs = kit.provisioned(&MigrationSet::empty_in(set.ledger().clone())).await;
        run_sqlx(ledger, &theirs).await;
        assert_eq!(kit.migrate(&theirs, &set).await.unwrap().applied, Vec::<i64>::new(), "{ledger}");
        let next = named(ledger, &[("4_four.sql", "insert into a values(4)")]);
        for tenant in [&ours, &theirs] {
            assert_eq!(kit.migrate(tenant, &next).await.unwrap().applied, [4], "{ledger}");
            let found =
                kit.engine.inspect_database(&tenant.at, Some(&tenant.expected()), InspectionDepth::Full).await.unwrap();
            assert_eq!(found.applied.len(), 4);
        }
    }
}

#[tokio::test]
async fn a_set_that_names_another_ledger_runs_nothing() {
    let kit = Kit::new();
    let (usual, ops) = (named("_sqlx_migrations", &[]), named("ops", &[]));
    for (made, other) in [(&usual, &ops), (&ops, &usual)] {
        for tenant in
            [kit.provisioned(made).await, kit.provisioned(&MigrationSet::empty_in(made.ledger().clone())).await]
        {
            let error = kit.migrate(&tenant, other).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MigrationInvalid, "{error}");
            assert!(error.message().contains(made.ledger().as_str()), "{error}");
            let other = format!("select count(*) from sqlite_schema where name = '{}'", other.ledger());
            assert_eq!(tenant.number(&other), 0);
        }
    }
}

#[tokio::test]
async fn the_ledger_is_guarded_in_every_copy() {
    let kit = Kit::new();
    let set = named("schema_migrations", &[("5_own.sql", "create table _sqlx_migrations(x)")]);
    let tenant = kit.provisioned(&set).await;
    let image = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
    assert_eq!(image.info.schema_version, Some(5));
    let copy =
        Tenant { identity: Identity { tenant: TenantId::generate(), ..tenant.identity.clone() }, ..kit.tenant() };
    let restored =
        kit.engine.restore_database(&copy.at, image.image, tenant.identity.tenant, &copy.identity).await.unwrap();
    assert_eq!(restored.schema_version, Some(5));
    for tenant in [&tenant, &copy] {
        for good in [
            "select version from schema_migrations",
            "insert into a values(9)",
            "insert into _sqlx_migrations values(1)",
        ] {
            try_sql(&kit, tenant, good).await.unwrap();
        }
        for bad in [
            "delete from schema_migrations",
            "update SCHEMA_MIGRATIONS set success = 0",
            "insert into main.\"schema_migrations\"(version) values(9)",
            "select name from _fleet_ledger",
            "update _fleet_ledger set name = 'x'",
        ] {
            assert_eq!(try_sql(&kit, tenant, bad).await.unwrap_err().kind(), ErrorKind::SqlForbidden, "{bad}");
        }
        for bad in
            ["delete from schema_migrations", "drop table _fleet_ledger", "alter table a rename to schema_migrations"]
        {
            let error = kit
                .migrate(
                    tenant,
                    &named(
                        "schema_migrations",
                        &[("5_own.sql", "create table _sqlx_migrations(x)"), ("6_bad.sql", bad)],
                    ),
                )
                .await;
            assert_eq!(error.unwrap_err().kind(), ErrorKind::MigrationFailed, "{bad}");
        }
        assert_eq!(kit.migrate(tenant, &set).await.unwrap().applied, Vec::<i64>::new());
    }
}
