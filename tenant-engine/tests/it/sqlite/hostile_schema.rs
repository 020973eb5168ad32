//! Files whose schema nests too deep or grows too large: made by hand, or by a program without our limits. Each verb
//! ends with an answer, and the process lives. Such a file comes back from a backup, or lies where a tenant's file was.

use std::time::Duration;

use rusqlite::Connection;
use tenant_engine::*;

use super::child;
use super::kit::{BASE, Kit, Tenant, base_and, set};

/// Rows of the schema that SQLite has not looked at.
type Objects = Vec<(&'static str, String, String)>;

fn view(name: &str, body: &str) -> (&'static str, String, String) {
    ("view", name.to_owned(), format!("create view {name} as {body}"))
}

fn chain(count: usize, body: impl Fn(usize) -> String) -> Objects {
    let first = view("v0", "select 1 as x");
    std::iter::once(first).chain((1..count).map(|i| view(&format!("v{i}"), &body(i - 1)))).collect()
}

fn nested(open: &str, core: &str, close: &str, levels: usize) -> String {
    format!("{}{core}{}", open.repeat(levels), close.repeat(levels))
}

fn trigger(body: &str) -> (&'static str, String, String) {
    ("trigger", "r".to_owned(), format!("create trigger r after insert on projects begin {body}; end"))
}

/// What comes of a file with such a schema.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Comes {
    /// It serves.
    Back,
    /// No verb runs anything of it.
    Refused,
}
use Comes::{Back, Refused};

fn shapes() -> Vec<(&'static str, Comes, Objects)> {
    let deep = |levels| nested("select*from(", "select 1", ")", levels);
    vec![
        ("a chain of 300 views", Back, chain(300, |i| format!("select * from v{i}"))),
        ("a chain of 2,000 views", Refused, chain(2_000, |i| format!("select * from v{i}"))),
        ("a chain of 2,000 conditions", Refused, chain(2_000, |i| format!("select 1 in (select x from v{i}) as x"))),
        ("views that double", Refused, chain(60, |i| format!("select p.x from v{i} p, v{i} q"))),
        ("unions that double", Refused, chain(60, |i| format!("select * from v{i} union all select * from v{i}"))),
        (
            "values that double",
            Refused,
            chain(60, |i| format!("select (select x from v{i}) + (select x from v{i}) as x")),
        ),
        ("a nested view", Refused, vec![view("v1", &deep(20_000))]),
        ("a nested view of 3 MB", Refused, vec![view("v1", &deep(210_000))]),
        ("a nested view of 30 MB", Refused, vec![view("v1", &deep(2_000_000))]),
        ("a nested view that serves", Back, vec![view("v1", &deep(400))]),
        ("nested parentheses", Refused, vec![view("v1", &format!("select {}", nested("(", "1", ")", 400_000)))]),
        (
            "nested conditions",
            Refused,
            vec![view("v1", &format!("select {}", nested("1 in(select ", "1", ")", 70_000)))],
        ),
        ("a long sum", Refused, vec![view("v1", &format!("select 1{}", "+1".repeat(400_000)))]),
        ("a long union", Refused, vec![view("v1", &format!("select 1{}", " union all select 1".repeat(50_000)))]),
        ("a nested trigger", Refused, vec![trigger(&deep(20_000))]),
        ("a trigger that calls itself", Back, vec![trigger("insert into projects(name) values('again')")]),
        ("triggers that nest", Refused, vec![trigger(&format!("select {}", nested("1 in(select ", "1", ")", 70_000)))]),
    ]
}

/// A tenant whose file has these objects.
async fn forged(kit: &Kit, objects: &Objects) -> Tenant {
    let tenant = kit.provisioned(&set(&BASE)).await;
    let db = Connection::open(tenant.path()).unwrap();
    db.execute_batch("pragma writable_schema = on; begin").unwrap();
    for (kind, name, sql) in objects {
        let table = if *kind == "trigger" { "projects" } else { name };
        let insert = "insert into sqlite_schema(type, name, tbl_name, rootpage, sql) values (?1, ?2, ?3, 0, ?4)";
        db.execute(insert, (kind, name, table, sql)).unwrap();
    }
    db.execute_batch("commit; pragma schema_version = 1000; pragma wal_checkpoint(truncate)").unwrap();
    tenant
}

/// Its answer, which comes at all: far longer than it takes.
async fn answer<T>(verb: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(Duration::from_secs(60), verb).await.unwrap()
}

fn one(sql: &str) -> Vec<SqlStatement> {
    vec![SqlStatement { sql: sql.to_owned(), params: Vec::new() }]
}

async fn restored(kit: &Kit, tenant: &Tenant) -> Result<RestoreOutcome> {
    let image = SnapshotImage::Memory(std::fs::read(tenant.path()).unwrap().into());
    let to = kit.tenant();
    let done = answer(kit.engine.restore_database(&to.at, image, tenant.identity.tenant, &to.identity)).await;
    assert_eq!(done.is_ok(), to.path().exists());
    done
}

