//! Background jobs: enqueued with the data, run once, in the tenant that enqueued them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenant_router::jobs::{JobSelection, JobState};
use tenant_router::test_fleet::TestFleet;
use tenant_router::{Error, ErrorKind, Job, JobError, JobOptions, JobRun, JobSchedule, Role, Write};

use crate::job_world::{AddNote, DAY, JobWorld, add_note, operator, write_note};
use crate::world::open;

#[tokio::test]
async fn a_job_is_enqueued_with_the_data_and_runs_once_in_its_tenant() {
    let (fleet, ids) = JobWorld::start(&["acme", "globex"]).await;
    let acme = fleet.open("acme").await;
    let mut rolled_back = acme.write();
    rolled_back.execute("insert into notes (body) values ('never')", ()).await.unwrap();
    rolled_back.enqueue(&add_note("never"), JobOptions::default()).await.unwrap();
    rolled_back.rollback().await.unwrap();
    let mut tx = acme.write();
    tx.execute("insert into notes (body) values ('first')", ()).await.unwrap();
    let id = tx.enqueue(&add_note("second"), JobOptions::default()).await.unwrap();
    assert_eq!(fleet.list(ids[0]).await, [], "nothing is visible before the commit");
    tx.commit().await.unwrap();
    let listed = fleet.list(ids[0]).await;
    assert_eq!((&*listed[0].id, &*listed[0].kind, listed[0].state), (&*id, "add-note", JobState::Waiting));
    assert!(listed[0].enqueued_by.starts_with("token:"), "{listed:?}");
    for _ in 0..2 {
        fleet.run_due().await;
    }
    assert_eq!(fleet.notes("acme").await, ["first", "second"]);
    assert_eq!(fleet.notes("globex").await, [] as [&str; 0]);
    assert_eq!(fleet.list(ids[0]).await, [], "a finished job leaves the queue");
    assert_eq!(fleet.list(ids[1]).await, [], "a tenant without a job has no queue");
}

#[tokio::test]
async fn a_handler_gets_tenant_principal_and_a_key_that_all_attempts_share() {
    let (fleet, ids) = JobWorld::start(&["acme"]).await;
    let id = fleet.enqueue("acme", "x", JobOptions::default()).await;
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    for _ in 0..2 {
        let into = Arc::clone(&seen);
        let runner = fleet.router.job_runner().handle(move |run: JobRun<AddNote>| {
            let envelope = run.envelope();
            into.lock().unwrap().push((run.idempotency_key(), envelope.tenant, envelope.attempt, run.tenant().id()));
            assert!(envelope.enqueued_by.starts_with("token:") && envelope.job.text == "x");
            async { Err(JobError::retry("not yet")) }
        });
        runner.run_due().await.unwrap();
        fleet.advance(60_000);
    }
    assert_eq!(*seen.lock().unwrap(), [(id.clone(), ids[0], 1, ids[0]), (id, ids[0], 2, ids[0])]);
    let listed = fleet.list(ids[0]).await;
    assert_eq!(
        (listed[0].state, listed[0].attempts, listed[0].reason.as_deref()),
        (JobState::Waiting, 2, Some("not yet"))
    );
}

#[tokio::test]
async fn tenant_sql_does_not_reach_the_queue() {
    let (fleet, _) = JobWorld::start(&["acme"]).await;
    fleet.enqueue("acme", "x", JobOptions::default()).await;
    let acme = fleet.open("acme").await;
    for sql in
        ["select * from _fleet_jobs", "select count(*) from main._FLEET_JOBS", "select * from \"_fleet_received\""]
    {
        assert_eq!(acme.query(sql, ()).await.unwrap_err().code(), "sql_forbidden", "{sql}");
    }
    for sql in ["delete from _fleet_jobs", "update _fleet_jobs set kind = 'other'", "drop table _fleet_jobs"] {
        assert_eq!(acme.execute(sql, ()).await.unwrap_err().code(), "sql_forbidden", "{sql}");
    }
}

