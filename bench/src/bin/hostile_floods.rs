//! What a tenant waits beside greedy ones: its reads and writes alone, beside eight endless statements of two tenants,
//! and beside a hundred tenants with such statements. Through the engine's sessions, in one run.
//!
//! `hostile_floods [seconds per side]`

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use fleet_bench::tenants;
use tenant_engine::sqlite::{SqliteEngine, SqliteOptions};
use tenant_engine::{AccessMode, AfterStatements, Engine, Pool, SessionLimits, SqlStatement};

const READ: &str = "select id, title from item where id = 7";
const WRITE: &str = "update item set title = title where id = 7";

/// Runs until its deadline.
const ENDLESS: &str = "with recursive c(i) as (select 1 union all select i + 1 from c) select count(*) from c";

/// Few steps that take long.
const LONG_STEPS: &str = "with recursive c(i) as (select 1 union all select i + 1 from c) select count(*) from c \
     where instr(printf('%.*c', 800000, 'a'), printf('%.*c', 400000, 'a') || i) + \
     (printf('%.*c', 500000, 'a') like printf('%.*c', 90, 'a') || '%_b')";

#[tokio::main]
async fn main() -> Result<()> {
    let seconds: u64 = std::env::args().nth(1).map_or(Ok(5), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let tenants = tenants::make(dir.path(), 101)?;
    let options = SqliteOptions::new(dir.path());
    let engine = SqliteEngine::new(options)?;
    let mut pools = Vec::new();
    for tenant in &tenants {
        pools.push(engine.open_pool(&tenant.at, &tenant.expected).await?);
    }
    let quiet = pools.remove(100);
    let length = Duration::from_secs(seconds);
    let alone = Side::of(&quiet, "alone", length).await?;
    for (name, sql, tenants, each) in [
        ("8 endless statements of 2 tenants", ENDLESS, 2, 4),
        ("8 with long steps of 2 tenants", LONG_STEPS, 2, 4),
        ("200 endless statements of 100 tenants", ENDLESS, 100, 2),
        ("200 with long steps of 100 tenants", LONG_STEPS, 100, 2),
    ] {
        let floods = Floods::start(&pools[..tenants], each, sql);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let beside = Side::of(&quiet, name, length).await?;
        floods.end().await;
        println!("  p99 beside / alone: read {:.1}, write {:.1}", beside.read / alone.read, beside.write / alone.write);
    }
    engine.shut_down().await;
    Ok(())
}

/// The 99th percentiles, in seconds.
struct Side {
    read: f64,
    write: f64,
}

impl Side {
    async fn of(pool: &Pool, name: &str, length: Duration) -> Result<Self> {
        let read = measure(pool, AccessMode::Read, READ, length).await?;
        let write = measure(pool, AccessMode::Write, WRITE, length).await?;
        let ms = |times: &[Duration], share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
        println!(
            "{name}: read p50 {:.2} ms, p99 {:.2} ms, longest {:.1} ms ({}); write p50 {:.2} ms, p99 {:.2} ms, longest {:.1} ms ({})",
            ms(&read, 50),
            ms(&read, 99),
            ms(&read, 100),
            read.len(),
            ms(&write, 50),
            ms(&write, 99),
            ms(&write, 100),
            write.len(),
        );
        Ok(Self { read: ms(&read, 99), write: ms(&write, 99) })
    }
}

/// How long each of the statements took, in order of length: one after the other, with a pause between.
async fn measure(pool: &Pool, access: AccessMode, sql: &str, length: Duration) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    let end = Instant::now() + length;
    while Instant::now() < end {
        let started = Instant::now();
        let statement = SqlStatement { sql: sql.to_owned(), params: Vec::new() };
        pool.new_session(access, SessionLimits::default())
            .run_statements(vec![statement], AfterStatements::Commit)
            .await?;
        times.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    times.sort_unstable();
    Ok(times)
}

/// Tasks that send one statement after the other until they are told to end.
struct Floods {
    ending: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Floods {
    fn start(pools: &[Pool], each: usize, sql: &'static str) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let many = pools.iter().flat_map(|pool| std::iter::repeat_n(pool, each));
        let tasks = many.map(|pool| tokio::spawn(flood(pool.clone(), sql, Arc::clone(&ending)))).collect();
        Self { ending, tasks }
    }

    async fn end(self) {
        self.ending.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

async fn flood(pool: Pool, sql: &str, ending: Arc<AtomicBool>) {
    let limits = SessionLimits { statement_timeout: Duration::from_secs(2), ..SessionLimits::default() };
    while !ending.load(Ordering::Relaxed) {
        let statement = SqlStatement { sql: sql.to_owned(), params: Vec::new() };
        // It never succeeds.
        let _ =
            pool.new_session(AccessMode::Read, limits).run_statements(vec![statement], AfterStatements::Commit).await;
    }
}
