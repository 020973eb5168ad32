//! Adds a column and an index to every tenant: the whole control plane (claims, ledger, catalog, audit log, durable)
//! against a bare rusqlite loop over plain files with WAL and synchronous=FULL on as many threads. Then: nothing to do.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fleet_bench::fleet::{Fleet, Setup, arguments, median, ratio};
use rusqlite::Connection;
use tenant_engine::migration::MigrationFile;

fn main() -> Result<()> {
    let setup = arguments(&[("tenants", 10_000), ("rounds", 3), ("threads", 8)])?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&setup))
}

async fn run(setup: &Setup) -> Result<()> {
    let (tenants, threads) = (setup["tenants"], setup["threads"]);
    let fleet = Fleet::new().await?;
    let mut files = vec![base()];
    fleet.migrate(files.clone()).await?;
    fleet.create(0, tenants).await?;
    let plain = tempfile::tempdir()?;
    let paths = copies(&fleet, plain.path(), tenants)?;
    let (mut ours, mut theirs, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..setup["rounds"] {
        let change = change(round);
        files.push(change.clone());
        if round % 2 == 0 {
            ours.push(timed(fleet.migrate(files.clone())).await?);
            theirs.push(raw_loop(&paths, &change, threads)?);
        } else {
            theirs.push(raw_loop(&paths, &change, threads)?);
            ours.push(timed(fleet.migrate(files.clone())).await?);
        }
        idle.push(timed(fleet.migrate(files.clone())).await?);
        println!(
            "round {round}: fleet {:.2?}, raw loop {:.2?}, nothing to do {:.0?}",
            ours.last().context("ran")?,
            theirs.last().context("ran")?,
            idle.last().context("ran")?
        );
    }
    let verify = timed(fleet.migrate_verify(files)).await?;
    let per_second = |d: Duration| tenants as f64 / d.as_secs_f64();
    println!("\nadd column + create index on {tenants} tenants of ~100 KB, durable, medians of {}", ours.len());
    println!("  fleet          {:>8.0}/s", per_second(median(&mut ours)));
    println!("  raw loop       {:>8.0}/s  ({threads} threads)", per_second(median(&mut theirs)));
    println!("  ratio          {:>8.2}  (must reach 0.7)", ratio(&mut theirs, &mut ours));
    println!("  nothing to do  {:>8.0?}  (must stay below 2 s)", median(&mut idle));
    println!("  with --verify  {:>8.2?}  (every database opened)", verify);
    fleet.close().await;
    Ok(())
}

async fn timed(work: impl Future<Output = Result<()>>) -> Result<Duration> {
    let begun = Instant::now();
    work.await?;
    Ok(begun.elapsed())
}

/// The same databases as plain files, so that both sides change the same bytes.
fn copies(fleet: &Fleet, to: &Path, tenants: usize) -> Result<Vec<PathBuf>> {
    let one = fleet.any_database()?;
    (0..tenants)
        .map(|n| {
            let path = to.join(format!("{n}.db"));
            std::fs::copy(&one, &path)?;
            Ok(path)
        })
        .collect()
}

fn raw_loop(paths: &[PathBuf], change: &MigrationFile, threads: usize) -> Result<Duration> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    paths.iter().skip(worker).step_by(threads).try_for_each(|path| one_raw(path, &change.sql))
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    Ok(begun.elapsed())
}

fn one_raw(path: &Path, sql: &str) -> Result<()> {
    let connection = Connection::open(path)?;
    connection.execute_batch(&format!(
        "pragma journal_mode = wal; pragma synchronous = full; begin immediate; {sql} commit;"
    ))?;
    connection.close().map_err(|(_, e)| e)?;
    Ok(())
}

/// A table with rows, about 100 KB on disk.
fn base() -> MigrationFile {
    MigrationFile {
        name: "0001_base.sql".to_owned(),
        sql: "create table tasks (id integer primary key, title text not null, body text not null);\n\
              create index tasks_title on tasks (title);\n\
              insert into tasks (title, body)\n\
              with recursive n (i) as (values (1) union all select i + 1 from n where i < 400)\n\
              select 'task ' || i, hex(randomblob(90)) from n;\n"
            .to_owned(),
    }
}

fn change(round: usize) -> MigrationFile {
    MigrationFile {
        name: format!("{:04}_extra.sql", round + 2),
        sql: format!(
            "alter table tasks add column extra_{round} text;\ncreate index tasks_extra_{round} on tasks (extra_{round});\n"
        ),
    }
}