/// The queue works on PostgreSQL as on SQLite, in a database that had none.
#[tokio::test]
async fn jobs_run_on_postgres() {
    let cluster = postgres_fixture::Cluster::start();
    let schema = "create table notes (id bigint generated always as identity primary key, body text not null)";
    let fleet = TestFleet::start_on_postgres(&cluster.dsn("postgres"), schema, ["acme", "globex"]).await.unwrap();
    let token = fleet.token("acme", Role::Writer).await.unwrap();
    let (acme, id) = (open::<Write>(fleet.router(), "acme", &token).await.unwrap(), fleet.tenant_id("acme").unwrap());
    let mut rolled_back = acme.write();
    rolled_back.execute("insert into notes (body) values ('never')", ()).await.unwrap();
    rolled_back.enqueue(&add_note("never"), JobOptions::default()).await.unwrap();
    rolled_back.rollback().await.unwrap();
    let unique = || JobOptions::default().unique("once");
    let first = acme.enqueue(&add_note("x"), unique()).await.unwrap();
    assert_eq!(acme.enqueue(&add_note("y"), unique()).await.unwrap(), first);
    let mut tx = acme.write();
    tx.schedule("report", &JobSchedule::parse("0 3 * * *").unwrap(), &add_note("night")).await.unwrap();
    tx.schedule("report", &JobSchedule::parse("0 4 * * *").unwrap(), &add_note("night")).await.unwrap();
    tx.commit().await.unwrap();
    let fails = |_: JobRun<AddNote>| async { Err(JobError::give_up("no")) };
    fleet.router().job_runner().handle(fails).run_due().await.unwrap();
    let listed = fleet.router().list_jobs(&operator(), id, None, 10).await.unwrap();
    let states: Vec<_> = listed.iter().map(|job| (job.state, job.schedule.as_deref())).collect();
    assert_eq!(states, [(JobState::Dead, None), (JobState::Waiting, Some("0 4 * * *"))]);
    assert_eq!(fleet.router().retry_jobs(&operator(), id, &JobSelection::AllDead).await.unwrap(), 1);
    fleet.router().job_runner().handle(write_note).run_due().await.unwrap();
    let notes: Vec<String> = acme.query_as("select body from notes", ()).fetch_all().await.unwrap();
    assert_eq!(notes, ["x"]);
    for sql in ["select * from _fleet_jobs", "select 1 from public._fleet_jobs", "delete from \"_fleet_jobs\""] {
        assert_eq!(acme.execute(sql, ()).await.unwrap_err().code(), "sql_forbidden", "{sql}");
    }
    assert_eq!(fleet.router().drop_jobs(&operator(), id, &JobSelection::One(listed[1].id.clone())).await.unwrap(), 1);
    drop(acme);
    fleet.remove().await.unwrap();
}

#[tokio::test]
async fn delays_and_unique_keys_are_kept() {
    let (fleet, ids) = JobWorld::start(&["acme", "globex"]).await;
    let later = || JobOptions::default().after(Duration::from_secs(60)).unique("daily");
    let first = fleet.enqueue("acme", "later", later()).await;
    assert_eq!(fleet.enqueue("acme", "again", later()).await, first);
    assert_ne!(fleet.enqueue("globex", "later", later()).await, first, "keys of two tenants are apart");
    fleet.run_due().await;
    assert_eq!((fleet.notes("acme").await.len(), fleet.list(ids[0]).await.len()), (0, 1));
    fleet.advance(60_000);
    fleet.run_due().await;
    assert_eq!(
        (fleet.notes("acme").await, fleet.notes("globex").await),
        (vec!["later".to_owned()], vec!["later".to_owned()])
    );
    assert_ne!(fleet.enqueue("acme", "again", later()).await, first, "the key is free after the job");
    let invalid = |options: JobOptions, text: String| {
        let fleet = &fleet;
        async move { fleet.open("acme").await.enqueue(&AddNote { text }, options).await.unwrap_err() }
    };
    for options in [
        JobOptions::default().unique(""),
        JobOptions::default().unique("k".repeat(201)),
        JobOptions::default().unique("schedule:x"),
    ] {
        assert_eq!(invalid(options, "x".to_owned()).await.kind(), ErrorKind::JobInvalid);
    }
    assert!(invalid(JobOptions::default(), "x".repeat(200_000)).await.to_string().contains("at most 100000"));
}

