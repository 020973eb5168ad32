//! Point reads of Postgres tenants through the engine's sessions.
//!
//! One task: against a sqlx `PgPool` with its defaults and against one held `PgConnection`. 64 tasks over 64 tenants:
//! with as many connections, against a `PgPool` of one connection each; with half as many, against PgBouncer.
//! `pg_point_read [--tenants 64] [--budget 32] [--rounds 5] [--seconds 2]`

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use fleet_bench::fleet::arguments;
use fleet_bench::postgres::{PgBouncer, Server, report};
use fleet_bench::side::Side;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, Row as _};
use tenant_engine::{AccessMode, AfterStatements, Pool, SessionLimits, SqlStatement, SqlValue};
use tokio::sync::Mutex;

const SQL: &str = "select id, title from item where id = $1";

#[tokio::main]
async fn main() -> Result<()> {
    let setup = arguments(&[("tenants", 64), ("budget", 32), ("rounds", 5), ("seconds", 2)])?;
    let (tenants, rounds, length) = (setup["tenants"], setup["rounds"], Duration::from_secs(setup["seconds"] as u64));
    let server = Server::start(400, tenants).await?;
    one_task(&server, rounds, length).await?;
    as_many_connections(&server, rounds, length).await?;
    fewer_connections(&server, setup["budget"], rounds, length).await
}

async fn one_task(server: &Server, rounds: usize, length: Duration) -> Result<()> {
    println!("one task, one tenant");
    let (requests, pools) = server.pools(server.tenants.len()).await?;
    let pgpool = PgPool::connect_with(server.options(0)).await?;
    let held = Arc::new(Mutex::new(server.options(0).connect().await?));
    let mut sides = [Side::new("Pool::session"), Side::new("sqlx PgPool"), Side::new("held PgConnection")];
    for round in 0..=rounds as u64 {
        let length = warm(round, length);
        let pool = pools[0].clone();
        sides[0].round(round, 1, length, move |_, id| ours(pool.clone(), id)).await?;
        let pool = pgpool.clone();
        sides[1].round(round, 1, length, move |_, id| from_pgpool(pool.clone(), id)).await?;
        let held = Arc::clone(&held);
        sides[2].round(round, 1, length, move |_, id| from_held(Arc::clone(&held), id)).await?;
    }
    let [ours, pgpool, held] = sides.each_mut().map(Side::report);
    println!(
        "  ratio to PgPool {:.2} (must reach 1.8), to a held connection {:.2} (must reach 0.9)",
        ours / pgpool,
        ours / held
    );
    requests.shut_down().await;
    Ok(())
}

async fn as_many_connections(server: &Server, rounds: usize, length: Duration) -> Result<()> {
    let count = server.tenants.len();
    println!("{count} tasks, {count} tenants, {count} connections");
    let (requests, pools) = server.pools(count).await?;
    let pools = Arc::new(pools);
    let mut theirs = Vec::new();
    for tenant in 0..count {
        theirs.push(PgPoolOptions::new().max_connections(1).connect_with(server.options(tenant)).await?);
    }
    let theirs = Arc::new(theirs);
    let mut held = Vec::new();
    for tenant in 0..count {
        held.push(Arc::new(Mutex::new(server.options(tenant).connect().await?)));
    }
    let held = Arc::new(held);
    let mut sides = [Side::new("Pool::session"), Side::new("PgPool each"), Side::new("held, each")];
    for round in 0..=rounds as u64 {
        let length = warm(round, length);
        let pools = Arc::clone(&pools);
        sides[0].round(round, count as u64, length, move |task, id| ours(pools[task].clone(), id)).await?;
        let theirs = Arc::clone(&theirs);
        sides[1].round(round, count as u64, length, move |task, id| from_pgpool(theirs[task].clone(), id)).await?;
        let held = Arc::clone(&held);
        sides[2].round(round, count as u64, length, move |task, id| from_held(Arc::clone(&held[task]), id)).await?;
    }
    let [ours, theirs, _] = sides.each_mut().map(Side::report);
    println!("  ratio {:.2} (must be ahead)", ours / theirs);
    requests.shut_down().await;
    Ok(())
}

async fn fewer_connections(server: &Server, budget: usize, rounds: usize, length: Duration) -> Result<()> {
    let count = server.tenants.len();
    println!("{count} tasks, {count} tenants, {budget} connections");
    let (requests, pools) = server.pools(budget).await?;
    let pools = Arc::new(pools);
    let bouncer = PgBouncer::start(server, budget)?;
    let mut clients = Vec::new();
    for tenant in 0..count {
        clients.push(Mutex::new(bouncer.connect(server, tenant).await?));
    }
    let clients = Arc::new(clients);
    let mut sides = [Side::new("Pool::session"), Side::new("PgBouncer")];
    let (mut switches, mut ours_took) = (0, Duration::ZERO);
    for round in 0..=rounds as u64 {
        let length = warm(round, length);
        let pools = Arc::clone(&pools);
        let before = report(&requests).switches;
        sides[0].round(round, count as u64, length, move |task, id| ours(pools[task].clone(), id)).await?;
        switches += report(&requests).switches - before;
        ours_took += length;
        let clients = Arc::clone(&clients);
        let read = move |task, id| from_bouncer(Arc::clone(&clients), task, id);
        sides[1].round(round, count as u64, length, read).await?;
    }
    let [ours, theirs] = sides.each_mut().map(Side::report);
    println!(
        "  ratio {:.2} (must be ahead); {:.0} switches per second",
        ours / theirs,
        switches as f64 / ours_took.as_secs_f64()
    );
    println!("  {:?}", report(&requests));
    requests.shut_down().await;
    Ok(())
}

fn warm(round: u64, length: Duration) -> Duration {
    if round == 0 { Duration::from_millis(500) } else { length }
}

async fn ours(pool: Pool, id: i64) -> Result<()> {
    let statement = SqlStatement { sql: SQL.to_owned(), params: vec![id.into()] };
    let mut session = pool.new_session(
        AccessMode::Read,
        SessionLimits {
            statement_timeout: Duration::from_secs(60),
            transaction_timeout: Duration::from_secs(60),
            ..SessionLimits::default()
        },
    );
    let answers = session.run_statements(vec![statement], AfterStatements::Commit).await?;
    ensure!(answers[0].rows[0][0] == SqlValue::Integer(id), "the wrong row came back");
    Ok(())
}

async fn from_pgpool(pool: PgPool, id: i64) -> Result<()> {
    let (found, _title): (i64, String) = sqlx::query_as(SQL).bind(id).fetch_one(&pool).await?;
    ensure!(found == id, "the wrong row came back");
    Ok(())
}

async fn from_held(held: Arc<Mutex<PgConnection>>, id: i64) -> Result<()> {
    let (found, _title): (i64, String) = sqlx::query_as(SQL).bind(id).fetch_one(&mut *held.lock().await).await?;
    ensure!(found == id, "the wrong row came back");
    Ok(())
}

/// By the simple protocol: this version of PgBouncer keeps neither a named nor an unnamed prepared statement between two
/// messages of a client.
async fn from_bouncer(clients: Arc<Vec<Mutex<PgConnection>>>, task: usize, id: i64) -> Result<()> {
    let sql = AssertSqlSafe(format!("select id, title from item where id = {id}"));
    let row = sqlx::raw_sql(sql).fetch_one(&mut *clients[task].lock().await).await?;
    ensure!(row.try_get_unchecked::<i64, _>(0)? == id, "the wrong row came back");
    Ok(())
}
