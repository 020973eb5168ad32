//! Many users of one file: other pools, other processes, cancelled callers, heavy neighbours.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tenant_engine::sqlite::SqliteEngine;
use tenant_engine::{AccessMode, AfterStatements, Engine, ErrorKind, Pool, SessionLimits, SqlValue};

use super::fixture::{Fixture, cell, keep, limits, options, read, statement, write};

/// Set for the child process only, to the file it has to lock.
const CHILD: &str = "TENANT_ENGINE_TEST_LOCKS";

#[expect(clippy::disallowed_methods, reason = "a child process of this test learns its task so")]
fn child_task() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// Not a test of its own: what [`locked_by_another_process`] starts. Holds the write lock until its input ends.
#[test]
fn child_holds_the_write_lock() {
    let Some(path) = child_task() else { return };
    let db = Connection::open(path).unwrap();
    db.execute_batch("begin immediate; insert into t values(77, 'of the child')").unwrap();
    println!("\nlocked");
    std::io::stdin().lines().for_each(drop);
    db.execute_batch("commit").unwrap();
}

#[tokio::test]
async fn another_process_with_the_lock_is_waited_for_without_a_thread() {
    // One worker more than the engine keeps for requests: were any held by the wait, the others would starve.
    let fixture = Fixture::with(|options| options.workers = Some(3));
    let tenant = fixture.tenant();
    let pool = fixture.pool(&tenant).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sqlite_pool::contention::child_holds_the_write_lock", "--nocapture"])
        .env(CHILD, tenant.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "locked"));

    // Not for ever.
    let mut session = pool.new_session(AccessMode::Write, limits(150, 10_000));
    let error = session.run_statements(vec![statement("delete from t")], AfterStatements::Commit).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");

    // And meanwhile everything else goes on: this tenant's readers, and other tenants' writers.
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { write(&pool, "insert into t values(2, 'two')").await }
    });
    let neighbour = fixture.pool(&fixture.tenant()).await;
    for number in 10..40 {
        assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
        write(&neighbour, &format!("insert into t values({number}, 'n{number}')")).await.unwrap();
    }
    assert!(!waiting.is_finished());
    child.stdin.take().unwrap().flush().unwrap();
    assert!(child.wait().unwrap().success());
    waiting.await.unwrap().unwrap();
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(3));
}

#[tokio::test]
async fn a_lock_met_while_opening_is_waited_for_too() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    let raw = tenant.raw();
    // Without a write-ahead log an exclusive transaction keeps even the schema from being read.
    raw.execute_batch("pragma journal_mode = delete").unwrap();
    let pool = fixture.pool(&tenant).await;
    raw.execute_batch("begin exclusive").unwrap();
    let mut session = pool.new_session(AccessMode::Write, limits(50, 10_000));
    assert_eq!(session.run_statements(Vec::new(), AfterStatements::Commit).await.unwrap_err().kind(), ErrorKind::Busy);
    let mut waiting = Box::pin(write(&pool, "insert into t values(2, 'two')"));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut waiting).await.is_err());
    raw.execute_batch("commit").unwrap();
    waiting.await.unwrap();
}

