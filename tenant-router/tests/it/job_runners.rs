//! Several runners, claims that end, and processes that die or stop.

use std::sync::Arc;
use std::time::Duration;

use catalog::{TenantState, job_queues};
use tenant_router::jobs::JobState;
use tenant_router::{ErrorKind, JobOptions, JobRun, Router, Write};
use tokio::sync::Notify;

use crate::job_world::{AddNote, JobWorld, write_note};
use crate::world::open;

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
