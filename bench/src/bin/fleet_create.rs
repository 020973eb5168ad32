//! Creates tenants at the head of a set of 10 files: the whole control plane (names, operation, steps, audit log,
//! durable databases) against sqlx's migrator run once per new file on as many threads.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fleet_bench::fleet::{Fleet, Setup, arguments, median, ratio};
use sqlx::ConnectOptions as _;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use tokio::task::JoinSet;

fn main() -> Result<()> {
    let setup = arguments(&[("tenants", 2_000), ("rounds", 3), ("threads", 8)])?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&setup))
}

async fn run(setup: &Setup) -> Result<()> {
    let (tenants, threads) = (setup["tenants"], setup["threads"]);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..setup["rounds"] {
        // Whoever is second meets a busier disk: they take turns.
        if round % 2 == 0 {
            ours.push(control_plane(tenants).await?);
            theirs.push(sqlx_migrator(tenants, threads).await?);
        } else {
            theirs.push(sqlx_migrator(tenants, threads).await?);
            ours.push(control_plane(tenants).await?);
        }
        println!(
            "round {round}: fleet {:.2?}, sqlx {:.2?}",
            ours.last().context("ran")?,
            theirs.last().context("ran")?
        );
    }
    let per_second = |d: Duration| tenants as f64 / d.as_secs_f64();
    println!("\ncreate {tenants} tenants at the head of 10 migrations, durable, medians of {}", ours.len());
    println!("  fleet          {:>8.0}/s", per_second(median(&mut ours)));
    println!("  sqlx Migrator  {:>8.0}/s  ({threads} at once)", per_second(median(&mut theirs)));
    println!("  ratio          {:>8.1}  (must reach 10)", ratio(&mut theirs, &mut ours));
    Ok(())
}

async fn control_plane(tenants: usize) -> Result<Duration> {
    let fleet = Fleet::new().await?;
    fleet.migrate(ten_files()).await?;
    let begun = Instant::now();
    fleet.create(0, tenants).await?;
    let took = begun.elapsed();
    fleet.close().await;
    Ok(took)
}

async fn sqlx_migrator(tenants: usize, threads: usize) -> Result<Duration> {
    let dir = tempfile::tempdir()?;
    let set = dir.path().join("migrations");
    std::fs::create_dir(&set)?;
    for file in ten_files() {
        std::fs::write(set.join(&file.name), &file.sql)?;
    }
    let migrator = std::sync::Arc::new(Migrator::new(set.as_path()).await?);
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..threads {
        let (migrator, root) = (migrator.clone(), dir.path().to_owned());
        let runtime = tokio::runtime::Handle::current();
        // The migrator's future cannot be spawned; a thread of its own is what it would use anyway.
        workers.spawn_blocking(move || {
            runtime.block_on(async {
                for n in (worker..tenants).step_by(threads) {
                    one_with_sqlx(&migrator, &root.join(format!("{n}.db"))).await?;
                }
                anyhow::Ok(())
            })
        });
    }
    while let Some(done) = workers.join_next().await {
        done??;
    }
    let took = begun.elapsed();
    ensure!(dir.path().join(format!("{}.db", tenants - 1)).exists(), "the last file is there");
    Ok(took)
}

async fn one_with_sqlx(migrator: &Migrator, file: &Path) -> Result<()> {
    let mut connection = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await?;
    migrator.run(&mut connection).await?;
    sqlx::Connection::close(connection).await?;
    Ok(())
}

/// Ten small versions, as an application has after its first year.
fn ten_files() -> Vec<tenant_engine::migration::MigrationFile> {
    (1..=10)
        .map(|n| tenant_engine::migration::MigrationFile {
            name: format!("{n:04}_table_{n}.sql"),
            sql: format!(
                "create table t{n} (id integer primary key, title text not null, done integer not null default 0);\n\
                 create index t{n}_title on t{n} (title);\n"
            ),
        })
        .collect()
}
