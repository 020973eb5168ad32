//! Adds a column and an index to every tenant on a Postgres server: the whole control plane (claims, ledger, catalog,
//! audit log) against a loop that runs the server's own `psql` (not a distribution's wrapper) once per database, as many
//! at once. fsync is on for both.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fleet_bench::fleet::{Fleet, Setup, arguments, durable, median, ratio, task_files};
use postgres_fixture::{Cluster, bin};
use tenant_engine::migration::MigrationFile;

fn main() -> Result<()> {
    let setup = arguments(&[("tenants", 200), ("rounds", 5), ("threads", 8)])?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&setup))
}

async fn run(setup: &Setup) -> Result<()> {
    let (tenants, threads) = (setup["tenants"], setup["threads"]);
    let cluster = Cluster::with(&durable(100));
    let fleet = Fleet::on_postgres(&cluster.dsn("postgres")).await?;
    let mut files = task_files();
    fleet.migrate(files.clone()).await?;
    fleet.create(0, tenants).await?;
    let all = cluster.psql("postgres", "select datname from pg_database where datname like 't\\_%' order by datname");
    let databases: Vec<&str> = all.lines().collect();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..setup["rounds"] {
        files.push(MigrationFile {
            name: format!("{:04}_extra.sql", round + 2),
            sql: change(&format!("extra_{round}")),
        });
        for ours_now in [round % 2 == 0, round % 2 != 0] {
            match ours_now {
                true => ours.push(timed(fleet.migrate(files.clone())).await?),
                false => theirs.push(psql_loop(&cluster, &databases, &change(&format!("psql_{round}")), threads)?),
            }
        }
        println!(
            "round {round}: fleet {:.2?}, psql {:.2?}",
            ours.last().context("ran")?,
            theirs.last().context("ran")?
        );
    }
    let per_second = |d: Duration| tenants as f64 / d.as_secs_f64();
    println!(
        "\nadd column + create index on {tenants} Postgres tenants, fsync on, {threads} at once, medians of {}",
        ours.len()
    );
    println!("  fleet  {:>8.1}/s", per_second(median(&mut ours)));
    println!("  psql   {:>8.1}/s", per_second(median(&mut theirs)));
    println!("  ratio  {:>8.2}  (must reach 2)", ratio(&mut theirs, &mut ours));
    fleet.close().await;
    Ok(())
}

async fn timed(work: impl Future<Output = Result<()>>) -> Result<Duration> {
    let begun = Instant::now();
    work.await?;
    Ok(begun.elapsed())
}

fn change(column: &str) -> String {
    format!("alter table tasks add column {column} text;\ncreate index tasks_{column} on tasks ({column});\n")
}

fn psql_loop(cluster: &Cluster, databases: &[&str], sql: &str, threads: usize) -> Result<Duration> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    databases.iter().skip(worker).step_by(threads).try_for_each(|name| psql(cluster, name, sql))
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    Ok(begun.elapsed())
}

fn psql(cluster: &Cluster, database: &str, sql: &str) -> Result<()> {
    let mut psql = Command::new(bin("psql"));
    psql.arg(cluster.dsn(database)).args(["-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-c", sql]);
    let status = psql.stdin(Stdio::null()).status()?;
    ensure!(status.success(), "psql failed on {database}");
    Ok(())
}
