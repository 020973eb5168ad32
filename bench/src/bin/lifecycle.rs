//! What operations on tenants cost: how long a move stops writers, against copying alone; how many tenants a second are
//! created, suspended, resumed and moved; and what requests meet while a server is drained.
//!
//! `lifecycle [--tenants 1000] [--pg-tenants 1000] [--drain 100] [--pg-drain 100] [--mb-max 1000]`: databases of 1, 100
//! and 1,000 MB are moved, up to that; 0 leaves a part out. 1,000 tenants on Postgres take 16 GB for a while.

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use catalog::{TenantId, TenantRecord};
use control_plane::operations::{OperationParams, r#move, resume, suspend};
use control_plane::plan::TenantSelection;
use control_plane::runner::submit::Submission;
use fleet_bench::fleet::{Fleet, Setup, arguments, durable, task_files};
use postgres_fixture::{Cluster, Settings, bin};
use tenant_engine::migration::MigrationFile;
use tenant_router::{Principal, Role, Write};

#[tokio::main]
async fn main() -> Result<()> {
    let counts = [("tenants", 1_000), ("pg-tenants", 1_000), ("drain", 100), ("pg-drain", 100), ("mb-max", 1_000)];
    let setup = arguments(&counts)?;
    moves_of_files(&setup).await?;
    moves_of_postgres(&setup).await?;
    rates(&On::Files, setup["tenants"]).await?;
    rates(&On::postgres(setup["pg-tenants"]), setup["pg-tenants"]).await?;
    drain(&On::Files, setup["drain"]).await?;
    drain(&On::postgres(setup["pg-drain"]), setup["pg-drain"]).await
}

/// Where tenants are, and where they go.
enum On {
    Files,
    Postgres(Box<[Cluster; 2]>),
    /// Nobody asked for it.
    Nothing,
}

impl On {
    fn postgres(tenants: usize) -> Self {
        if tenants == 0 {
            return Self::Nothing;
        }
        let other = Settings { other: true, ..durable(100) };
        Self::Postgres(Box::new([Cluster::with(&durable(100)), Cluster::with(&other)]))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Files => "in files",
            Self::Postgres(_) | Self::Nothing => "on Postgres, fsync on",
        }
    }

    /// With so many tenants on its first server.
    async fn fleet(&self, count: usize) -> Result<Fleet> {
        let fleet = match self {
            Self::Postgres(clusters) => Fleet::on_postgres(&clusters[0].dsn("postgres")).await?,
            Self::Files | Self::Nothing => Fleet::new().await?,
        };
        match self {
            Self::Postgres(_) => fleet.migrate(task_files()).await?,
            Self::Files | Self::Nothing => fleet.migrate(sqlite_files()).await?,
        }
        let begun = Instant::now();
        fleet.create(0, count).await?;
        told("create", count, begun);
        let dsn = match self {
            Self::Postgres(clusters) => Some(clusters[1].dsn("postgres")),
            Self::Files | Self::Nothing => None,
        };
        fleet.add_server("other", dsn.as_deref()).await?;
        Ok(fleet)
    }
}

