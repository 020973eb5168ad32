//! Many Postgres tenants on one server, one of them flooding: what the others wait, against PgBouncer with as many
//! connections; and how evenly several backlogged tenants share them.
//!
//! `pg_fairness [--tenants 200] [--tasks 32] [--flood 300] [--rounds 3] [--seconds 5]`. A flooding statement sleeps for
//! 10 ms on the server, so that connections are what is short and not processors.

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fleet_bench::fleet::{Setup, arguments};
use fleet_bench::latency::Latencies;
use fleet_bench::postgres::{PgBouncer, Server, report};
use sqlx::{AssertSqlSafe, PgConnection};
use tenant_engine::postgres::RequestConnections;
use tenant_engine::{AccessMode, AfterStatements, ErrorKind, Pool, SessionLimits, SqlStatement};
use tokio::sync::Mutex;

/// Twice what a server with `max_connections = 100` has: 74 of those are for requests.
const CONNECTIONS_MAX: u32 = 200;
/// Between two requests of a task.
const THINK: Duration = Duration::from_millis(10);
/// A request that waits for longer is given up, and counted as this long.
const PATIENCE: Duration = Duration::from_secs(10);
const FLOOD: &str = "select pg_sleep(0.01)";
const READ: &str = "select id, title from item where id = 7";
/// What a statement of each backlogged tenant takes.
const DURATIONS_MS: [u64; 6] = [10, 20, 50, 100, 200, 400];

#[tokio::main]
async fn main() -> Result<()> {
    let defaults = [
        ("tenants", 200),
        ("tasks", 32),
        ("flood", 300),
        ("rounds", 3),
        ("seconds", 5),
        ("budget", 74),
        ("shared", 24),
    ];
    let setup = arguments(&defaults)?;
    let begun = Instant::now();
    // Room for both sides at the same time: neither sees what the other one holds.
    let server = Arc::new(Server::start(CONNECTIONS_MAX, setup["tenants"]).await?);
    println!("{} tenants made in {:.1?}", setup["tenants"], begun.elapsed());
    flood(&server, &setup).await?;
    backlog(&server, &setup).await
}

/// How one side runs a statement for a tenant.
#[derive(Clone)]
enum Way {
    Ours(Arc<Vec<Pool>>),
    PgBouncer(Arc<Clients>),
}

/// Connections of clients to PgBouncer that no task uses, by tenant.
struct Clients {
    bouncer: PgBouncer,
    server: Arc<Server>,
    idle: Vec<Mutex<Vec<PgConnection>>>,
}

enum Outcome {
    Done,
    QueueFull,
    Failed,
}

impl Way {
    /// The client's connection, which is not measured; none is needed on our side.
    async fn client(&self, tenant: usize) -> Result<Option<PgConnection>> {
        let Self::PgBouncer(clients) = self else { return Ok(None) };
        let idle = clients.idle[tenant].lock().await.pop();
        match idle {
            Some(client) => Ok(Some(client)),
            None => Ok(Some(clients.bouncer.connect(&clients.server, tenant).await?)),
        }
    }

    async fn run(&self, client: Option<PgConnection>, tenant: usize, sql: &str) -> Outcome {
        match (self, client) {
            (Self::Ours(pools), _) => on_pool(&pools[tenant], sql).await,
            (Self::PgBouncer(clients), Some(mut client)) => {
                let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut client);
                let done = matches!(tokio::time::timeout(PATIENCE, query).await, Ok(Ok(_)));
                if !done {
                    return Outcome::Failed;
                }
                clients.idle[tenant].lock().await.push(client);
                Outcome::Done
            }
            (Self::PgBouncer(_), None) => Outcome::Failed,
        }
    }
}

async fn on_pool(pool: &Pool, sql: &str) -> Outcome {
    let limits =
        SessionLimits { statement_timeout: PATIENCE, transaction_timeout: PATIENCE * 2, ..SessionLimits::default() };
    let statement = SqlStatement { sql: sql.to_owned(), params: Vec::new() };
    match pool.new_session(AccessMode::Read, limits).run_statements(vec![statement], AfterStatements::Commit).await {
        Ok(_) => Outcome::Done,
        Err(error) if error.kind() == ErrorKind::QueueFull => Outcome::QueueFull,
        Err(_) => Outcome::Failed,
    }
}

