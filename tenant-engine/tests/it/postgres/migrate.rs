//! Migrations: what is refused, what an error says, files without transaction and how they go on.

use tenant_engine::*;

use super::kit::{BASE, Kit, Tenant, base_and, set};

async fn fails(kit: &Kit, tenant: &Tenant, sql: &str) -> String {
    let error = kit.migrate(tenant, &base_and(&[("3_bad.sql", sql)])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MigrationFailed, "{sql}: {error}");
    error.message().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_version_line_and_reason() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    for (sql, parts) in [
        ("create table a(x int);\n\ninsert into\n nowhere values (1);", ["version 3 (bad)", "line 4", "nowhere"]),
        ("create table \u{e4}(x int);\nselect '\u{20ac}', nope;", ["version 3 (bad)", "line 2", "nope"]),
        (
            "insert into projects values (1, 'a');\n-- again\ninsert into projects values (1, 'secret');",
            ["version 3", "line 3", "projects_pkey"],
        ),
        ("select 1;\nselec 2;", ["version 3", "line 2", "syntax error"]),
        ("create table a(x int);\nrollback;", ["version 3", "line 2", "ROLLBACK TO"]),
        ("begin;\ncreate table a(x int);\ncommit;\nselect nope;", ["version 3", "line 4", "nope"]),
        ("begin;\ncreate table a(x int); commit;\nselec 2;", ["version 3", "line 3", "syntax error"]),
        ("create index concurrently i on projects(name);", ["version 3", "line 1", "no-transaction"]),
        (
            "alter table tasks alter constraint tasks_project_id_fkey deferrable initially deferred;\n\
             insert into tasks(project_id) values (77);",
            ["version 3", "tasks_project_id_fkey", ""],
        ),
        ("copy projects from stdin;", ["version 3", "line 1", "psql"]),
        ("select 1;\ncopy projects to stdout;", ["version 3", "line 2", "TO STDOUT"]),
        ("\\restrict x\nselect 1;", ["version 3", "line 1", "command of psql"]),
        ("delete from _sqlx_migrations;", ["version 3", "line 1", "belongs to the engine"]),
        ("do $$ begin commit; end $$;", ["version 3", "line 1", "transaction"]),
        (
            "create view v as select * from tasks;\ndrop table tasks;",
            ["line 2", "detail: view v depends on table tasks", "hint: Use DROP ... CASCADE"],
        ),
        (
            "insert into projects values (7, 'a'), (8, 'a');\ncreate unique index u on projects(name);",
            ["line 2", "detail: Key (name)=(a) is duplicated", ""],
        ),
        (
            "alter table projects add check (name <> 'secret');\ninsert into projects values (9, 'secret');",
            ["line 2", "violates check constraint", ""],
        ),
    ] {
        let message = fails(&kit, &tenant, sql).await;
        assert!(parts.iter().all(|part| message.contains(part)), "{sql}: {message}");
        assert!(!message.contains("secret"), "values stay out: {message}");
    }
    assert_eq!(kit.ask(&tenant, "select count(*) from pg_class where relname = 'a'"), "0");
    let dumped =
        "comment on schema public is 'standard'; comment on database x is 'y'; comment on table projects is 'z';";
    let marked = base_and(&[("3_dumped.sql", &format!("\u{feff}{dumped}"))]);
    let other = kit.provisioned(&set(&BASE)).await;
    assert_eq!(kit.migrate(&other, &marked).await.unwrap().applied, [3]);
    assert_eq!(kit.ask(&other, "select obj_description('projects'::regclass)"), "z");
    let value = [
        ("3_dumped.sql", &*format!("\u{feff}{dumped}")),
        ("4_type.sql", "create type mood as enum ('a');"),
        ("5_value.sql", "alter type mood add value 'x';\nselect 'x'::mood;"),
    ];
    let error = kit.migrate(&other, &base_and(&value)).await.unwrap_err();
    for part in ["line 2", "in a version before this one", "hint: New enum values must be committed"] {
        assert!(error.message().contains(part), "{error}");
    }
    // A setting that would change what a string is does not outlive its version.
    let sly = base_and(&[
        ("3_set.sql", "set standard_conforming_strings = off;"),
        ("4_sly.sql", "select 'a\\''; commit; create table sly(a int); --';"),
    ]);
    kit.migrate(&tenant, &sly).await.unwrap();
    assert_eq!(kit.ask(&tenant, "select count(*) from pg_class where relname = 'sly'"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_the_application_is_waited_for_two_seconds_only() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let mut app = super::logins::enter(&kit, &tenant, AccessMode::Write, tenant.database()).await.unwrap();
    sqlx::raw_sql("begin; insert into projects values (1, 'a')").execute(&mut app).await.unwrap();
    let began = std::time::Instant::now();
    let add = base_and(&[("3_add.sql", "alter table projects add column x int;")]);
    let error = kit.migrate(&tenant, &add).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.message().contains("version 3") && began.elapsed().as_secs() < 8, "{error}");
    sqlx::raw_sql("commit").execute(&mut app).await.unwrap();
    assert_eq!(kit.migrate(&tenant, &add).await.unwrap().applied, [3]);
}

const BARE: &str = "-- no-transaction\ncreate unique index concurrently if not exists by_name on projects(name);\n\
                    create index concurrently by_title on public.tasks (title);\nvacuum projects;\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_transaction_is_run_statement_by_statement() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let bare = base_and(&[("3_bare.sql", BARE), ("4_after.sql", "create table after(a int);")]);
    assert_eq!(kit.migrate(&tenant, &bare).await.unwrap().applied, [3, 4]);
    let owner =
        "select string_agg(relowner::regrole::text, ',') from pg_class where relname in ('by_name', 'by_title')";
    assert_eq!(kit.ask(&tenant, owner), "fleet_owner,fleet_owner");
    assert!(kit.migrate(&tenant, &bare).await.unwrap().applied.is_empty());
    let template = kit.provisioned(&bare).await;
    assert_eq!(kit.ask(&template, "select count(*) from pg_indexes where indexname in ('by_name', 'by_title')"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_concurrent_index_leaves_nothing_and_can_be_repeated() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    kit.ask(&tenant, "insert into projects values (1, 'same'), (2, 'same')");
    let bare = base_and(&[("3_bare.sql", BARE)]);
    for _ in 0..2 {
        let error = kit.migrate(&tenant, &bare).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MigrationFailed, "{error}");
        assert!(error.message().contains("line 2") && error.message().contains("by_name"), "{error}");
        assert_eq!(kit.ask(&tenant, "select count(*) from pg_index where not indisvalid"), "0");
        assert_eq!(kit.ask(&tenant, "select count(*) from _sqlx_migrations"), "2");
    }
    kit.ask(&tenant, "delete from projects where id = 2");
    assert_eq!(kit.migrate(&tenant, &bare).await.unwrap().applied, [3]);
}

/// What a killed process leaves: the row that says it began, an invalid index, a finished one.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_off_concurrent_index_is_cleared_and_built_again() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let bare = base_and(&[("3_bare.sql", BARE)]);
    let checksum = bare.get(3).unwrap().checksum.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let begun = format!("insert into _sqlx_migrations values (3, 'bare', now(), false, '\\x{checksum}', -1)");
    kit.ask(&tenant, &begun);
    kit.ask(
        &tenant,
        "set role fleet_owner; create unique index by_name on projects(name); create index by_title on tasks(title)",
    );
    kit.ask(&tenant, "update pg_index set indisvalid = false where indexrelid = 'by_name'::regclass");
    let seen = kit.engine.inspect_database(&tenant.at, None, InspectionDepth::Full).await.unwrap();
    assert!(seen.problems.len() == 1 && seen.problems[0].contains("by_name"), "{:?}", seen.problems);
    assert_eq!(kit.migrate(&tenant, &bare).await.unwrap().applied, [3]);
    assert_eq!(kit.ask(&tenant, "select count(*) from pg_index where not indisvalid"), "0");
    assert_eq!(kit.ask(&tenant, "select count(*) from pg_indexes where indexname in ('by_name', 'by_title')"), "2");

    // The same row under another text, or of a file that may not be repeated, needs a human.
    let changed = base_and(&[("3_bare.sql", "-- no-transaction\nvacuum tasks;")]);
    kit.ask(&tenant, "update _sqlx_migrations set success = false where version = 3");
    assert_eq!(kit.migrate(&tenant, &changed).await.unwrap_err().kind(), ErrorKind::MigrationDirty);
    assert_eq!(kit.migrate(&tenant, &bare).await.unwrap().applied, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_file_that_cannot_be_repeated_is_dirty() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let half = "-- no-transaction\ninsert into projects values (1, 'a');\n\ninsert into projects values (1, 'b');";
    let half = base_and(&[("3_half.sql", half)]);
    let error = kit.migrate(&tenant, &half).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MigrationDirty, "{error}");
    assert!(error.message().contains("line 4") && error.message().contains("success to true"), "{error}");
    assert_eq!(kit.migrate(&tenant, &half).await.unwrap_err().kind(), ErrorKind::MigrationDirty);
    let first = base_and(&[("3_half.sql", "-- no-transaction\ninsert into nowhere values (1);\nselect 1;")]);
    let other = kit.provisioned(&set(&BASE)).await;
    assert_eq!(kit.migrate(&other, &first).await.unwrap_err().kind(), ErrorKind::MigrationFailed);
    assert_eq!(kit.ask(&other, "select count(*) from _sqlx_migrations"), "2", "nothing has happened");
}

