//! sqlx's own migrator and ours take turns on one database.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tenant_engine::*;

use super::kit::{Kit, Tenant};

const FILES: [(&str, &str); 5] = [
    ("0001_one.sql", "create table a(x integer primary key);\r\ninsert into a values(1);"),
    ("0002_two_words.up.sql", "create table b(x integer references a(x));"),
    ("0002_two_words.down.sql", "drop table b;"),
    ("0003_bare.sql", "-- no-transaction\ncreate index concurrently i on b(x);"),
    ("20251101120000_four.sql", "insert into a values(2);"),
];

struct Directory(tempfile::TempDir);

impl Directory {
    fn with(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        Self(directory)
    }

    fn set(&self) -> MigrationSet {
        MigrationSet::read_directory(self.0.path()).unwrap().0
    }

    /// As the documentation says: the maintenance role, in the role that owns the tenants' objects.
    async fn run_sqlx(&self, kit: &Kit, tenant: &Tenant) -> Result<(), MigrateError> {
        let options: PgConnectOptions = kit.cluster.dsn(tenant.database()).parse().unwrap();
        let mut db = PgConnection::connect_with(&options.options([("role", "fleet_owner")])).await.unwrap();
        let outcome = Migrator::new(self.0.path()).await.unwrap().run(&mut db).await;
        db.close().await.unwrap();
        outcome
    }
}

/// All columns but the times.
fn rows(kit: &Kit, tenant: &Tenant) -> String {
    kit.ask(tenant, "select version, description, success, encode(checksum, 'hex') from _sqlx_migrations order by 1")
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlx_finds_nothing_to_do_after_us_and_we_after_sqlx() {
    let kit = Kit::new();
    let directory = Directory::with(&FILES);
    let ours = kit.provisioned(&directory.set()).await;
    directory.run_sqlx(&kit, &ours).await.unwrap();
    assert_eq!(kit.ask(&ours, "select count(*) from a"), "2", "sqlx ran nothing again");

    let migrated = kit.provisioned(&MigrationSet::empty_set()).await;
    assert_eq!(kit.migrate(&migrated, &directory.set()).await.unwrap().applied, [1, 2, 3, 20_251_101_120_000]);
    directory.run_sqlx(&kit, &migrated).await.unwrap();

    let theirs = kit.provisioned(&MigrationSet::empty_set()).await;
    let layout = "select string_agg(attname || format_type(atttypid, atttypmod) || attnotnull, ',' order by attnum) \
                  from pg_attribute where attrelid = '_sqlx_migrations'::regclass and attnum > 0";
    let before = kit.ask(&theirs, layout);
    kit.ask(&theirs, "drop table _sqlx_migrations");
    directory.run_sqlx(&kit, &theirs).await.unwrap();
    let nothing = kit.migrate(&theirs, &directory.set()).await.unwrap();
    assert_eq!((nothing.to_version, nothing.applied), (Some(20_251_101_120_000), vec![]));
    assert_eq!(kit.ask(&theirs, layout), before);
    assert_eq!(rows(&kit, &ours), rows(&kit, &theirs));
    assert_eq!(rows(&kit, &migrated), rows(&kit, &theirs));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_continues_what_the_other_began() {
    let kit = Kit::new();
    let (some, all) = (Directory::with(&FILES[..3]), Directory::with(&FILES));
    let theirs_first = kit.provisioned(&MigrationSet::empty_set()).await;
    some.run_sqlx(&kit, &theirs_first).await.unwrap();
    assert_eq!(kit.migrate(&theirs_first, &all.set()).await.unwrap().applied, [3, 20_251_101_120_000]);

    let ours_first = kit.provisioned(&some.set()).await;
    all.run_sqlx(&kit, &ours_first).await.unwrap();
    assert_eq!(rows(&kit, &ours_first), rows(&kit, &theirs_first));
    let owners =
        "select string_agg(distinct relowner::regrole::text, ',') from pg_class where relname in ('a', 'b', 'i')";
    assert_eq!(kit.ask(&ours_first, owners), "fleet_owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_somebody_dropped_is_made_again() {
    let kit = Kit::new();
    let directory = Directory::with(&FILES);
    let tenant = kit.provisioned(&MigrationSet::empty_set()).await;
    kit.ask(&tenant, "drop table _sqlx_migrations");
    assert_eq!(kit.migrate(&tenant, &directory.set()).await.unwrap().applied.len(), 4);
    directory.run_sqlx(&kit, &tenant).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_two_exclude_each_other_and_a_dirty_version_is_dirty_to_both() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&MigrationSet::empty_set()).await;
    let half = Directory::with(&[("1_half.sql", "-- no-transaction\ncreate table h(x int);\nselect nope;")]);
    assert_eq!(kit.migrate(&tenant, &half.set()).await.unwrap_err().kind(), ErrorKind::MigrationDirty);
    let error = half.run_sqlx(&kit, &tenant).await.unwrap_err();
    assert!(matches!(error, MigrateError::Dirty(1)), "{error}");

    // sqlx holds its lock while a slow version runs, and we say so instead of waiting.
    let tenant = kit.provisioned(&MigrationSet::empty_set()).await;
    let slow = Directory::with(&[("1_slow.sql", "create table s(x int); select pg_sleep(2);")]);
    let (theirs, ours) = tokio::join!(slow.run_sqlx(&kit, &tenant), async {
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        kit.migrate(&tenant, &slow.set()).await
    });
    theirs.unwrap();
    assert_eq!(ours.unwrap_err().kind(), ErrorKind::Busy);
    assert!(kit.migrate(&tenant, &slow.set()).await.unwrap().applied.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn begin_and_commit_of_a_file_leave_what_they_leave_under_sqlx() {
    let kit = Kit::new();
    let base = ("1_base.sql", "create table a(x integer primary key); insert into a values (1);");
    for text in [
        "BEGIN;\ninsert into a values (2);\nCOMMIT;",
        "begin transaction; insert into a values (2); end; start transaction; delete from a where x = 1; commit work;",
        "insert into a values (2); commit; begin; insert into a values (3);",
        "savepoint s; insert into a values (2); rollback to savepoint s; release savepoint s; insert into a values (3);",
    ] {
        let (first, all) = (Directory::with(&[base]), Directory::with(&[base, ("2_file.sql", text)]));
        let ours = kit.provisioned(&first.set()).await;
        assert_eq!(kit.migrate(&ours, &all.set()).await.unwrap().applied, [2], "{text}");
        let theirs = kit.provisioned(&first.set()).await;
        all.run_sqlx(&kit, &theirs).await.unwrap();
        let found = |tenant| kit.ask(tenant, "select string_agg(x::text, ',' order by x) from a");
        assert_eq!(found(&ours), found(&theirs), "{text}");
        assert_eq!(rows(&kit, &ours), rows(&kit, &theirs), "{text}");
    }
}
