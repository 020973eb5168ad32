//! Jobs that a schedule repeats.

use std::sync::Arc;

use tenant_router::jobs::JobState;
use tenant_router::{JobError, JobRun, JobSchedule};

use crate::job_world::{AddNote, DAY, JobWorld, add_note};

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