#[tokio::test]
async fn a_job_that_fails_too_often_becomes_a_dead_letter_that_can_run_again() {
    let (fleet, ids) = JobWorld::start(&["acme"]).await;
    fleet.enqueue("acme", "x", JobOptions::default().attempts(3).unique("once")).await;
    let attempts = Arc::new(AtomicUsize::new(0));
    for _ in 0..5 {
        let counted = Arc::clone(&attempts);
        let runner = fleet.router.job_runner().handle(move |_: JobRun<AddNote>| {
            assert!(counted.fetch_add(1, Ordering::Relaxed) != 1, "a panic is a failure too");
            async { Err(JobError::retry("the receiver is away")) }
        });
        runner.run_due().await.unwrap();
        fleet.advance(DAY);
    }
    assert_eq!(attempts.load(Ordering::Relaxed), 3);
    let dead = fleet.list(ids[0]).await;
    assert_eq!((dead[0].state, dead[0].reason.as_deref()), (JobState::Dead, Some("the receiver is away")));
    let other = fleet.enqueue("acme", "y", JobOptions::default().unique("once")).await;
    assert_ne!(other, dead[0].id, "a dead letter does not hold its key");
    let one = JobSelection::One(dead[0].id.clone());
    assert_eq!(fleet.router.retry_jobs(&operator(), ids[0], &JobSelection::One("other".to_owned())).await.unwrap(), 0);
    assert_eq!(fleet.router.retry_jobs(&operator(), ids[0], &JobSelection::One(other)).await.unwrap(), 0, "it waits");
    assert_eq!(fleet.router.retry_jobs(&operator(), ids[0], &one).await.unwrap(), 1);
    fleet.run_due().await;
    let mut notes = fleet.notes("acme").await;
    notes.sort();
    assert_eq!(notes, ["x", "y"]);
}

#[tokio::test]
async fn a_handler_can_give_up_and_an_operator_can_drop() {
    let (fleet, ids) = JobWorld::start(&["acme"]).await;
    fleet.enqueue("acme", "x", JobOptions::default()).await;
    let runner = fleet.router.job_runner();
    let gives_up = runner.handle(|_: JobRun<AddNote>| async { Err(JobError::give_up("the customer is unknown")) });
    gives_up.run_due().await.unwrap();
    let dead = fleet.list(ids[0]).await;
    assert_eq!((dead[0].state, dead[0].attempts), (JobState::Dead, 1));
    let waiting = fleet.enqueue("acme", "y", JobOptions::default().after(Duration::from_secs(9))).await;
    assert_eq!(fleet.router.drop_jobs(&operator(), ids[0], &JobSelection::AllDead).await.unwrap(), 1);
    assert_eq!(fleet.router.drop_jobs(&operator(), ids[0], &JobSelection::AllDead).await.unwrap(), 0);
    assert_eq!(fleet.list(ids[0]).await.len(), 1);
    assert_eq!(fleet.router.drop_jobs(&operator(), ids[0], &JobSelection::One(waiting)).await.unwrap(), 1);
    fleet.advance(DAY);
    fleet.run_due().await;
    assert_eq!(fleet.notes("acme").await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_job_that_runs_too_long_is_stopped_and_tried_again() {
    let (fleet, ids) = JobWorld::start(&["acme"]).await;
    fleet.enqueue("acme", "x", JobOptions::default()).await;
    let runner = fleet.router.job_runner().timeout(Duration::from_millis(20));
    let never = runner.handle(|_: JobRun<AddNote>| std::future::pending());
    never.run_due().await.unwrap();
    let failed = fleet.list(ids[0]).await;
    assert!(failed[0].reason.as_deref().unwrap().contains("ran longer than"), "{failed:?}");
}

#[tokio::test]
async fn a_kind_without_a_handler_waits_for_a_program_that_has_one() {
    #[derive(Serialize, Deserialize)]
    struct Other;
    impl Job for Other {
        const KIND: &'static str = "other";
    }
    let (fleet, ids) = JobWorld::start(&["acme"]).await;
    fleet.open("acme").await.enqueue(&Other, JobOptions::default().attempts(1)).await.unwrap();
    fleet.run_due().await;
    fleet.advance(120_000);
    fleet.run_due().await;
    let waiting = fleet.list(ids[0]).await;
    assert_eq!((waiting[0].state, waiting[0].attempts), (JobState::Waiting, 0));
    fleet.advance(120_000);
    let ran = fleet.router.job_runner().handle(|_: JobRun<Other>| async { Ok(()) });
    ran.run_due().await.unwrap();
    assert_eq!(fleet.list(ids[0]).await, []);
    let unreadable = fleet.open("acme").await.enqueue(&Unreadable, JobOptions::default()).await.unwrap_err();
    assert_eq!(unreadable.kind(), ErrorKind::JobInvalid);
}

/// A job that cannot be written as JSON.
struct Unreadable;

impl Serialize for Unreadable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no"))
    }
}

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

impl Job for Unreadable {
    const KIND: &'static str = "unreadable";
}

/// Errors of the router end a run with `?`.
#[test]
fn an_error_of_the_router_is_one_of_a_job() {
    let failed: JobError = Error::from(ErrorKind::Fenced).into();
    assert!(format!("{failed:?}").contains("is_final: false"));
}
