//! Creates tenants on a Postgres server: the whole control plane (names, operation, steps, audit log, logins, grants,
//! identity) against a bare loop of `CREATE DATABASE … TEMPLATE` over as many connections. fsync is on for both.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fleet_bench::fleet::{Fleet, Setup, arguments, durable, median, ratio, task_files};
use postgres_fixture::Cluster;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::task::JoinSet;

fn main() -> Result<()> {
    let setup = arguments(&[("tenants", 200), ("rounds", 3), ("threads", 8)])?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&setup))
}

async fn run(setup: &Setup) -> Result<()> {
    let (tenants, threads) = (setup["tenants"], setup["threads"]);
    let cluster = Cluster::with(&durable(100));
    let fleet = Fleet::on_postgres(&cluster.dsn("postgres")).await?;
    fleet.migrate(task_files()).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..setup["rounds"] {
        // Whoever is second meets a fuller server: they take turns.
        for ours_now in [round % 2 == 0, round % 2 != 0] {
            match ours_now {
                true => ours.push(control_plane(&fleet, round * tenants, tenants).await?),
                false => theirs.push(bare_loop(&cluster, round, tenants, threads).await?),
            }
        }
        println!(
            "round {round}: fleet {:.2?}, bare loop {:.2?}",
            ours.last().context("ran")?,
            theirs.last().context("ran")?
        );
    }
    let per_second = |d: Duration| tenants as f64 / d.as_secs_f64();
    println!("\ncreate {tenants} tenants on Postgres, fsync on, {threads} at once, medians of {}", ours.len());
    println!("  fleet      {:>8.1}/s", per_second(median(&mut ours)));
    println!("  bare loop  {:>8.1}/s", per_second(median(&mut theirs)));
    println!("  ratio      {:>8.2}  (must reach 0.7)", ratio(&mut theirs, &mut ours));
    fleet.close().await;
    Ok(())
}

async fn control_plane(fleet: &Fleet, first: usize, tenants: usize) -> Result<Duration> {
    let begun = Instant::now();
    fleet.create(first, tenants).await?;
    Ok(begun.elapsed())
}

/// From the very template that the fleet's own databases are copies of.
async fn bare_loop(cluster: &Cluster, round: usize, tenants: usize, threads: usize) -> Result<Duration> {
    let template = cluster
        .psql("postgres", "select datname from pg_database where datname like 'tmpl\\_%' order by oid desc limit 1");
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..threads {
        let (dsn, template) = (cluster.dsn("postgres"), template.clone());
        workers.spawn(async move {
            let mut connection = PgConnection::connect(&dsn).await?;
            for n in (worker..tenants).step_by(threads) {
                let sql = format!("create database bare_{round}_{n} template {template}");
                connection.execute(sqlx::AssertSqlSafe(sql)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = workers.join_next().await {
        done??;
    }
    Ok(begun.elapsed())
}
