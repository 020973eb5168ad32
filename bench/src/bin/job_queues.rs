//! Background jobs of many tenants in two processes, one of which is killed:
//!
//! - every tenant gets one job, and each job leaves one row and one line outside its database;
//! - the first process is killed when half of the jobs are done;
//! - afterwards the processor time of the process that is left is measured, with every queue empty.
//!
//! `job_queues [--tenants 10000] [--seconds 20]`

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fleet_bench::fleet::arguments;
use serde::{Deserialize, Serialize};
use tenant_router::test_fleet::TestFleet;
use tenant_router::{Fleet, FleetLoop, Job, JobError, JobOptions, JobRun, OperatorAccess, Tenant, Write};

#[derive(Serialize, Deserialize)]
struct LeaveEffect;

impl Job for LeaveEffect {
    const KIND: &'static str = "leave-effect";
}

async fn leave_effect(run: JobRun<LeaveEffect>) -> Result<(), JobError> {
    // An effect outside the database, before the end of the run: the receiver refuses a key that it knows.
    let _ = writeln!(std::io::stdout(), "{}", run.idempotency_key());
    let mut tx = run.tenant().write();
    tx.execute("insert into effects (key) values ($1)", [run.idempotency_key()]).await?;
    run.finish(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let setup = arguments(&[("tenants", 10_000), ("seconds", 20), ("worker", 0)])?;
    if setup["worker"] > 0 {
        return run_worker().await;
    }
    let names: Vec<String> = (0..setup["tenants"]).map(|number| format!("tenant-{number}")).collect();
    let schema = "create table effects (key text not null) strict";
    let began = Instant::now();
    let fleet = TestFleet::start(schema, names.iter().map(String::as_str)).await?;
    println!("{} tenants made in {:.0?}", names.len(), began.elapsed());
    enqueue_jobs(&fleet).await?;
    run_and_kill(&fleet, &names, setup["seconds"] as u64).await
}

/// A process of the application, in the directory of the fleet.
async fn run_worker() -> Result<()> {
    let router = Fleet::in_directory(".").router().await?.build().await?;
    let runner = router.job_runner().lease(Duration::from_secs(5)).handle(leave_effect);
    let _runner = runner.start()?;
    std::future::pending().await
}

async fn enqueue_jobs(fleet: &TestFleet) -> Result<()> {
    let began = Instant::now();
    let all = FleetLoop::over_all("bench", "one job for each tenant").at_once(16);
    let report = fleet.router().for_each(all, async |tenant: Tenant<Write>| {
        tenant.enqueue(&LeaveEffect, JobOptions::default()).await.map(drop)
    });
    let report = report.await?;
    ensure!(report.failed == 0, "{:?}", report.failures);
    println!("{} jobs enqueued in {:.1?}", report.done, began.elapsed());
    Ok(())
}

fn start_worker(directory: &Path) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--worker", "1"]).current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(command.spawn()?)
}

/// Sends each line of a worker to the channel.
fn forward_lines(worker: &mut Child, lines: mpsc::Sender<String>) {
    let Some(stdout) = worker.stdout.take() else { return };
    std::thread::spawn(move || {
        BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(lines.send(line)));
    });
}

async fn run_and_kill(fleet: &TestFleet, names: &[String], idle_seconds: u64) -> Result<()> {
    let (sender, lines) = mpsc::channel();
    let began = Instant::now();
    let mut workers = [start_worker(fleet.data_dir())?, start_worker(fleet.data_dir())?];
    workers.iter_mut().for_each(|worker| forward_lines(worker, sender.clone()));
    let mut effects: HashMap<String, u32> = HashMap::new();
    for line in lines.iter().take(names.len() / 2) {
        *effects.entry(line).or_default() += 1;
    }
    let [first, second] = &mut workers;
    first.kill()?;
    first.wait()?;
    println!("one of two processes killed after {} jobs, {:.1?}", effects.len(), began.elapsed());
    while effects.len() < names.len() {
        *effects.entry(lines.recv()?).or_default() += 1;
    }
    let twice = effects.values().filter(|count| **count > 1).count();
    println!(
        "all jobs done after {:.1?}; {twice} effects outside the databases came twice with one key",
        began.elapsed()
    );
    check_databases(fleet, names).await?;
    let before = processor_time(second.id())?;
    tokio::time::sleep(Duration::from_secs(idle_seconds)).await;
    let used = processor_time(second.id())? - before;
    let share = used.as_secs_f64() / idle_seconds as f64 * 100.0;
    println!("idle with {} empty queues: {used:.0?} of processor time in {idle_seconds} s ({share:.2} %)", names.len());
    second.kill()?;
    second.wait()?;
    Ok(())
}

/// Each database has one row, and its queue is empty.
async fn check_databases(fleet: &TestFleet, names: &[String]) -> Result<()> {
    let operator = OperatorAccess::new("bench", "count the effects");
    for name in names {
        let id = fleet.tenant_id(name)?;
        while !fleet.router().list_jobs(&operator, id, None, 1).await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let tenant = fleet.router().open_for_operator(&operator, id).await?;
        let rows: i64 = tenant.query_as("select count(*) from effects", ()).fetch_one().await?;
        ensure!(rows == 1, "{name} has {rows} effects");
    }
    println!("each of {} databases has exactly one effect", names.len());
    Ok(())
}

/// User and system time of a process.
fn processor_time(process: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name of the program may contain spaces; the fields follow its parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // Linux counts in hundredths of a second.
    Ok(Duration::from_millis(ticks * 10))
}