/// The two sides, with as many connections each.
struct Sides {
    budget: usize,
    requests: RequestConnections,
    ways: [(&'static str, Way); 2],
}

impl Sides {
    async fn new(server: &Arc<Server>, budget: usize) -> Result<Self> {
        let (requests, pools) = server.pools(budget).await?;
        let bouncer = PgBouncer::start(server, budget)?;
        let idle = server.tenants.iter().map(|_| Mutex::default()).collect();
        let theirs = Way::PgBouncer(Arc::new(Clients { bouncer, server: Arc::clone(server), idle }));
        Ok(Self { budget, requests, ways: [("Pool::session", Way::Ours(Arc::new(pools))), ("PgBouncer", theirs)] })
    }
}

async fn flood(server: &Arc<Server>, setup: &Setup) -> Result<()> {
    let sides = Sides::new(server, setup["budget"]).await?;
    let (tasks, others) = (setup["tasks"], setup["tenants"] - 1);
    println!(
        "a flood of {} tasks, {others} other tenants by {tasks} tasks, {} connections",
        setup["flood"], sides.budget
    );
    let mut totals = [LightTotals::default(), LightTotals::default()];
    for round in 0..=setup["rounds"] {
        for ((_, way), total) in sides.ways.iter().zip(&mut totals) {
            let length = Duration::from_secs(if round == 0 { 1 } else { setup["seconds"] as u64 });
            let one = light_and_flood(way, setup, length).await?;
            if round > 0 {
                total.add(one);
            }
        }
    }
    let mut p99 = [Duration::ZERO; 2];
    for (((name, _), total), p99) in sides.ways.iter().zip(&mut totals).zip(&mut p99) {
        *p99 = total.report(name);
    }
    println!(
        "  light tenants' p99: {:.3} of PgBouncer's (must be at most 0.2)",
        p99[0].as_secs_f64() / p99[1].as_secs_f64()
    );
    println!("  {:?}", report(&sides.requests));
    sides.requests.shut_down().await;
    Ok(())
}

/// What the light tenants saw, and how much the flood got done.
#[derive(Default)]
struct LightTotals {
    latencies: Latencies,
    failed: u64,
    flooded: u64,
    refused: u64,
}

impl LightTotals {
    fn add(&mut self, other: Self) {
        self.latencies.merge(other.latencies);
        self.failed += other.failed;
        self.flooded += other.flooded;
        self.refused += other.refused;
    }

    fn report(&mut self, name: &str) -> Duration {
        let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| self.latencies.percentile(percent));
        let (count, failed, flooded, refused) = (self.latencies.count(), self.failed, self.flooded, self.refused);
        println!(
            "{name:<14} light: {count} requests, {failed} failed, p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}; flood: {flooded} done, {refused} refused"
        );
        p99
    }
}

async fn light_and_flood(way: &Way, setup: &Setup, length: Duration) -> Result<LightTotals> {
    let until = Instant::now() + length;
    let flooding: Vec<_> =
        (0..setup["flood"]).map(|_| tokio::spawn(repeat(way.clone(), 0, FLOOD.to_owned(), until))).collect();
    let (tasks, tenants) = (setup["tasks"], setup["tenants"]);
    let light: Vec<_> = (0..tasks).map(|task| tokio::spawn(visit(way.clone(), task, tenants, until))).collect();
    let mut totals = LightTotals::default();
    for task in light {
        totals.add(task.await.context("a task panicked")??);
    }
    for task in flooding {
        let (done, refused) = task.await.context("a task panicked")??;
        totals.flooded += done;
        totals.refused += refused;
    }
    Ok(totals)
}

/// Point reads of the light tenants, by Zipf's law.
async fn visit(way: Way, task: usize, tenants: usize, until: Instant) -> Result<LightTotals> {
    let (mut totals, mut dice) = (LightTotals::default(), Dice(task as u64 + 1));
    while Instant::now() < until {
        let tenant = 1 + dice.zipf(tenants - 1);
        let client = way.client(tenant).await?;
        let begin = Instant::now();
        if !matches!(way.run(client, tenant, READ).await, Outcome::Done) {
            totals.failed += 1;
        }
        totals.latencies.record(begin.elapsed());
        tokio::time::sleep(THINK).await;
    }
    Ok(totals)
}

/// One statement after the other; how many were done and refused.
async fn repeat(way: Way, tenant: usize, sql: String, until: Instant) -> Result<(u64, u64)> {
    let (mut done, mut refused) = (0, 0);
    while Instant::now() < until {
        let client = way.client(tenant).await?;
        match way.run(client, tenant, &sql).await {
            Outcome::Done => done += 1,
            Outcome::QueueFull | Outcome::Failed => refused += 1,
        }
    }
    Ok((done, refused))
}

async fn backlog(server: &Arc<Server>, setup: &Setup) -> Result<()> {
    let sides = Sides::new(server, setup["shared"]).await?;
    println!(
        "tenants with more work than connections, {} connections, statements of {DURATIONS_MS:?} ms",
        sides.budget
    );
    for (name, way) in &sides.ways {
        let until = Instant::now() + Duration::from_secs(setup["seconds"] as u64 * setup["rounds"] as u64);
        let mut running = Vec::new();
        for (tenant, ms) in DURATIONS_MS.into_iter().enumerate() {
            let sql = format!("select pg_sleep({})", ms as f64 / 1e3);
            running.push(
                (0..40).map(|_| tokio::spawn(repeat(way.clone(), tenant, sql.clone(), until))).collect::<Vec<_>>(),
            );
        }
        let mut seconds = Vec::new();
        for (tasks, ms) in running.into_iter().zip(DURATIONS_MS) {
            let mut done = 0;
            for task in tasks {
                done += task.await.context("a task panicked")??.0;
            }
            seconds.push((done * ms) as f64 / 1e3);
        }
        println!("{name:<14} Jain index of connection-seconds {:.3}  {seconds:.1?}", jain(&seconds));
    }
    println!("  (must be at least 0.95)  {:?}", report(&sides.requests));
    sides.requests.shut_down().await;
    Ok(())
}

fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|share| share * share).sum::<f64>());
    sum * sum / (shares.len() as f64 * squares)
}

/// Xorshift.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The first of `count` most often: the k-th in proportion to 1/k.
    fn zipf(&mut self, count: usize) -> usize {
        let total: f64 = (1..=count).map(|k| 1.0 / k as f64).sum();
        let mut left = self.roll() * total;
        (1..=count)
            .find(|k| {
                left -= 1.0 / *k as f64;
                left <= 0.0
            })
            .unwrap_or(count)
            - 1
    }
}
