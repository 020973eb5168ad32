//! Applying what is pending.

use std::time::Duration;

use tenant_engine::*;

use super::kit::{BASE, Kit, Tenant, base_and, set};

const COLUMN: (&str, &str) = (
    "0003_done.sql",
    "alter table tasks add column done integer not null default 0;\ncreate index by_done on tasks(done);",
);
/// The documented way to change a column, in one transaction.
const REBUILD: (&str, &str) = (
    "0004_rebuild.sql",
    "create table projects_new(id integer primary key, name text not null, slug text);
     insert into projects_new(id, name) select id, name from projects;
     drop table projects;
     alter table projects_new rename to projects;",
);

#[tokio::test]
async fn pending_versions_are_applied_once() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let head = base_and(&[COLUMN]);
    let first = kit.migrate(&tenant, &head).await.unwrap();
    assert_eq!((first.from_version, first.to_version, first.applied), (Some(2), Some(3), vec![3]));
    let again = kit.migrate(&tenant, &head).await.unwrap();
    assert_eq!((again.from_version, again.to_version, again.applied), (Some(3), Some(3), vec![]));
    assert_eq!(tenant.number("select count(*) from pragma_table_info('tasks') where name = 'done'"), 1);
    assert_eq!(tenant.number("select count(*) from _sqlx_migrations where success = 1 and execution_time > 0"), 3);
}

#[tokio::test]
async fn a_target_stops_there_and_an_unknown_one_is_refused() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&MigrationSet::empty_set()).await;
    let head = base_and(&[COLUMN]);
    let some = kit.engine.migrate_database(&tenant.at, &tenant.expected(), &head, Some(2)).await.unwrap();
    assert_eq!(some.applied, [1, 2]);
    let none = kit.engine.migrate_database(&tenant.at, &tenant.expected(), &head, Some(7)).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::MigrationInvalid);
}

#[tokio::test]
async fn a_failing_version_changes_nothing_and_keeps_those_before() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let bad = base_and(&[COLUMN, ("0004_bad.sql", "create table fine(x);\n\n-- why\ninsert into nope values(1);")]);
    let error = kit.migrate(&tenant, &bad).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MigrationFailed);
    assert_eq!(error.message(), "version 4 (bad), line 4: no such table: nope");
    assert_eq!(tenant.number("select max(version) from _sqlx_migrations"), 3);
    assert_eq!(tenant.number("select count(*) from sqlite_schema where name = 'fine'"), 0);
}

#[tokio::test]
async fn a_rebuild_keeps_the_children_of_a_cascade() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    tenant
        .open()
        .execute_batch(
            "insert into projects values(1, 'p'); insert into tasks(title, project_id) values('a', 1), ('b', 1)",
        )
        .unwrap();
    let head = base_and(&[COLUMN, REBUILD]);
    assert_eq!(kit.migrate(&tenant, &head).await.unwrap().applied, [3, 4]);
    assert_eq!(tenant.number("select count(*) from tasks"), 2, "no cascade fired");
    assert_eq!(tenant.number("select count(*) from pragma_foreign_key_check"), 0);
    assert!(
        tenant.open().execute_batch("insert into tasks(project_id) values(9)").is_err(),
        "the key still points there"
    );

    // The same by renaming the old table away first.
    let other = kit.provisioned(&set(&BASE)).await;
    other.open().execute_batch("insert into projects values(1, 'p'); insert into tasks(project_id) values(1)").unwrap();
    let renamed = "pragma legacy_alter_table=on; alter table projects rename to old;
                   create table projects(id integer primary key, name text); insert into projects select * from old;
                   drop table old; pragma legacy_alter_table=off;";
    kit.migrate(&other, &base_and(&[("0003_r.sql", renamed)])).await.unwrap();
    assert_eq!(other.number("select count(*) from tasks"), 1);
}

#[tokio::test]
async fn a_rebuild_passes_over_rows_that_had_no_parent_before() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let old = tenant.open();
    old.execute_batch("pragma foreign_keys=off; insert into tasks(project_id) values(77)").unwrap();
    drop(old);
    kit.migrate(&tenant, &base_and(&[COLUMN, REBUILD])).await.unwrap();
    assert_eq!(tenant.number("select count(*) from pragma_foreign_key_check"), 1, "the old one is still there");
}

#[tokio::test]
async fn a_constraint_met_at_commit_names_the_version() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let late = ("0003_late.sql", "pragma defer_foreign_keys=on; insert into tasks(project_id) values(5);");
    let error = kit.migrate(&tenant, &base_and(&[late])).await.unwrap_err();
    assert_eq!((error.kind(), error.message().contains("version 3 (late)")), (ErrorKind::MigrationFailed, true));
    assert_eq!(tenant.number("select count(*) from tasks"), 0);
}

