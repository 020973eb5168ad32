//! Job runners in processes of their own, one of which is killed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

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
/// Jobs that the first process ends before it is killed.
const JOBS_BEFORE_DEATH: usize = 20;

#[derive(Serialize, Deserialize)]
struct LeaveEffect {
    number: usize,
}

impl Job for LeaveEffect {
    const KIND: &'static str = "leave-effect";
}

async fn leave_effect(run: JobRun<LeaveEffect>) -> Result<(), JobError> {
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
fn child_directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// A process with a job runner.
fn start_process(fleet: &TestFleet) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "job_processes::jobs_survive_the_death_of_a_process", "--nocapture"])
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_survive_the_death_of_a_process() {
    if let Some(directory) = child_directory() {
        return run_jobs_until_killed(directory).await;
    }
    let names: Vec<String> = (0..TENANTS).map(|number| format!("tenant-{number}")).collect();
    let schema = "create table effects (number integer not null, key text not null) strict";
    let fleet = TestFleet::start(schema, names.iter().map(String::as_str)).await.unwrap();
    enqueue_jobs(fleet.router()).await;
    let (mut first, mut second) = (start_process(&fleet), start_process(&fleet));
    let lines = BufReader::new(first.stdout.take().unwrap()).lines();
    let ended = lines.map_while(Result::ok).filter(|line| line.ends_with("done")).take(JOBS_BEFORE_DEATH).count();
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(ended, JOBS_BEFORE_DEATH, "the first process ended by itself");
    wait_until_idle(&fleet, &names).await;
    second.kill().unwrap();
    second.wait().unwrap();
    for name in &names {
        let token = fleet.token(name, Role::Reader).await.unwrap();
        let tenant: Tenant<Read> = open(fleet.router(), name, &token).await.unwrap();
        let effects: Vec<(i64, String)> =
            tenant.query_as("select number, key from effects", ()).fetch_all().await.unwrap();
        let keys: BTreeMap<_, _> = effects.iter().map(|(number, key)| (key, number)).collect();
        assert_eq!((effects.len(), keys.len()), (JOBS, JOBS), "{name}: each job once: {effects:?}");
    }
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
