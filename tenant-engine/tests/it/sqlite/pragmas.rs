//! PRAGMAs and statements of migrations that reach beyond the tenant's file.

use rusqlite::Connection;
use tenant_engine::*;

use super::kit::{BASE, Kit, base_and, set};

/// What a migration must not set, because the engine or the whole process depends on it.
const NOT_SET: [&str; 13] = [
    "count_changes",
    "hard_heap_limit",
    "journal_mode",
    "locking_mode",
    "mmap_size",
    "query_only",
    "schema_version",
    "soft_heap_limit",
    "synchronous",
    "temp_store_directory",
    "wal_autocheckpoint",
    "wal_checkpoint",
    "writable_schema",
];

/// What it must not even read.
const NOT_READ: [&str; 2] = ["temp_store_directory", "wal_checkpoint"];

fn text(db: &Connection, sql: &str) -> Option<String> {
    db.query_row(sql, [], |row| row.get::<_, rusqlite::types::Value>(0)).ok().map(|value| format!("{value:?}"))
}

/// Of the process, as another connection sees it.
fn process(db: &Connection) -> Vec<Option<String>> {
    ["pragma temp_store_directory", "pragma hard_heap_limit", "pragma soft_heap_limit"].map(|sql| text(db, sql)).into()
}

/// Runs one statement as a migration of a template; the refusal, if it was refused.
async fn refused(kit: &Kit, statement: &str) -> Option<String> {
    let set = base_and(&[("0003_p.sql", &format!("{statement};\n"))]);
    let error = kit.engine.prepare_template(&kit.server(), &set).await.err()?;
    assert_eq!(error.kind(), ErrorKind::MigrationFailed, "{statement}: {error}");
    error.message().contains("PRAGMA ").then(|| error.to_string())
}

#[tokio::test]
async fn every_pragma_is_allowed_or_refused_in_each_of_its_forms() {
    let kit = Kit::new();
    let db = Connection::open_in_memory().unwrap();
    let before = process(&db);
    let mut statement = db.prepare("select name from pragma_pragma_list").unwrap();
    let names: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(names.len() > 60);
    for name in &names {
        let (set, read) = (!NOT_SET.contains(&name.as_str()), !NOT_READ.contains(&name.as_str()));
        let upper = name.to_ascii_uppercase();
        for (sql, allowed) in [
            (format!("pragma {name}"), read),
            (format!("pragma {name} = '1'"), set),
            (format!("PRAGMA/* */main.\"{upper}\"('/tmp')"), set),
            (format!("-- no-transaction\npragma [{name}](2)"), set),
        ] {
            assert_eq!(refused(&kit, &sql).await.is_none(), allowed, "{sql}");
        }
    }
    for sql in ["pragma data_store_directory = '/tmp'", "pragma nosuch", "pragma key = 'x'"] {
        assert!(refused(&kit, sql).await.unwrap().contains("not known"), "{sql}");
    }
    for sql in ["select * from pragma_hard_heap_limit(1000)", "create table x as select * from pragma_mmap_size(9)"] {
        // Those that change something have no table-valued form.
        assert!(kit.engine.prepare_template(&kit.server(), &base_and(&[("0003_p.sql", sql)])).await.is_err(), "{sql}");
    }
    assert_eq!(process(&db), before);
}

#[tokio::test]
async fn what_projects_write_keeps_working() {
    let kit = Kit::new();
    let usual =
        "pragma foreign_keys = on; pragma journal_mode = WAL; pragma busy_timeout = 5000; pragma encoding = 'UTF-8';
        pragma cache_size = -2000; pragma temp_store = memory; pragma recursive_triggers = on; pragma optimize;
        pragma user_version = 7; pragma application_id = 8; pragma auto_vacuum = none; pragma defer_foreign_keys = on;
        pragma legacy_alter_table = off; pragma foreign_key_check; pragma integrity_check; pragma table_info(tasks);
        pragma case_sensitive_like = off; pragma secure_delete = on; pragma page_size = 4096; pragma synchronous;
        select * from pragma_table_info('tasks'); analyze; reindex;";
    assert_eq!(refused(&kit, usual).await, None);
}

#[tokio::test]
async fn no_statement_of_a_migration_reaches_another_file() {
    let kit = Kit::new();
    let (tenant, other) = (kit.provisioned(&set(&BASE)).await, kit.provisioned(&set(&BASE)).await);
    let path = other.path().to_string_lossy().into_owned();
    let (folder, file) = path.rsplit_once('/').unwrap();
    let copy = kit.root.path().join("copy.db");
    for statement in [
        format!("attach '{path}' as x"),
        format!("attach '{folder}/' || '{file}' as x"),
        format!("attach (select '{path}') as x"),
        format!("attach 'file:{path}?mode=ro' as x"),
        format!("/* */ ATTACH\nDATABASE cast('{path}' as text) AS [x]"),
        format!("attach coalesce('{path}', 1) as x; create table stolen as select * from x.tasks"),
        "attach ':mem' || 'ory:' as x".to_owned(),
        "detach 'ma' || 'in'".to_owned(),
        format!("vacuum into '{}'", copy.display()),
        format!("vacuum main into '{}' || ''", copy.display()),
        "select load_extension('x')".to_owned(),
        "select writefile('/tmp/x', 'y')".to_owned(),
        "select readfile('/etc/passwd')".to_owned(),
        "create virtual table c using csv(filename='/etc/passwd')".to_owned(),
    ] {
        for head in ["", "-- no-transaction\n"] {
            let bad = base_and(&[("0003_bad.sql", &format!("{head}{statement};"))]);
            let error = kit.migrate(&tenant, &bad).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MigrationFailed, "{head}{statement}: {error}");
            assert!(!copy.exists());
        }
    }
    assert_eq!(tenant.number("select count(*) from sqlite_schema where name = 'stolen'"), 0);
}
