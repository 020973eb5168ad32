//! Point reads: 64 tasks, each reading from a tenant of its own, through the engine's sessions and through one sqlx
//! `SqlitePool` per tenant with its defaults.
//!
//! `engine_point_read [tasks] [rounds] [seconds per round]`

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use fleet_bench::side::Side;
use fleet_bench::tenants;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tenant_engine::sqlite::{SqliteEngine, SqliteOptions};
use tenant_engine::{AccessMode, AfterStatements, Engine, Pool, SessionLimits, SqlStatement, SqlValue};

const SQL: &str = "select id, title from item where id = ?1";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let mut argument = |default| arguments.next().transpose().map(|n| n.unwrap_or(default));
    let (tasks, rounds, seconds) = (argument(64)?, argument(5)?, argument(2)?);
    let dir = tempfile::tempdir()?;
    let tenants = tenants::make(dir.path(), usize::try_from(tasks)?)?;
    let options = SqliteOptions::new(dir.path());
    let engine = SqliteEngine::new(options)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for tenant in &tenants {
        ours.push(engine.open_pool(&tenant.at, &tenant.expected).await?);
        theirs.push(SqlitePool::connect_with(SqliteConnectOptions::new().filename(tenant.path())).await?);
    }
    let (ours, theirs) = (Arc::new(ours), Arc::new(theirs));
    let mut sides = [Side::new("engine session"), Side::new("sqlx SqlitePool")];
    for round in 0..=rounds {
        let length = if round == 0 { Duration::from_millis(300) } else { Duration::from_secs(seconds) };
        let pools = Arc::clone(&ours);
        let one = sides[0].round(round, tasks, length, move |task, id| read_ours(pools[task].clone(), id)).await?;
        let pools = Arc::clone(&theirs);
        let two = sides[1].round(round, tasks, length, move |task, id| read_theirs(pools[task].clone(), id)).await?;
        if round > 0 {
            println!("round {round}: {one:>9.0}/s  {two:>9.0}/s  ratio {:.2}", one / two);
        }
    }
    let [one, two] = &mut sides;
    let (one, two) = (one.report(), two.report());
    println!("{tasks} tasks, {tasks} tenants: ratio of the median rates {:.2}", one / two);
    Ok(())
}

async fn read_ours(pool: Pool, id: i64) -> Result<()> {
    let statement = SqlStatement { sql: SQL.to_owned(), params: vec![SqlValue::Integer(id)] };
    let answer = pool
        .new_session(AccessMode::Read, SessionLimits::default())
        .run_statements(vec![statement], AfterStatements::Commit)
        .await?;
    ensure!(answer[0].rows[0][0] == SqlValue::Integer(id), "the wrong row came back");
    Ok(())
}

async fn read_theirs(pool: SqlitePool, id: i64) -> Result<()> {
    let (found, _title): (i64, String) = sqlx::query_as(SQL).bind(id).fetch_one(&pool).await?;
    ensure!(found == id, "the wrong row came back");
    Ok(())
}