#[tokio::test]
async fn statements_that_break_the_books_are_refused() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    for (statement, why) in [
        ("rollback", "undo the whole file"),
        ("begin; rollback transaction", "undo the whole file"),
        ("explain begin; explain commit", "cannot be ended"),
        ("attach '/etc/passwd' as x", "ATTACH"),
        ("attach '' as x", "ATTACH"),
        ("vacuum", "cannot VACUUM from within a transaction"),
        ("delete from _sqlx_migrations", "belongs to the engine"),
        ("insert into _fleet_identity select * from _fleet_identity", "belongs to the engine"),
        ("update _FLEET_identity set generation = 9", "belongs to the engine"),
        ("drop table _fleet_identity", "belongs to the engine"),
        ("alter table _fleet_identity add column x", "belongs to the engine"),
        ("create index i on _fleet_identity(state)", "belongs to the engine"),
        ("create trigger t after insert on _sqlx_migrations begin select 1; end", "belongs to the engine"),
        ("create temp table _fleet_identity(x)", "belongs to the engine"),
        ("create view _fleet_x as select 1", "belongs to the engine"),
        ("create trigger _fleet_fence_x before insert on tasks begin select 1; end", "belongs to the engine"),
        ("alter table tasks rename to _fleet_tasks", "name of the engine's"),
        ("pragma writable_schema=on", "set by the engine"),
        ("pragma journal_mode=delete", "set by the engine"),
        ("pragma locking_mode=normal", "set by the engine"),
    ] {
        let bad = base_and(&[("0003_bad.sql", &format!("create table x3(a);\n{statement};"))]);
        let error = kit.migrate(&tenant, &bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MigrationFailed, "{statement}: {error}");
        assert!(error.message().contains(why), "{statement}: {error}");
        assert!(error.message().contains("line 2") || statement.contains("rename"), "{statement}: {error}");
        assert_eq!(tenant.number("select count(*) from sqlite_schema where name = 'x3'"), 0, "{statement}");
    }
    assert_eq!(tenant.number("select generation from _fleet_identity"), 1);
}

#[tokio::test]
async fn a_file_without_transaction_may_vacuum_and_hold_its_own() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let bare = [
        ("0003_v.sql", "-- no-transaction\nvacuum;"),
        (
            "0004_t.sql",
            "-- no-transaction\npragma journal_mode=wal;\npragma foreign_keys=off;\nbegin;\ncreate table own(x);\ncommit;",
        ),
    ];
    assert_eq!(kit.migrate(&tenant, &base_and(&bare)).await.unwrap().applied, [3, 4]);
    assert_eq!(tenant.number("select count(*) from own"), 0);
    assert!(
        kit.engine.prepare_template(&kit.server(), &base_and(&bare)).await.is_ok(),
        "a template takes the same road"
    );
    for statement in ["vacuum into 'copy.db'", "attach 'other.db' as o", "delete from _fleet_identity"] {
        let bad = base_and(&[("0003_bad.sql", &format!("-- no-transaction\n{statement};"))]);
        let fresh = kit.provisioned(&set(&BASE)).await;
        let error = kit.migrate(&fresh, &bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MigrationFailed, "{statement}: {error}");
    }
}

#[tokio::test]
async fn a_file_without_transaction_that_stops_halfway_is_dirty_until_a_human_looked() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let half = base_and(&[("0003_half.sql", "-- no-transaction\ncreate table half(x);\ninsert into nope values(1);")]);
    let error = kit.migrate(&tenant, &half).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MigrationDirty);
    assert!(error.message().contains("line 3: no such table: nope"), "{error}");
    assert_eq!(tenant.number("select success from _sqlx_migrations where version = 3"), 0);
    let again = kit.migrate(&tenant, &half).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::MigrationDirty, "it is not run again");
    assert_eq!(tenant.number("select count(*) from half"), 0);

    // A first statement that fails has changed nothing: fix the cause and go on.
    let other = kit.provisioned(&set(&BASE)).await;
    let first = base_and(&[("0003_first.sql", "-- no-transaction\ninsert into nope values(1);")]);
    assert_eq!(kit.migrate(&other, &first).await.unwrap_err().kind(), ErrorKind::MigrationFailed);
    assert_eq!(other.number("select count(*) from _sqlx_migrations"), 2);

    // One that forgets its COMMIT is not half committed.
    let open = base_and(&[("0003_open.sql", "-- no-transaction\nbegin;\ncreate table open(x);")]);
    assert_eq!(kit.migrate(&other, &open).await.unwrap_err().kind(), ErrorKind::MigrationFailed);
    assert_eq!(other.number("select count(*) from sqlite_schema where name = 'open'"), 0);
    assert_eq!(other.number("select count(*) from _sqlx_migrations where not success"), 0);
}

