//! Background jobs: enqueued with the data, run once, in the tenant that enqueued them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use catalog::events::{EventFilter, EventOrder};
use catalog::job_queues;
use catalog::tokens::TokenScope;
use catalog::{BlockWrites, Generation, TenantId, TenantState};
use serde::{Deserialize, Serialize};
use tenant_router::jobs::{JobRecord, JobSelection, JobState};
use tenant_router::test_fleet::TestFleet;
use tenant_router::{
    Error, ErrorKind, FleetLoop, Job, JobError, JobOptions, JobRun, JobSchedule, OperatorAccess, Read, Role, Router,
    Tenant, Write,
};
use tokio::sync::Notify;

use crate::world::{World, open};

/// Adds a note with this text.
#[derive(Debug, Serialize, Deserialize)]
struct AddNote {
    text: String,
}

impl Job for AddNote {
    const KIND: &'static str = "add-note";
}

fn add_note(text: &str) -> AddNote {
    AddNote { text: text.to_owned() }
}

/// Adds the note and ends the run in one transaction.
async fn write_note(run: JobRun<AddNote>) -> Result<(), JobError> {
    let mut tx = run.tenant().write();
    tx.execute("insert into notes (body) values ($1)", [run.job().text.as_str()]).await?;
    run.finish(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

const DAY: i64 = 24 * 3_600_000;

/// A fleet whose clock a test moves.
struct JobWorld {
    world: World,
    now: Arc<AtomicI64>,
    router: Router,
    token: String,
}

impl JobWorld {
    async fn start(names: &[&str]) -> (Self, Vec<TenantId>) {
        let now = Arc::new(AtomicI64::new(1_800_000_000_000));
        let shown = Arc::clone(&now);
        let world = World::with_clock(Arc::new(move || shown.load(Ordering::Relaxed))).await;
        let ids = world.tenants(names).await;
        let (router, token) = (world.router().await, world.token(TokenScope::Service { role: Role::Manager }).await);
        (Self { world, now, router, token }, ids)
    }

    /// Another process of the application.
    async fn other_router(&self) -> Router {
        Router::builder(self.world.other_catalog().await).engine(self.world.engine.clone()).build().await.unwrap()
    }

    async fn open(&self, name: &str) -> Tenant<Write> {
        open(&self.router, name, &self.token).await.unwrap()
    }

    async fn enqueue(&self, name: &str, text: &str, options: JobOptions) -> String {
        self.open(name).await.enqueue(&add_note(text), options).await.unwrap()
    }

    async fn run_due(&self) {
        self.router.job_runner().handle(write_note).run_due().await.unwrap();
    }

    fn advance(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }

    /// The notes that jobs have added.
    async fn notes(&self, name: &str) -> Vec<String> {
        let tenant: Tenant<Read> = open(&self.router, name, &self.token).await.unwrap();
        tenant.query_as("select body from notes where id > 3 order by id", ()).fetch_all().await.unwrap()
    }

    async fn list(&self, tenant: TenantId) -> Vec<JobRecord> {
        self.router.list_jobs(&operator(), tenant, None, 100).await.unwrap()
    }
}

fn operator() -> OperatorAccess {
    OperatorAccess::new("token:tok_1", "a test")
}

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
async fn a_job_runs_too_long_without_its_handler_for_ever_holding_the_queue() {
    let (fleet, ids) = JobWorld::start(&["acme"]).await;
    fleet.enqueue("acme", "x", JobOptions::default()).await;
    let runner = fleet.router.job_runner().timeout(Duration::from_millis(20));
    let never = runner.handle(|_: JobRun<AddNote>| std::future::pending());
    never.run_due().await.unwrap();
    let failed = fleet.list(ids[0]).await;
    assert!(failed[0].reason.as_deref().unwrap().contains("ran longer than"), "{failed:?}");
}

#[tokio::test]
async fn a_schedule_repeats_and_a_failed_run_does_not_end_it() {
    let (fleet, ids) = JobWorld::start(&["acme"]).await;
    let acme = fleet.open("acme").await;
    let nightly = JobSchedule::parse("0 3 * * *").unwrap();
    let schedule = async |text: &str, pattern: &JobSchedule| {
        let mut tx = acme.write();
        let id = tx.schedule("report", pattern, &add_note(text)).await.unwrap();
        tx.commit().await.unwrap();
        id
    };
    let id = schedule("night", &nightly).await;
    let due_at = fleet.list(ids[0]).await[0].due_at;
    assert_eq!(Some(due_at), nightly.next_after(fleet.world.catalog.now()));
    fleet.advance(3_600_000);
    assert_eq!(schedule("tonight", &nightly).await, id, "a name is one schedule");
    assert_eq!(fleet.list(ids[0]).await[0].due_at, due_at, "the time stays when only the job changes");
    for night in 1..=3 {
        fleet.advance(DAY);
        fleet.run_due().await;
        assert_eq!(fleet.notes("acme").await.len(), night);
    }
    let keys = Arc::new(std::sync::Mutex::new(Vec::new()));
    for _ in 0..20 {
        let into = Arc::clone(&keys);
        let fails = fleet.router.job_runner().handle(move |run: JobRun<AddNote>| {
            into.lock().unwrap().push(run.idempotency_key());
            async { Err(JobError::retry("away")) }
        });
        fleet.advance(DAY);
        fails.run_due().await.unwrap();
    }
    let keys = keys.lock().unwrap().clone();
    assert!(keys.len() == 20 && keys.iter().all(|key| *key == keys[0]), "one run has one key: {keys:?}");
    let states: Vec<_> = fleet.list(ids[0]).await.iter().map(|job| (job.state, job.schedule.is_some())).collect();
    assert_eq!(states, [(JobState::Waiting, true), (JobState::Dead, false)]);
    fleet.advance(7 * DAY);
    fleet.run_due().await;
    assert_eq!(fleet.notes("acme").await, ["tonight"; 4], "missed nights are one run");
    let mut tx = acme.write();
    assert!(tx.unschedule("report").await.unwrap() && !tx.unschedule("report").await.unwrap());
    tx.commit().await.unwrap();
    fleet.advance(2 * DAY);
    fleet.run_due().await;
    assert_eq!(fleet.notes("acme").await.len(), 4);
}

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

#[tokio::test]
async fn a_schedule_can_be_changed_and_ended_while_it_runs() {
    let (fleet, ids) = JobWorld::start(&["acme"]).await;
    let acme = fleet.open("acme").await;
    let mut tx = acme.write();
    tx.schedule("report", &JobSchedule::parse("0 0 1 1 *").unwrap(), &add_note("yearly")).await.unwrap();
    tx.commit().await.unwrap();
    fleet.advance(366 * DAY);
    let changes = fleet.router.job_runner().handle(|run: JobRun<AddNote>| async move {
        let mut tx = run.tenant().write();
        tx.schedule("report", &JobSchedule::parse("0 3 * * *")?, &add_note("nightly")).await?;
        run.finish(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    });
    changes.run_due().await.unwrap();
    let due_at = fleet.list(ids[0]).await[0].due_at;
    assert!(due_at <= fleet.world.catalog.now() + DAY, "the new pattern counts");
    fleet.advance(DAY);
    let ends = fleet.router.job_runner().handle(|run: JobRun<AddNote>| async move {
        let mut tx = run.tenant().write();
        assert!(tx.unschedule("report").await? && !tx.unschedule("report").await?);
        tx.execute("insert into notes (body) values ('last')", ()).await?;
        run.finish(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    });
    ends.run_due().await.unwrap();
    assert_eq!((fleet.notes("acme").await, fleet.list(ids[0]).await.len()), (vec!["last".to_owned()], 0));
}

async fn bury(fleet: &JobWorld, tenant: TenantId, below: Generation) {
    let mut tx = fleet.world.catalog.write().await.unwrap();
    job_queues::bury_jobs(&mut tx, tenant, below, "restored").await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn two_processes_run_each_job_once() {
    let names: Vec<String> = (0..24).map(|number| format!("tenant-{number}")).collect();
    let (fleet, _) = JobWorld::start(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for name in &names {
        for job in 0..4 {
            fleet.enqueue(name, &format!("{job}"), JobOptions::default()).await;
        }
    }
    let other = fleet.other_router().await;
    let run = |router: &Router| router.job_runner().tenants_at_once(4).handle(write_note).run_due();
    let (one, two) = tokio::join!(run(&fleet.router), run(&other));
    assert!(one.unwrap() + two.unwrap() >= names.len());
    fleet.run_due().await;
    for name in &names {
        assert_eq!(fleet.notes(name).await, ["0", "1", "2", "3"], "{name}: once each, in order");
    }
}

#[tokio::test]
async fn a_runner_that_lost_its_claim_changes_nothing() {
    let (fleet, _) = JobWorld::start(&["acme"]).await;
    fleet.enqueue("acme", "x", JobOptions::default()).await;
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let outcome = Arc::new(std::sync::Mutex::new(None));
    let (told, wait, into) = (Arc::clone(&begun), Arc::clone(&go_on), Arc::clone(&outcome));
    let slow = fleet.router.job_runner().handle(move |run: JobRun<AddNote>| {
        let (told, wait, into) = (Arc::clone(&told), Arc::clone(&wait), Arc::clone(&into));
        async move {
            told.notify_one();
            wait.notified().await;
            let ended = write_note(run).await;
            *into.lock().unwrap() = Some(format!("{ended:?}"));
            ended
        }
    });
    let slow = tokio::spawn(slow.run_due());
    begun.notified().await;
    // The first process stands still for longer than its claims last.
    fleet.advance(120_000);
    fleet.other_router().await.job_runner().handle(write_note).run_due().await.unwrap();
    assert_eq!(fleet.notes("acme").await, ["x"]);
    go_on.notify_one();
    slow.await.unwrap().unwrap();
    assert!(outcome.lock().unwrap().as_deref().unwrap().contains("Another process runs this job"), "{outcome:?}");
    assert_eq!(fleet.notes("acme").await, ["x"], "its transaction was rolled back");
}

#[tokio::test]
async fn a_handler_that_returns_long_after_its_commit_does_not_lose_the_queue() {
    let (fleet, ids) = JobWorld::start(&["acme"]).await;
    for text in ["1", "2", "3"] {
        fleet.enqueue("acme", text, JobOptions::default()).await;
    }
    let runner = fleet.router.job_runner().lease(Duration::from_secs(1)).handle(|run: JobRun<AddNote>| async move {
        write_note(run).await?;
        // Longer than the pause between two renewals of the claim. The job is gone by now, and nothing is to be renewed.
        tokio::time::sleep(Duration::from_millis(400)).await;
        Ok(())
    });
    runner.run_due().await.unwrap();
    assert_eq!((fleet.notes("acme").await.len(), fleet.list(ids[0]).await.len()), (3, 0));
}

#[tokio::test]
async fn a_runner_finds_new_jobs_by_itself_and_gives_them_back_when_it_stops() {
    let (fleet, ids) = JobWorld::start(&["acme"]).await;
    let begun = Arc::new(Notify::new());
    let told = Arc::clone(&begun);
    let hangs = fleet.router.job_runner().handle(move |_: JobRun<AddNote>| {
        told.notify_one();
        std::future::pending()
    });
    let runner = hangs.start().unwrap();
    fleet.enqueue("acme", "x", JobOptions::default()).await;
    begun.notified().await;
    runner.shutdown(Duration::from_millis(10)).await;
    let given_back = fleet.list(ids[0]).await;
    assert_eq!((given_back[0].state, given_back[0].attempts), (JobState::Waiting, 1));
    fleet.run_due().await;
    assert_eq!(fleet.notes("acme").await, ["x"]);
    assert_eq!(fleet.router.job_runner().start().unwrap_err().kind(), ErrorKind::Misconfigured, "without a handler");
}

#[tokio::test]
async fn the_jobs_of_a_process_that_died_before_its_marks_are_found() {
    let (fleet, ids) = JobWorld::start(&["acme", "globex", "hooli"]).await;
    fleet.world.update_tenant(ids[2], |update| update.state = Some(TenantState::Archived)).await;
    fleet.enqueue("globex", "x", JobOptions::default()).await;
    fleet.router.shutdown().await;
    let mut tx = fleet.world.catalog.write().await.unwrap();
    // As if the process had died after the commit and before the mark.
    let claimed = job_queues::claim_queues(&mut tx, &ids, "dead", i64::MAX).await.unwrap();
    assert_eq!(claimed.len(), 1, "the orderly end of a process leaves its marks");
    assert_eq!(job_queues::expired_enqueuer(&mut tx).await.unwrap(), None);
    job_queues::release_queue(&mut tx, &claimed[0], "dead", None).await.unwrap();
    job_queues::register_enqueuer(&mut tx, "dead", 1).await.unwrap();
    tx.commit().await.unwrap();
    let router = fleet.other_router().await;
    let done = Arc::new(Notify::new());
    let told = Arc::clone(&done);
    let runner = router.job_runner().handle(move |run: JobRun<AddNote>| {
        let told = Arc::clone(&told);
        async move {
            write_note(run).await?;
            told.notify_one();
            Ok(())
        }
    });
    let runner = runner.start().unwrap();
    done.notified().await;
    runner.shutdown(Duration::from_secs(5)).await;
    let notes: Vec<String> = open::<Write>(&router, "globex", &fleet.token)
        .await
        .unwrap()
        .query_as("select body from notes where id > 3", ())
        .fetch_all()
        .await
        .unwrap();
    assert_eq!(notes, ["x"]);
    let mut tx = fleet.world.catalog.read().await.unwrap();
    assert_eq!(job_queues::expired_enqueuer(&mut tx).await.unwrap(), None);
    let archived = job_queues::queue_of(&mut tx, ids[2]).await.unwrap().unwrap();
    assert!(archived.due_at.is_some(), "its queue is looked into when it serves again");
    assert_eq!(catalog::tenants::wake_requested(&mut tx, 10).await.unwrap(), [], "a sweep wakes nobody");
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

#[tokio::test]
async fn a_loop_over_tenants_needs_a_reason_and_leaves_one_event() {
    let (fleet, ids) = JobWorld::start(&["acme", "globex", "hooli"]).await;
    fleet.world.update_tenant(ids[2], |update| update.state = Some(TenantState::Suspended)).await;
    let visit = async |tenant: Tenant<Write>| {
        if tenant.name() == "globex" {
            return Err("globex fails".to_owned());
        }
        let mut tx = tenant.write();
        let nightly = JobSchedule::parse("0 3 * * *").unwrap();
        tx.schedule("report", &nightly, &add_note("night")).await.map_err(|error| error.to_string())?;
        tx.commit().await.map_err(|error| error.to_string())
    };
    let all = || FleetLoop::over_all("deployment", "a report for each tenant");
    let refused = [
        FleetLoop::over_all("deployment", " "),
        FleetLoop::over_all("deploy\nment", "x"),
        all().labelled("plan=pro"),
        all().labelled("plan="),
        all().labelled(""),
        all().tenants([ids[2]]),
        all().tenants([]),
    ];
    for (number, which) in refused.into_iter().enumerate() {
        let error = fleet.router.for_each(which, visit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LoopInvalid, "{number}: {error}");
    }
    let report = fleet.router.for_each(all().at_once(1), visit).await.unwrap();
    assert_eq!((report.done, report.failed), (1, 1), "a suspended tenant is not selected");
    assert_eq!(report.failures, [(ids[1], "globex fails".to_owned())]);
    let mut tx = fleet.world.catalog.read().await.unwrap();
    let events = catalog::events::read_events(&mut tx, &EventFilter::default(), EventOrder::Newest, None, 10).await;
    let loops: Vec<_> =
        events.unwrap().events.into_iter().filter(|record| record.event.kind == "fleet.loop_begun").collect();
    assert_eq!(loops.len(), 1, "one event for the whole loop, none for a refused one");
    assert_eq!((&*loops[0].event.actor, &loops[0].event.data["tenants"]), ("deployment", &serde_json::json!(2)));
    assert_eq!(fleet.list(ids[0]).await.len(), 1);
}

/// Errors of the router end a run with `?`.
#[test]
fn an_error_of_the_router_is_one_of_a_job() {
    let failed: JobError = Error::from(ErrorKind::Fenced).into();
    assert!(format!("{failed:?}").contains("is_final: false"));
}