#[tokio::test]
async fn two_pools_on_one_file_lose_nothing() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    let scratch = tempfile::tempdir().unwrap();
    let second = SqliteEngine::new(options(scratch.path())).unwrap();
    let pools = [fixture.pool(&tenant).await, second.open_pool(&tenant.at, &tenant.expected).await.unwrap()];
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8_usize {
        let pool = pools[task % 2].clone();
        tasks.spawn(async move {
            for _ in 0..25 {
                let mut session = pool.new_session(AccessMode::Write, limits(30_000, 30_000));
                let read = keep(&mut session, "select max(id) from t").await.unwrap();
                let SqlValue::Integer(last) = read.rows[0][0] else { panic!("no number") };
                let insert = format!("insert into t values({0}, 'v{0}')", last + 1);
                session.run_statements(vec![statement(&insert)], AfterStatements::Commit).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for pool in &pools {
        assert_eq!(cell(pool, "select count(*) || '/' || max(id) from t").await, "201/201".into());
    }
}

#[tokio::test]
async fn writers_of_one_tenant_take_turns_in_order() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let mut first = pool.new_session(AccessMode::Write, SessionLimits::default());
    keep(&mut first, "select 1").await.unwrap();
    let mut tasks = Vec::new();
    for number in 2..30 {
        let pool = pool.clone();
        let insert = format!("insert into t(v) values('v{number}')");
        let mut task = Box::pin(async move { write(&pool, &insert).await });
        // Polled once, so that it stands in line.
        assert!(futures_once(&mut task).is_none());
        tasks.push(tokio::spawn(task));
    }
    first.commit().await.unwrap();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let order = read(&pool, "select 'v' || id = v from t where id > 1 group by 1").await.unwrap();
    assert_eq!(order.rows, [[SqlValue::Integer(1)]]);
}

fn futures_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn too_many_waiting_callers_are_told_at_once() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let mut holder = pool.new_session(AccessMode::Write, SessionLimits::default());
    keep(&mut holder, "select 1").await.unwrap();
    let mut waiting = Vec::new();
    let refused = loop {
        let pool = pool.clone();
        let mut task = Box::pin(async move { write(&pool, "select 1").await });
        match futures_once(&mut task) {
            None => waiting.push(task),
            Some(answer) => break answer.unwrap_err(),
        }
        assert!(waiting.len() < 10_000, "the queue has no end");
    };
    assert_eq!(refused.kind(), ErrorKind::Busy);
    drop(waiting);
    holder.commit().await.unwrap();
    write(&pool, "select 1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_cancelled_calls_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    let pool = fixture.pool(&tenant).await;
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..16_u64 {
        let pool = pool.clone();
        tasks.spawn(async move {
            for round in 0..250_u64 {
                let access = if (seed + round) % 3 == 0 { AccessMode::Write } else { AccessMode::Read };
                let give_up = Duration::from_micros((seed * 37 + round * 13) % 400);
                let _ = tokio::time::timeout(give_up, abandoned(&pool, access, round)).await;
                if round % 7 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    // All slots are free: as many readers as there can be, and the writer, at the same time.
    let mut sessions: Vec<_> = (0..4).map(|_| pool.new_session(AccessMode::Read, SessionLimits::default())).collect();
    sessions.push(pool.new_session(AccessMode::Write, SessionLimits::default()));
    for session in &mut sessions {
        assert_eq!(
            keep(session, "select count(*) from t where v like 'w%'").await.unwrap().rows[0][0],
            SqlValue::Integer(0)
        );
    }
    assert!(pool.connection_count() <= 5, "{}", pool.connection_count());
    drop(sessions);
    pool.close().await;
    assert_eq!(pool.connection_count(), 0);
    // Nobody holds a lock: the log can be folded back completely.
    let (busy, log, done): (i64, i64, i64) = tenant
        .raw()
        .query_row("pragma wal_checkpoint(truncate)", [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .unwrap();
    assert_eq!((busy, log, done), (0, 0, 0));
}

/// Opens a transaction, writes if it may, and never commits.
async fn abandoned(pool: &Pool, access: AccessMode, round: u64) {
    let mut session = pool.new_session(access, SessionLimits::default());
    let sql = match access {
        AccessMode::Read => "select count(*) from t".to_owned(),
        AccessMode::Write => format!("insert into t(v) values('w{round}')"),
    };
    for _ in 0..3 {
        if keep(&mut session, &sql).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heavy_tenant_does_not_hold_up_another() {
    let fixture = Fixture::with(|options| options.workers = Some(8));
    let heavy = fixture.pool(&fixture.tenant()).await;
    let light = fixture.pool(&fixture.tenant()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let pool = heavy.clone();
        tasks.spawn(async move {
            let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
            let mut session = pool.new_session(AccessMode::Read, limits(2_000, 2_000));
            session.run_statements(vec![statement(endless)], AfterStatements::Commit).await.unwrap_err().kind()
        });
    }
    let begin = Instant::now();
    while heavy.connection_count() < 4 {
        tokio::task::yield_now().await;
        assert!(begin.elapsed() < Duration::from_secs(10), "the heavy tenant never got going");
    }
    let begin = Instant::now();
    for _ in 0..50 {
        assert_eq!(cell(&light, "select count(*) from t").await, SqlValue::Integer(1));
    }
    // Behind the heavy tenant's 64 statements this would take 32 s.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    while let Some(kind) = tasks.join_next().await {
        assert!(matches!(kind.unwrap(), ErrorKind::DeadlineExceeded | ErrorKind::Busy));
    }
}