fn moving(to: &str) -> OperationParams {
    OperationParams::Move(r#move::MoveParams { to: Some(to.to_owned()), ..Default::default() })
}

async fn only_tenant(fleet: &Fleet) -> Result<TenantRecord> {
    let mut tx = fleet.app().catalog.read().await?;
    let all = catalog::tenants::list_tenants(&mut tx, &catalog::tenants::TenantCriteria::default(), None, 1).await?;
    all.into_iter().next().context("there is a tenant")
}

/// Moves the only tenant, and returns how long its writers were stopped.
async fn frozen_ms(fleet: &Fleet, to: &str) -> Result<i64> {
    let ended = fleet.succeed(Submission::new(moving(to), TenantSelection::all_tenants())).await?;
    let mut tx = fleet.app().catalog.read().await?;
    let steps = catalog::steps::list_steps(&mut tx, ended.id, &[], None, 1).await?;
    let facts: serde_json::Value = serde_json::from_str(&steps[0].0.facts)?;
    facts["frozen_ms"].as_i64().context("a move says for how long")
}

fn sqlite_files() -> Vec<MigrationFile> {
    let sql = "create table tasks (id integer primary key, title text not null);\n\
               create index tasks_title on tasks (title);\n";
    vec![MigrationFile { name: "0001_tasks.sql".to_owned(), sql: sql.to_owned() }]
}

fn sizes(setup: &Setup) -> impl Iterator<Item = usize> {
    let max = setup["mb-max"];
    [1, 100, 1_000].into_iter().filter(move |mb| *mb <= max)
}

async fn moves_of_files(setup: &Setup) -> Result<()> {
    println!("a move of one file to another directory of the same disk");
    for mb in sizes(setup) {
        let fleet = Fleet::new().await?;
        fleet.migrate(sqlite_files()).await?;
        fleet.create(0, 1).await?;
        fleet.add_server("other", None).await?;
        let file = fleet.any_database()?;
        fill_file(&file, mb)?;
        let bytes = std::fs::metadata(&file)?.len();
        let begun = Instant::now();
        let copy = file.with_extension("copy");
        std::fs::copy(&file, &copy)?;
        std::fs::File::open(&copy)?.sync_all()?;
        let alone = begun.elapsed();
        std::fs::remove_file(&copy)?;
        let frozen = frozen_ms(&fleet, "other").await?;
        println!("  {:>5} MB: writers stopped for {frozen} ms; cp and fsync alone {alone:.0?}", bytes >> 20);
        fleet.close().await;
    }
    Ok(())
}

fn fill_file(file: &Path, mb: usize) -> Result<()> {
    let db = rusqlite::Connection::open(file)?;
    // About 1 KB a row, with its index entry half of it each.
    let sql = format!(
        "insert into tasks (title) with recursive n(i) as (values (1) union all select i + 1 from n where i < {}) \
         select hex(randomblob(230)) from n; pragma wal_checkpoint(truncate);",
        mb * 1_000
    );
    db.execute_batch(&sql)?;
    Ok(())
}

async fn moves_of_postgres(setup: &Setup) -> Result<()> {
    println!("a move of one Postgres database to another server on the same machine, fsync on");
    for mb in sizes(setup) {
        let other = Settings { other: true, ..durable(100) };
        let (one, two) = (Cluster::with(&durable(100)), Cluster::with(&other));
        let fleet = Fleet::on_postgres(&one.dsn("postgres")).await?;
        fleet.migrate(task_files()).await?;
        fleet.create(0, 1).await?;
        fleet.add_server("other", Some(&two.dsn("postgres"))).await?;
        let database = only_tenant(&fleet).await?.placement.context("it has a database")?;
        let rows = mb * 1_000;
        let filled =
            "insert into tasks (title) select repeat(md5(i::text || random()::text), 14) from generate_series(1, ";
        one.psql(&database, &format!("{filled}{rows}) i"));
        let alone = dump_and_restore(&one, &two, &database)?;
        let frozen = frozen_ms(&fleet, "other").await?;
        println!("  {mb:>5} MB: writers stopped for {frozen} ms; pg_dump -Fc | pg_restore alone {alone:.0?}");
        fleet.close().await;
    }
    Ok(())
}

fn dump_and_restore(one: &Cluster, two: &Cluster, database: &str) -> Result<Duration> {
    let begun = Instant::now();
    two.psql("postgres", "create database copy owner fleet");
    let mut dump = Command::new(bin("pg_dump"));
    let mut dump = dump.args(["-Fc", "-Z0", "-d", &one.dsn(database)]).stdout(Stdio::piped()).spawn()?;
    let out = dump.stdout.take().context("it is piped")?;
    let flags = ["--no-owner", "--no-acl", "-d", &two.dsn("copy")];
    let restored = Command::new(bin("pg_restore")).args(flags).stdin(out).stderr(Stdio::null()).status()?;
    let dumped = dump.wait()?;
    // Comments and grants that this role may not give are no failure.
    ensure!(dumped.success() && restored.code().is_some(), "the copy failed");
    Ok(begun.elapsed())
}

async fn rates(on: &On, count: usize) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    println!("{count} tenants {}", on.name());
    let fleet = on.fleet(count).await?;
    for (what, params) in [
        ("suspend", OperationParams::Suspend(suspend::SuspendParams::default())),
        ("resume", OperationParams::Resume(resume::ResumeParams::default())),
        ("move", moving("other")),
    ] {
        let begun = Instant::now();
        fleet.succeed(Submission::new(params, TenantSelection::all_tenants())).await?;
        told(what, count, begun);
    }
    fleet.close().await;
    Ok(())
}

