//! What a suspension, a restore and a clone do to waiting jobs.

use std::sync::Arc;

use catalog::job_queues;
use catalog::{BlockWrites, Generation, TenantId, TenantState};
use tenant_router::jobs::{JobSelection, JobState};
use tenant_router::{JobOptions, JobRun, JobSchedule};
use tokio::sync::Notify;

use crate::job_world::{AddNote, DAY, JobWorld, add_note, operator, write_note};

#[tokio::test]
async fn jobs_of_a_suspended_or_read_only_tenant_wait() {
    let (fleet, ids) = JobWorld::start(&["acme"]).await;
    fleet.enqueue("acme", "x", JobOptions::default()).await;
    fleet.world.update_tenant(ids[0], |update| update.state = Some(TenantState::Suspended)).await;
    fleet.run_due().await;
    fleet
        .world
        .update_tenant(ids[0], |update| {
            update.state = Some(TenantState::Active);
            update.block_writes = Some(Some(BlockWrites::Operator));
        })
        .await;
    fleet.run_due().await;
    assert_eq!(fleet.notes("acme").await, [] as [&str; 0]);
    fleet.world.update_tenant(ids[0], |update| update.block_writes = Some(None)).await;
    fleet.run_due().await;
    assert_eq!(fleet.notes("acme").await, ["x"]);
}

#[tokio::test]
async fn jobs_of_a_restored_database_run_only_when_asked_and_schedules_go_on() {
    let (fleet, ids) = JobWorld::start(&["acme"]).await;
    fleet.enqueue("acme", "x", JobOptions::default()).await;
    let mut tx = fleet.open("acme").await;
    let mut write = tx.write();
    write.schedule("report", &JobSchedule::parse("0 3 * * *").unwrap(), &add_note("night")).await.unwrap();
    write.commit().await.unwrap();
    // As a restore does: the database gets a new generation, below which jobs are dead.
    fleet.world.update_tenant(ids[0], |_| {}).await;
    let below = fleet.world.record(ids[0]).await.generation;
    bury(&fleet, ids[0], below).await;
    tx = fleet.open("acme").await;
    let new = tx.enqueue(&add_note("new"), JobOptions::default()).await.unwrap();
    fleet.run_due().await;
    assert_eq!(fleet.notes("acme").await, ["new"]);
    let listed = fleet.list(ids[0]).await;
    assert!(listed.iter().all(|job| job.id != new), "the new one has run");
    let states: Vec<_> = listed.iter().map(|job| (job.state, job.reason.as_deref())).collect();
    assert_eq!(states, [(JobState::Dead, Some("restored")), (JobState::Waiting, None)]);
    fleet.advance(DAY);
    fleet.run_due().await;
    assert_eq!(fleet.notes("acme").await, ["new"], "a run that was due before the restore is left out");
    fleet.advance(DAY);
    fleet.run_due().await;
    assert_eq!(fleet.notes("acme").await, ["new", "night"]);
    assert_eq!(fleet.router.retry_jobs(&operator(), ids[0], &JobSelection::AllDead).await.unwrap(), 1);
    fleet.run_due().await;
    assert_eq!(fleet.notes("acme").await, ["new", "night", "x"]);
}

