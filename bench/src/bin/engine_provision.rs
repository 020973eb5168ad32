//! The engine's `provision` alone: new tenants at the head of a set of ten files, against sqlx's `Migrator::run` on a
//! new file each, on as many threads with synchronous=FULL. Both are durable when they end.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use fleet_bench::engine::{Server, on_threads, ten_files};
use fleet_bench::fleet::{Setup, arguments, median, ratio};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tenant_engine::MigrationSet;

fn main() -> Result<()> {
    let setup = arguments(&[("count", 2_000), ("rounds", 3), ("threads", 8)])?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&setup))
}

async fn run(setup: &Setup) -> Result<()> {
    let (count, threads) = (setup["count"], setup["threads"]);
    let directory = tempfile::tempdir()?;
    for file in ten_files() {
        std::fs::write(directory.path().join(&file.name), &file.sql)?;
    }
    let (set, _) = MigrationSet::read_directory(directory.path())?;
    let migrator = Migrator::new(directory.path()).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..setup["rounds"] {
        // A new engine, so that building the template counts.
        let server = Server::new(threads)?;
        if round % 2 == 0 {
            ours.push(server.provision(&set, count).await?.1);
            theirs.push(with_sqlx(&migrator, count, threads)?);
        } else {
            theirs.push(with_sqlx(&migrator, count, threads)?);
            ours.push(server.provision(&set, count).await?.1);
        }
        println!("round {round}: engine {:.2?}, sqlx {:.2?}", ours[round], theirs[round]);
    }
    let rate = |time: Duration| count as f64 / time.as_secs_f64();
    println!("\n{count} new tenants at the head of 10 files, durable, {threads} threads, medians");
    println!("  engine  {:>8.0}/s", rate(median(&mut ours)));
    println!("  sqlx    {:>8.0}/s", rate(median(&mut theirs)));
    println!("  ratio   {:>8.1}  (must reach 10)", ratio(&mut theirs, &mut ours));
    Ok(())
}

fn with_sqlx(migrator: &Migrator, count: usize, threads: usize) -> Result<Duration> {
    let directory = tempfile::tempdir()?;
    let paths: Vec<PathBuf> = (0..count).map(|n| directory.path().join(format!("{n}.db"))).collect();
    let runtime = tokio::runtime::Handle::current();
    on_threads(&paths, threads, |path| runtime.block_on(one_with_sqlx(migrator, path)))
}

async fn one_with_sqlx(migrator: &Migrator, path: &Path) -> Result<()> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut db = options.connect().await?;
    migrator.run(&mut db).await?;
    db.close().await?;
    Ok(())
}