fn told(what: &str, count: usize, begun: Instant) {
    println!("  {what:<8} {:>8.0}/s", count as f64 / begun.elapsed().as_secs_f64());
}

#[derive(Default)]
struct Met {
    done: AtomicU64,
    told_to_wait: AtomicU64,
    lost: AtomicU64,
    stop: AtomicBool,
}

async fn drain(on: &On, count: usize) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    println!("a drain of {count} tenants {}, 4 at once, a client writing to each", on.name());
    let fleet = Arc::new(on.fleet(count).await?);
    let mut tx = fleet.app().catalog.read().await?;
    let all =
        catalog::tenants::list_tenants(&mut tx, &catalog::tenants::TenantCriteria::default(), None, 10_000).await?;
    drop(tx);
    let met = Arc::new(Met::default());
    let clients: Vec<_> =
        all.iter().map(|tenant| tokio::spawn(client(Arc::clone(&fleet), tenant.id, Arc::clone(&met)))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    let submission =
        Submission { concurrency: Some(4), ..Submission::new(moving("other"), TenantSelection::all_tenants()) };
    fleet.succeed(submission).await?;
    let took = begun.elapsed();
    met.stop.store(true, Ordering::Relaxed);
    let mut missing = 0;
    for (client, tenant) in clients.into_iter().zip(&all) {
        let acknowledged = client.await??;
        missing += acknowledged.saturating_sub(rows(&fleet, tenant.id).await?);
    }
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "  {took:.1?}: {} writes acknowledged, {} told to come back, {} lost, {missing} acknowledged and missing (must be 0)",
        of(&met.done),
        of(&met.told_to_wait),
        of(&met.lost)
    );
    Ok(())
}

/// Writes until told to stop; returns how many were acknowledged.
async fn client(fleet: Arc<Fleet>, id: TenantId, met: Arc<Met>) -> Result<u64> {
    let who = Arc::new(Principal::of_tenant("bench", id, Role::Writer));
    let mut acknowledged = 0;
    while !met.stop.load(Ordering::Relaxed) {
        let written = async {
            let tenant = fleet.app().router.open_id::<Write>(Arc::clone(&who), id).await?;
            tenant.execute("insert into tasks (title) values ('w')", ()).await
        };
        match written.await {
            Ok(_) => {
                acknowledged += 1;
                met.done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.status() == 503 && error.retry_after().is_some() => {
                met.told_to_wait.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                met.lost.fetch_add(1, Ordering::Relaxed);
                println!("  lost: {} {error}", error.code());
            }
        }
    }
    Ok(acknowledged)
}

async fn rows(fleet: &Fleet, id: TenantId) -> Result<u64> {
    let who = Arc::new(Principal::of_tenant("bench", id, Role::Writer));
    let tenant = fleet.app().router.open_id::<Write>(who, id).await?;
    let found = tenant.query("select count(*) from tasks", ()).await?;
    match found.rows[0][0] {
        tenant_engine::SqlValue::Integer(count) => Ok(u64::try_from(count)?),
        ref other => anyhow::bail!("{other:?}"),
    }
}
