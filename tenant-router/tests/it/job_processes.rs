//! Job runners in processes of their own, one of which is killed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postgres_fixture::Cluster;
use serde::{Deserialize, Serialize};
use tenant_router::test_fleet::TestFleet;
use tenant_router::{
    Fleet, FleetLoop, Job, JobError, JobOptions, JobRun, OperatorAccess, Read, Role, Router, Tenant, Write,
};

use crate::world::open;

/// Set only by the test for its child processes.
const DIRECTORY: &str = "TENANT_ROUTER_TEST_FLEET";
const TENANTS: usize = 40;
const JOBS: usize = 5;
/// Set only for the first of them.
const STOPS: &str = "TENANT_ROUTER_TEST_STOPS";
/// Jobs that the first process ends. It then stands still in the middle of others, and is killed.
const JOBS_BEFORE_DEATH: usize = 20;

#[derive(Serialize, Deserialize)]
struct LeaveEffect {
    number: usize,
}

impl Job for LeaveEffect {
    const KIND: &'static str = "leave-effect";
}

/// Jobs that this process has begun.
static BEGUN: AtomicUsize = AtomicUsize::new(0);

async fn leave_effect(run: JobRun<LeaveEffect>) -> Result<(), JobError> {
    if BEGUN.fetch_add(1, Ordering::Relaxed) >= JOBS_BEFORE_DEATH && child_value(STOPS).is_some() {
        std::future::pending::<()>().await;
    }
    let mut tx = run.tenant().write();
    let number = i64::try_from(run.job().number)?;
    tx.execute("insert into effects (number, key) values ($1, $2)", (number, run.idempotency_key())).await?;
    run.finish(&mut tx).await?;
    tx.commit().await?;
    // The parent counts lines. Without it, the process is about to end.
    let _ = writeln!(std::io::stdout(), "done");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "how a test tells itself in another process what to do")]
fn child_value(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

/// A process with a job runner. `more` are names of further variables.
fn start_process(fleet: &TestFleet, more: &[&str]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .envs(more.iter().map(|name| (name, "yes")))
        .args(["--exact", "job_processes::jobs_survive_the_death_of_a_process_on_sqlite", "--nocapture"])
        .env(DIRECTORY, fleet.data_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn run_jobs_until_killed(directory: PathBuf) {
    let router = Fleet::in_directory(directory).router().await.unwrap().build().await.unwrap();
    let runner = router.job_runner().lease(Duration::from_secs(1)).tenants_at_once(4).handle(leave_effect);
    let _runner = runner.start().unwrap();
    std::future::pending::<()>().await;
}

fn tenant_names() -> Vec<String> {
    (0..TENANTS).map(|number| format!("tenant-{number}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_survive_the_death_of_a_process_on_sqlite() {
    // The child processes of both tests begin here, too.
    if let Some(directory) = child_value(DIRECTORY) {
        return run_jobs_until_killed(directory).await;
    }
    let names = tenant_names();
    let schema = "create table effects (number integer not null, key text not null) strict";
    let fleet = TestFleet::start(schema, names.iter().map(String::as_str)).await.unwrap();
    jobs_survive_a_death(&fleet, &names).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_survive_the_death_of_a_process_on_postgres() {
    let (cluster, names) = (Cluster::start(), tenant_names());
    let schema = "create table effects (number bigint not null, key text not null)";
    let tenants = names.iter().map(String::as_str);
    let fleet = TestFleet::start_on_postgres(&cluster.dsn("postgres"), schema, tenants).await.unwrap();
    jobs_survive_a_death(&fleet, &names).await;
    fleet.remove().await.unwrap();
}

/// One of two processes is killed in the middle of jobs, and each job has its effect once.
async fn jobs_survive_a_death(fleet: &TestFleet, names: &[String]) {
    enqueue_jobs(fleet.router()).await;
    let mut first = start_process(fleet, &[STOPS]);
    wait_for_jobs(&mut first, JOBS_BEFORE_DEATH);
    // It is killed while it has claimed jobs, and the other one works.
    let mut second = start_process(fleet, &[]);
    wait_for_jobs(&mut second, 1);
    first.kill().unwrap();
    first.wait().unwrap();
    wait_until_idle(fleet, names).await;
    second.kill().unwrap();
    second.wait().unwrap();
    for name in names {
        let token = fleet.token(name, Role::Reader).await.unwrap();
        let tenant: Tenant<Read> = open(fleet.router(), name, &token).await.unwrap();
        let effects: Vec<(i64, String)> =
            tenant.query_as("select number, key from effects", ()).fetch_all().await.unwrap();
        let keys: BTreeMap<_, _> = effects.iter().map(|(number, key)| (key, number)).collect();
        assert_eq!((effects.len(), keys.len()), (JOBS, JOBS), "{name}: each job once: {effects:?}");
    }
}

/// Waits until a process has ended so many jobs.
fn wait_for_jobs(process: &mut Child, jobs: usize) {
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let ended = lines.map_while(Result::ok).filter(|line| line.ends_with("done")).take(jobs).count();
    assert_eq!(ended, jobs, "the process ended by itself");
}

async fn enqueue_jobs(router: &Router) {
    let all = FleetLoop::over_all("test", "jobs for each tenant");
    let report = router.for_each(all, async |tenant: Tenant<Write>| {
        for number in 0..JOBS {
            tenant.enqueue(&LeaveEffect { number }, JobOptions::default()).await?;
        }
        Ok::<_, tenant_router::Error>(())
    });
    assert_eq!(report.await.unwrap().failed, 0);
}

/// Waits until every queue is empty.
async fn wait_until_idle(fleet: &TestFleet, names: &[String]) {
    let operator = OperatorAccess::new("test", "wait for the jobs");
    for name in names {
        let id = fleet.tenant_id(name).unwrap();
        while !fleet.router().list_jobs(&operator, id, None, 1).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