#[tokio::test(flavor = "multi_thread")]
async fn enums_grow_and_are_used_by_the_next_version() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let more = base_and(&[
        ("3_type.sql", "create type mood as enum ('ok'); create table m(mood mood);"),
        ("4_value.sql", "-- no-transaction\nalter type mood add value if not exists 'sad';"),
        ("5_use.sql", "insert into m values ('sad');\nset search_path = nowhere;"),
        ("6_path.sql", "create table where_it_belongs(a int);"),
    ]);
    assert_eq!(kit.migrate(&tenant, &more).await.unwrap().applied, [3, 4, 5, 6]);
    assert_eq!(kit.ask(&tenant, "select to_regclass('public.where_it_belongs')"), "where_it_belongs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_a_migration_raises_is_its_own_failure() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    for state in
        ["57P01", "57P03", "53300", "53100", "53200", "XX001", "XX000", "28P01", "08006", "58030", "40001", "55P03"]
    {
        let raise = format!("raise exception 'the author''s words' using errcode = '{state}';");
        let block = format!("do $$ begin {raise} end $$;");
        let function =
            format!("create function f() returns int language plpgsql as $$ begin {raise} end $$;\nselect f();");
        for sql in [&block, &function] {
            let message = fails(&kit, &tenant, sql).await;
            assert!(message.contains("version 3") && message.contains("the author's words"), "{state}: {message}");
        }
        let bare = format!("-- no-transaction\n{block}");
        let error = kit.migrate(&tenant, &base_and(&[("3_bare.sql", &bare)])).await.unwrap_err();
        let own = matches!(error.kind(), ErrorKind::MigrationFailed | ErrorKind::MigrationDirty);
        assert!(own && error.message().contains("the author's words"), "{state}: {:?} {error}", error.kind());
        kit.ask(&tenant, "delete from _sqlx_migrations where version = 3");
    }
    let wide = "create table wide(v text primary key);\ninsert into wide select string_agg(md5(i::text), '') \
                from generate_series(1, 1000) i;";
    assert!(fails(&kit, &tenant, wide).await.contains("index row"));
    let pending = "alter table tasks alter constraint tasks_project_id_fkey deferrable initially deferred;\n\
                   insert into projects values (9, 'nine');\ninsert into tasks(project_id) values (9);\n\
                   alter table tasks add column more int;";
    assert!(fails(&kit, &tenant, pending).await.contains("pending trigger events"));
}