#[tokio::test]
async fn the_ledger_decides_and_each_disagreement_is_told_apart() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&base_and(&[COLUMN])).await;
    for (head, kind) in [
        (set(&BASE), ErrorKind::MigrationAhead),
        (base_and(&[("0003_done.sql", "select 1;")]), ErrorKind::MigrationChanged),
        (base_and(&[("0004_x.sql", "select 1;")]), ErrorKind::MigrationMissing),
    ] {
        let error = kit.migrate(&tenant, &head).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains("version 3"), "{error}");
    }
}

#[tokio::test]
async fn somebody_elses_database_is_left_alone() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let head = base_and(&[COLUMN]);
    let right = tenant.expected();
    for (expected, kind) in [
        (ExpectedIdentity { tenant: TenantId::generate(), ..right.clone() }, ErrorKind::WrongTenant),
        (ExpectedIdentity { fleet: FleetId::generate(), ..right.clone() }, ErrorKind::WrongTenant),
        (ExpectedIdentity { generation: Generation(2), ..right.clone() }, ErrorKind::Fenced),
        (ExpectedIdentity { states: vec![IdentityState::Building], ..right.clone() }, ErrorKind::Fenced),
    ] {
        assert_eq!(kit.engine.migrate_database(&tenant.at, &expected, &head, None).await.unwrap_err().kind(), kind);
    }
    assert_eq!(tenant.number("select max(version) from _sqlx_migrations"), 2);
}

#[tokio::test]
async fn a_writer_makes_it_busy_and_a_reader_does_not() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let head = base_and(&[COLUMN]);
    let app = tenant.open();
    app.execute_batch("begin immediate; insert into projects(name) values('held')").unwrap();
    let begun = std::time::Instant::now();
    let error = kit.migrate(&tenant, &head).await.unwrap_err();
    assert_eq!((error.kind(), error.kind().is_transient()), (ErrorKind::Busy, true), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "no worker is held for long");
    app.execute_batch("commit").unwrap();

    let reader = tenant.open();
    reader.execute_batch("begin; select * from projects").unwrap();
    assert_eq!(kit.migrate(&tenant, &head).await.unwrap().applied, [3]);
    assert_eq!(reader.query_row("select count(*) from projects", [], |r| r.get::<_, i64>(0)).unwrap(), 1);
}

#[tokio::test]
async fn workers_racing_for_one_tenant_apply_each_version_once() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let counted = base_and(&[
        ("0003_c.sql", "create table c(x); insert into c values(1);"),
        ("0004_c.sql", "insert into c values(2);"),
    ]);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (engine, tenant, set) = (kit.engine.clone(), tenant.clone(), counted.clone());
        tasks.spawn(async move { engine.migrate_database(&tenant.at, &tenant.expected(), &set, None).await });
    }
    for outcome in tasks.join_all().await {
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        }
    }
    kit.migrate(&tenant, &counted).await.unwrap();
    assert_eq!(tenant.number("select count(*) from c"), 2);
}