/// Reads and writes as requests do.
async fn served(kit: &Kit, tenant: &Tenant, last: &str) -> Result<()> {
    let pool = answer(kit.engine.open_pool(&tenant.at, &tenant.expected())).await?;
    for sql in [&format!("select count(*) from {last}"), "pragma table_list"] {
        answer(
            pool.new_session(AccessMode::Read, SessionLimits::default())
                .run_statements(one(sql), AfterStatements::Commit),
        )
        .await?;
    }
    let write = one("insert into projects(name) values ('x')");
    answer(pool.new_session(AccessMode::Write, SessionLimits::default()).run_statements(write, AfterStatements::Commit))
        .await
        .map(drop)
}

fn only_too_complex<T: std::fmt::Debug>(shape: &str, done: Result<T>) {
    if let Err(error) = done {
        assert_eq!(error.kind(), ErrorKind::SqlTooComplex, "{shape}: {error}");
    }
}

async fn every_verb(kit: &Kit, shape: &str, comes: Comes, objects: &Objects) {
    let tenant = forged(kit, objects).await;
    let (at, expected) = (&tenant.at, tenant.expected());
    let last = objects.last().map(|(kind, name, _)| if *kind == "view" { name.as_str() } else { "projects" }).unwrap();
    let using = [
        restored(kit, &tenant).await.map(drop),
        answer(kit.engine.compute_fingerprint(at, &expected)).await.map(drop),
        served(kit, &tenant, last).await,
    ];
    for done in using {
        assert_eq!(done.is_ok(), comes == Back, "{shape}: {done:?}");
        only_too_complex(shape, done);
    }
    let migrated =
        answer(kit.migrate(&tenant, &base_and(&[("0003_more.sql", "alter table projects add column more")]))).await;
    match (comes, migrated) {
        (Refused, Err(error)) => assert_eq!(error.kind(), ErrorKind::SqlTooComplex, "{shape}: {error}"),
        // A migration has narrower limits.
        (Back, Ok(_)) => {}
        (Back, Err(error)) => assert_eq!(error.kind(), ErrorKind::MigrationFailed, "{shape}: {error}"),
        (Refused, Ok(_)) => panic!("{shape} was migrated"),
    }
    // What keeps it, takes it out of service or looks at it uses nothing of the schema.
    only_too_complex(shape, answer(kit.engine.inspect_database(at, Some(&expected), InspectionDepth::Full)).await);
    only_too_complex(shape, answer(kit.engine.take_snapshot(at, &expected)).await);
    let frozen = Identity { state: IdentityState::Frozen, ..tenant.identity.clone() };
    only_too_complex(shape, answer(kit.engine.freeze_database(at, &expected, &frozen)).await);
    assert!(answer(kit.engine.list_databases(&kit.server(), None)).await.is_ok());
    answer(kit.engine.drop_database(at, None)).await.unwrap();
}

#[tokio::test]
async fn no_schema_ends_the_process_or_keeps_a_verb() {
    const NAME: &str = "sqlite::hostile_schema::no_schema_ends_the_process_or_keeps_a_verb";
    let Some(directory) = child::directory() else {
        let directory = tempfile::tempdir().unwrap();
        return child::succeeds(child::command(NAME, directory.path()));
    };
    let kit = Kit::at(&directory);
    for (shape, comes, objects) in shapes() {
        // What stands last when the process ends is the one to look at.
        eprintln!("{shape}");
        every_verb(&kit, shape, comes, &objects).await;
    }
}

#[tokio::test]
async fn generated_columns_that_multiply_end_in_an_error() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let columns: String = (1..60).map(|i| format!(", c{i} as (c{0} + c{0})", i - 1)).collect();
    let raw = tenant.open();
    raw.execute_batch("create table g(c0); insert into g values (1); pragma writable_schema = on").unwrap();
    let sql = format!("create table g(c0{columns})");
    raw.execute("update sqlite_schema set sql = ?1 where name = 'g'", [sql]).unwrap();
    raw.execute_batch("pragma schema_version = 1000").unwrap();
    drop(raw);
    let pool = kit.engine.open_pool(&tenant.at, &tenant.expected()).await.unwrap();
    for sql in ["select c59 from g", "select * from g"] {
        let mut session = pool.new_session(AccessMode::Read, SessionLimits::default());
        let error = answer(session.run_statements(one(sql), AfterStatements::Commit)).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::MemoryMax | ErrorKind::DeadlineExceeded), "{sql}: {error}");
    }
    let error = answer(kit.engine.compute_fingerprint(&tenant.at, &tenant.expected())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MemoryMax, "{error}");
    answer(kit.engine.inspect_database(&tenant.at, Some(&tenant.expected()), InspectionDepth::Full)).await.unwrap();
}

#[tokio::test]
async fn a_migration_makes_no_text_that_later_connections_refuse() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let long = format!("create view long as select 1 /* {} */ as x;", "x".repeat(1_000_000));
    let error = kit.migrate(&tenant, &base_and(&[("0003_long.sql", &long)])).await.unwrap_err();
    assert!(error.kind() == ErrorKind::MigrationFailed && error.message().contains("longer than 1 MB"), "{error}");
    // A long statement is no long text of the schema.
    let rows = format!("insert into projects(name) values ('{}');", "x".repeat(2_000_000));
    assert_eq!(kit.migrate(&tenant, &base_and(&[("0003_rows.sql", &rows)])).await.unwrap().applied, [3]);
}
