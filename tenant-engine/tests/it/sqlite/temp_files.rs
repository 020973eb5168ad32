//! What statements write to temporary files: on a disk with room it is bounded for each statement, and on a small disk
//! it ends before it refuses anybody's writes for long. Reads that need none go on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tenant_engine::*;

use super::child;
use super::kit::{Kit, Tenant, set};

/// A table, and a view that makes large rows of nothing: 20,000 of 100 KB.
const SCHEMA: (&str, &str) = (
    "0001_rows.sql",
    "create table notes (id integer primary key, text text not null);
     create view big (i, v) as with recursive n(i) as (select 1 union all select i + 1 from n limit 20000)
       select i, printf('%.*c', 100000, 'x') || i from n;",
);

/// Each way in which a statement that reads collects what does not fit into its cache.
const COLLECTORS: [&str; 13] = [
    "select length(v) from big order by v",
    "select count(*) from (select distinct v from big)",
    "select count(distinct v) from big",
    "select count(*) from (select v, count(*) from big group by v)",
    "select count(*) from (select v from big union select v from big)",
    "select count(*) from (select v from big except select v from notes n, big)",
    "with m as materialized (select v from big) select count(*), sum(length(a.v)) from m a",
    "with a as materialized (select * from big), b as materialized (select * from big) \
       select count(*) from a join b on a.v = b.v",
    "select count(*) from big where v in (select v || 'x' from big)",
    "select max(number) from (select length(v), row_number() over (order by v) as number from big)",
    "select max(many) from (select count(*) over () as many, v from big)",
    // A recursive expression keeps what it has seen, and what is still to be done.
    "with recursive n(i, v) as (select 1, '' union select i + 1, printf('%.*c', 100000, 'x') || i from n limit 20000) \
       select count(*) from n",
    "with recursive n(i, v) as (select 1, '' union all select 2 * n.i + b.i, printf('%.*c', 100000, 'x') \
       from n, (select 0 as i union all select 1) b) select count(*) from n",
];

async fn run(pool: &Pool, access: AccessMode, limits: SessionLimits, sql: &str) -> Result<Vec<Rows>> {
    let statement = SqlStatement { sql: sql.to_owned(), params: Vec::new() };
    pool.new_session(access, limits).run_statements(vec![statement], AfterStatements::Commit).await
}

async fn pool(kit: &Kit) -> (Tenant, Pool) {
    let tenant = kit.provisioned(&set(&[SCHEMA])).await;
    let pool = kit.engine.open_pool(&tenant.at, &tenant.expected()).await.unwrap();
    (tenant, pool)
}

/// Longer than any of them needs to reach its limit.
fn patient(temp_bytes_max: usize) -> SessionLimits {
    let minute = Duration::from_secs(60);
    SessionLimits { temp_bytes_max, statement_timeout: minute, transaction_timeout: minute, ..SessionLimits::default() }
}

#[tokio::test]
async fn a_statement_writes_only_so_much_to_temporary_files() {
    let kit = Kit::new();
    let (_tenant, pool) = pool(&kit).await;
    for sql in COLLECTORS {
        let error = run(&pool, AccessMode::Read, patient(16 << 20), sql).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BytesMax, "{sql}: {error}");
        assert!(error.message().contains("16777216 bytes of temporary files"), "{error}");
    }
    // What stays below the limit is answered, and the next statement starts again from nothing.
    let small = "select length(v) from (select * from big where i <= 60) order by v";
    for _ in 0..4 {
        assert_eq!(run(&pool, AccessMode::Read, patient(16 << 20), small).await.unwrap()[0].rows.len(), 60);
    }
    let error =
        run(&pool, AccessMode::Write, SessionLimits::default(), "create temp table t as select 1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SqlForbidden, "{error}");
}

#[tokio::test]
async fn temporary_files_are_in_the_scratch_directory_and_have_no_name() {
    const NAME: &str = "sqlite::temp_files::temporary_files_are_in_the_scratch_directory_and_have_no_name";
    // In a process of its own, whose open files are those of one test.
    let Some(directory) = child::directory() else {
        let directory = tempfile::tempdir().unwrap();
        return child::succeeds(child::command(NAME, directory.path()));
    };
    let kit = Kit::at(&directory);
    let (_tenant, pool) = pool(&kit).await;
    let running = tokio::spawn(async move { run(&pool, AccessMode::Read, patient(256 << 20), COLLECTORS[0]).await });
    let scratch = directory.join("scratch");
    while !open_files().iter().any(|file| file.starts_with(&scratch)) {
        assert!(!running.is_finished(), "{:?}", running.await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // SQLite removes the name right after it has opened the file.
    while std::fs::read_dir(&scratch).unwrap().count() > 0 {
        assert!(!running.is_finished(), "{:?}", running.await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(running.await.unwrap().unwrap_err().kind(), ErrorKind::BytesMax);
    assert!(!open_files().iter().any(|file| file.starts_with(&scratch)));
}

fn open_files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect()
}

/// Takes all but so many bytes.
fn fill_up(directory: &Path, but: u64) -> PathBuf {
    let filler = directory.join("filler");
    let free = disk::DiskSpace::at_path(directory).unwrap().free.bytes;
    let file = std::fs::File::create(&filler).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free - but).unwrap();
    filler
}

/// Whatever a gauge remembered is forgotten by then.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn on_a_small_disk_large_sorts_end_and_small_reads_and_writes_go_on() {
    const NAME: &str = "sqlite::temp_files::on_a_small_disk_large_sorts_end_and_small_reads_and_writes_go_on";
    let Some(directory) = child::directory() else {
        let directory = tempfile::tempdir().unwrap();
        return child::succeeds(child::mounted("mount -t tmpfs -o size=200m tmpfs \"$0\"", NAME, directory.path()));
    };
    let kit = Kit::at(&directory);
    let ((_greedy, pool), (_other, other)) = (pool(&kit).await, pool(&kit).await);
    let write = "insert into notes (text) values ('small')";
    for sql in COLLECTORS {
        let error = run(&pool, AccessMode::Read, patient(usize::MAX), sql).await.unwrap_err();
        assert_eq!((error.kind(), error.kind().is_transient()), (ErrorKind::DiskLow, true), "{sql}: {error}");
        assert!(error.message().contains("temporary files"), "{error}");
        run(&other, AccessMode::Write, SessionLimits::default(), write).await.unwrap();
    }
    // A statement that writes is stopped, too, and gives its room back.
    for sql in
        ["insert into notes (text) select v from big order by v desc", "insert into notes (text) select v from big"]
    {
        let error = run(&pool, AccessMode::Write, patient(usize::MAX), sql).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::DiskLow | ErrorKind::DiskFull), "{sql}: {error}");
        a_moment().await;
        run(&other, AccessMode::Write, SessionLimits::default(), write).await.unwrap();
    }

    // Low for temporary files, not for writes.
    let filler = fill_up(&directory, 18 << 20);
    a_moment().await;
    run(&other, AccessMode::Write, SessionLimits::default(), write).await.unwrap();
    let long = "with recursive n(i) as (select 1 union all select i + 1 from n limit 2000000) select count(*) from n";
    run(&pool, AccessMode::Read, SessionLimits::default(), long).await.unwrap();
    let error = run(&pool, AccessMode::Read, SessionLimits::default(), COLLECTORS[0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskLow, "{error}");
    std::fs::remove_file(filler).unwrap();
    assert!(disk::DiskSpace::at_path(&directory).unwrap().free.bytes > 180 << 20, "what was collected is gone");
}