#[tokio::test]
async fn a_missing_an_empty_and_a_garbage_file_are_told_apart() {
    let kit = Kit::new();
    let head = set(&BASE);
    let tenant = kit.tenant();
    assert_eq!(kit.migrate(&tenant, &head).await.unwrap_err().kind(), ErrorKind::Missing);
    assert!(tenant.files().is_empty(), "nothing was created");
    std::fs::create_dir(tenant.path().parent().unwrap()).unwrap();
    std::fs::write(tenant.path(), "").unwrap();
    assert_eq!(kit.migrate(&tenant, &head).await.unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::write(tenant.path(), vec![7; 8192]).unwrap();
    assert_eq!(kit.migrate(&tenant, &head).await.unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::remove_file(tenant.path()).unwrap();
    std::fs::create_dir(tenant.path()).unwrap();
    assert_eq!(kit.migrate(&tenant, &head).await.unwrap_err().kind(), ErrorKind::Io);
    // Somebody's own SQLite file is not ours to migrate.
    std::fs::remove_dir(tenant.path()).unwrap();
    tenant.open().execute_batch("create table theirs(x)").unwrap();
    assert_eq!(kit.migrate(&tenant, &head).await.unwrap_err().kind(), ErrorKind::WrongTenant);
}

#[tokio::test]
async fn the_log_of_a_tenant_nobody_opens_stays_bounded() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let mut files =
        vec![("0003_fill.sql".to_owned(), "insert into projects(name) values(hex(randomblob(300000)));".to_owned())];
    for version in 4..10 {
        files.push((format!("{version:04}_fill.sql"), files[0].1.clone()));
        let files: Vec<_> = files.iter().map(|(name, sql)| (name.as_str(), sql.as_str())).collect();
        kit.migrate(&tenant, &base_and(&files)).await.unwrap();
        let log = std::fs::metadata(tenant.path().with_extension("db-wal")).map_or(0, |log| log.len());
        assert!(log < 2 << 20, "{log} bytes after version {version}");
    }
    let seen = kit.engine.inspect_database(&tenant.at, Some(&tenant.expected()), InspectionDepth::Full).await.unwrap();
    assert_eq!((seen.schema_version(), seen.problems.len()), (Some(9), 0));
}

#[tokio::test]
async fn limits_that_sqlite_calls_a_full_disk_are_the_migration_s_own_failure() {
    let kit = Kit::new();
    let numbered = (
        "0003_n.sql",
        "create table n(id integer primary key autoincrement);\ninsert into n values(9223372036854775807);",
    );
    let tenant = kit.provisioned(&base_and(&[numbered])).await;
    for (sql, word) in [
        ("insert into n values(null);", "AUTOINCREMENT"),
        ("pragma max_page_count = 1;\ncreate table large(b);\ninsert into large values(zeroblob(900000));", "page"),
    ] {
        let error = kit.migrate(&tenant, &base_and(&[numbered, ("0004_full.sql", sql)])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MigrationFailed, "{error}");
        assert!(error.message().contains("version 4") && error.message().contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_version_that_fails_leaves_no_log_behind() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let fill = "with n(i) as (select 1 union all select i + 1 from n where i < 40)
                insert into projects(name) select hex(randomblob(100000)) from n;";
    let failing = base_and(&[("0003_fill.sql", &format!("{fill} insert into nope values(1);"))]);
    assert_eq!(kit.migrate(&tenant, &failing).await.unwrap_err().kind(), ErrorKind::MigrationFailed);
    let log = std::fs::metadata(tenant.path().with_extension("db-wal")).map_or(0, |log| log.len());
    assert!(log < 1 << 20, "{log} bytes");
    assert_eq!(tenant.number("select count(*) from projects"), 0);
}

/// Bytes in the log beside a tenant's database.
fn log_bytes(tenant: &Tenant) -> u64 {
    std::fs::metadata(tenant.path().with_extension("db-wal")).map_or(0, |log| log.len())
}

#[tokio::test]
async fn a_failed_version_leaves_no_log_beside_a_database_that_others_have_open() {
    let kit = Kit::new();
    let filled = "with n(i) as (select 1 union all select i + 1 from n where i < 200)
                  insert into projects(name) select hex(randomblob(50000)) from n;";
    let base = [("0003_fill.sql", filled)];
    let tenant = kit.provisioned(&base_and(&base)).await;
    let failing = [
        ("0004_bad.sql", "update projects set name = name || 'x'; insert into nope values(1);"),
        ("0004_bad.sql", "-- no-transaction\nupdate projects set name = name || 'x'; insert into nope values(1);"),
    ];
    let pool = kit.engine.open_pool(&tenant.at, &tenant.expected()).await.unwrap();
    let statement = SqlStatement { sql: "select count(*) from projects".to_owned(), params: Vec::new() };
    pool.new_session(AccessMode::Read, SessionLimits::default())
        .run_statements(vec![statement], AfterStatements::Commit)
        .await
        .unwrap();
    let other = tenant.open();
    other.execute_batch("begin; select count(*) from projects; commit").unwrap();
    for file in failing {
        kit.migrate(&tenant, &base_and(&[base[0], file])).await.unwrap_err();
        assert!(log_bytes(&tenant) < 2 << 20, "{}: {} bytes", file.1, log_bytes(&tenant));
    }
    drop(other);
    pool.close().await;
}

#[tokio::test]
async fn a_long_file_with_a_byte_order_mark_is_applied() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let name = "x".repeat(1_000);
    let rows: String = (0..5_000).map(|id| format!("insert into projects values({id}, '{name}');\n")).collect();
    let long = base_and(&[("0003_long.sql", &format!("\u{feff}{rows}"))]);
    kit.migrate(&tenant, &long).await.unwrap();
    assert_eq!(tenant.number("select count(*) from projects"), 5_000);
}