#[tokio::test]
async fn a_schedule_that_came_with_a_clone_runs_from_the_next_time_on() {
    // What the runner of the source had done with it when the copy was made.
    for source in ["state = 'waiting'", "state = 'running', claim = 'x', claimed_until = 0, attempts = 20"] {
        let (fleet, ids) = JobWorld::start(&["acme"]).await;
        let schedule = async || {
            let acme = fleet.open("acme").await;
            let mut tx = acme.write();
            tx.schedule("report", &JobSchedule::parse("0 3 * * *").unwrap(), &add_note("night")).await.unwrap();
            tx.commit().await.unwrap();
        };
        schedule().await;
        // As a clone does: the rows name the source.
        let at = fleet.world.placement(&fleet.world.record(ids[0]).await).await;
        let database = rusqlite::Connection::open(at.file_path()).unwrap();
        assert_eq!(database.execute(&format!("update _fleet_jobs set tenant_id = 'tnt_source', {source}"), ()), Ok(1));
        drop(database);
        fleet.advance(DAY);
        fleet.run_due().await;
        assert_eq!(fleet.list(ids[0]).await[0].state, JobState::Dead, "{source}");
        schedule().await;
        fleet.run_due().await;
        assert_eq!(fleet.notes("acme").await, [] as [&str; 0], "a run of the source: {source}");
        let listed = fleet.list(ids[0]).await;
        assert_eq!((listed.len(), listed[0].state, listed[0].attempts), (1, JobState::Waiting, 0), "{source}");
        fleet.advance(DAY);
        fleet.run_due().await;
        assert_eq!(fleet.notes("acme").await, ["night"], "{source}");
    }
}

/// As a restore does: the database gets a new generation, below which jobs are dead.
async fn restore(fleet: &JobWorld, tenant: TenantId) {
    fleet.world.update_tenant(tenant, |_| {}).await;
    bury(fleet, tenant, fleet.world.record(tenant).await.generation).await;
    fleet.router.catch_up().await.unwrap();
}

#[tokio::test]
async fn a_restored_job_gives_its_key_up_and_can_run_again_in_any_state() {
    let (fleet, ids) = JobWorld::start(&["acme"]).await;
    let daily = || JobOptions::default().unique("daily");
    let first = fleet.enqueue("acme", "old", daily()).await;
    // The backup was made while the job ran.
    let begun = Arc::new(Notify::new());
    let told = Arc::clone(&begun);
    let hangs = fleet.router.job_runner().handle(move |_: JobRun<AddNote>| {
        told.notify_one();
        std::future::pending()
    });
    let runner = tokio::spawn(hangs.run_due());
    begun.notified().await;
    runner.abort();
    restore(&fleet, ids[0]).await;
    fleet.advance(120_000);
    let listed = fleet.list(ids[0]).await;
    assert_eq!((listed[0].state, listed[0].reason.as_deref()), (JobState::Dead, Some("restored")));
    let second = fleet.enqueue("acme", "new", daily()).await;
    assert_ne!(second, first, "a dead letter holds no key");
    assert_eq!(fleet.enqueue("acme", "again", daily()).await, second);
    fleet.run_due().await;
    assert_eq!(fleet.notes("acme").await, ["new"]);
    assert_eq!(fleet.router.retry_jobs(&operator(), ids[0], &JobSelection::One(first)).await.unwrap(), 1);
    fleet.run_due().await;
    assert_eq!(fleet.notes("acme").await, ["new", "old"]);
}

#[tokio::test]
async fn a_turn_that_began_before_a_restore_runs_no_restored_job() {
    let (fleet, ids) = JobWorld::start(&["acme"]).await;
    for text in ["1", "2"] {
        fleet.enqueue("acme", text, JobOptions::default()).await;
    }
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, wait) = (Arc::clone(&begun), Arc::clone(&go_on));
    let slow = fleet.router.job_runner().handle(move |run: JobRun<AddNote>| {
        let (told, wait) = (Arc::clone(&told), Arc::clone(&wait));
        async move {
            told.notify_one();
            wait.notified().await;
            write_note(run).await
        }
    });
    let slow = tokio::spawn(slow.run_due());
    begun.notified().await;
    restore(&fleet, ids[0]).await;
    go_on.notify_one();
    slow.await.unwrap().unwrap();
    assert_eq!(fleet.notes("acme").await, ["1"], "the one that had begun");
    let left: Vec<_> = fleet.list(ids[0]).await.iter().map(|job| job.state).collect();
    assert_eq!(left, [JobState::Dead]);
}

async fn bury(fleet: &JobWorld, tenant: TenantId, below: Generation) {
    let mut tx = fleet.world.catalog.write().await.unwrap();
    job_queues::bury_jobs(&mut tx, tenant, below, "restored").await.unwrap();
    tx.commit().await.unwrap();
}
