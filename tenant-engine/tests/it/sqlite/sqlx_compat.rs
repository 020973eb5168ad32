//! sqlx's own migrator and ours take turns on one database.

use sqlx::ConnectOptions;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tenant_engine::*;

use super::kit::{Kit, Tenant};

const FILES: [(&str, &str); 5] = [
    ("0001_one.sql", "create table a(x);\r\ninsert into a values(1);"),
    ("0002_two_words.up.sql", "create table b(x references a(x));"),
    ("0002_two_words.down.sql", "drop table b;"),
    ("0003_bare.sql", "-- no-transaction\ninsert into a values(2);"),
    ("20251101120000_four.sql", "create index i on a(x);"),
];

pub(crate) struct Directory(tempfile::TempDir);

impl Directory {
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        Self(directory)
    }

    pub(crate) fn set(&self) -> MigrationSet {
        MigrationSet::read_directory(self.0.path()).unwrap().0
    }

    pub(crate) async fn run_sqlx(&self, tenant: &Tenant) -> Result<(), sqlx::migrate::MigrateError> {
        use sqlx::Connection;
        let mut db: SqliteConnection = SqliteConnectOptions::new().filename(tenant.path()).connect().await.unwrap();
        let outcome = Migrator::new(self.0.path()).await.unwrap().run(&mut db).await;
        db.close().await.unwrap();
        outcome
    }
}

/// All columns but the times.
fn rows(tenant: &Tenant) -> Vec<(i64, String, bool, Vec<u8>)> {
    let db = tenant.open();
    let mut statement =
        db.prepare("select version, description, success, checksum from _sqlx_migrations order by version").unwrap();
    let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn ledger_sql(tenant: &Tenant) -> String {
    let sql = "select sql from sqlite_schema where name = '_sqlx_migrations'";
    tenant.open().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn sqlx_finds_nothing_to_do_after_us_and_we_after_sqlx() {
    let kit = Kit::new();
    let directory = Directory::with(&FILES);
    let ours = kit.provisioned(&directory.set()).await;
    directory.run_sqlx(&ours).await.unwrap();
    assert_eq!(ours.number("select count(*) from a"), 2, "sqlx ran nothing again");

    let migrated = kit.provisioned(&MigrationSet::empty_set()).await;
    assert_eq!(kit.migrate(&migrated, &directory.set()).await.unwrap().applied, [1, 2, 3, 20_251_101_120_000]);
    directory.run_sqlx(&migrated).await.unwrap();

    let theirs = kit.provisioned(&MigrationSet::empty_set()).await;
    theirs.open().execute_batch("drop table _sqlx_migrations").unwrap();
    directory.run_sqlx(&theirs).await.unwrap();
    let nothing = kit.migrate(&theirs, &directory.set()).await.unwrap();
    assert_eq!((nothing.to_version, nothing.applied), (Some(20_251_101_120_000), vec![]));

    assert_eq!(rows(&ours), rows(&theirs));
    assert_eq!(rows(&migrated), rows(&theirs));
    assert_eq!(ledger_sql(&ours), ledger_sql(&theirs));
    let types = "select group_concat(typeof(version)||typeof(description)||typeof(installed_on)||typeof(success)||
                 typeof(checksum)||typeof(execution_time)) from _sqlx_migrations";
    let types = |tenant: &Tenant| tenant.open().query_row(types, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(types(&ours), types(&theirs));
}

#[tokio::test]
async fn each_continues_what_the_other_began() {
    let kit = Kit::new();
    let (some, all) = (Directory::with(&FILES[..3]), Directory::with(&FILES));
    let theirs_first = kit.provisioned(&MigrationSet::empty_set()).await;
    some.run_sqlx(&theirs_first).await.unwrap();
    assert_eq!(kit.migrate(&theirs_first, &all.set()).await.unwrap().applied, [3, 20_251_101_120_000]);

    let ours_first = kit.provisioned(&some.set()).await;
    all.run_sqlx(&ours_first).await.unwrap();
    assert_eq!(rows(&ours_first), rows(&theirs_first));
}

#[tokio::test]
async fn a_version_we_left_dirty_is_dirty_to_sqlx() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&MigrationSet::empty_set()).await;
    let directory = Directory::with(&[("1_half.sql", "-- no-transaction\ncreate table h(x);\nselect nope;")]);
    assert_eq!(kit.migrate(&tenant, &directory.set()).await.unwrap_err().kind(), ErrorKind::MigrationDirty);
    let error = directory.run_sqlx(&tenant).await.unwrap_err();
    assert!(matches!(error, sqlx::migrate::MigrateError::Dirty(1)), "{error}");
}
