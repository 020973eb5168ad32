//! Clocks that step, and clocks that differ: which database and which backup came last never depends on them.

use std::sync::Arc;
use std::time::Duration;

use control_plane::App;
use control_plane::operations::OperationParams;
use control_plane::operations::restore::RestorePoint;
use control_plane::plan::TenantSelection;
use control_plane::runner::control::OperationControl;
use control_plane::runner::submit::{Submission, SubmitMode, SubmitOutcome};

use crate::faulty::{Script, When};
use crate::invariants;
use crate::world::{On, TASKS, World, backing_up, caller, restoring, undoing};

const AHEAD: Duration = Duration::from_secs(90);

fn acme() -> TenantSelection {
    TenantSelection::one_tenant("acme")
}

/// A tenant whose rows tell what was written when.
async fn tenant() -> World {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    write(&world, "first").await;
    world
}

async fn write(world: &World, title: &str) {
    world.sql("acme", &format!("insert into tasks (title) values ('{title}')")).await;
}

async fn has(world: &World, title: &str) -> bool {
    world.int("acme", &format!("select count(*) from tasks where title = '{title}'")).await == 1
}

#[tokio::test]
async fn an_undo_takes_back_the_last_restore_although_an_earlier_one_says_a_later_time() {
    let world = tenant().await;
    world.backup("acme").await;
    write(&world, "before the first restore").await;
    world.advance(AHEAD);
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    world.turn_back(AHEAD);
    write(&world, "acknowledged").await;
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    assert!(!has(&world, "acknowledged").await);
    world.succeed(undoing(), acme()).await;
    assert!(has(&world, "acknowledged").await && !has(&world, "before the first restore").await);
    invariants::check(&world).await;
}

#[tokio::test]
async fn the_latest_backup_is_the_last_one_although_an_earlier_one_says_a_later_time() {
    let world = tenant().await;
    world.advance(AHEAD);
    let early = world.backup("acme").await;
    world.turn_back(AHEAD);
    write(&world, "acknowledged").await;
    let late = world.backup("acme").await;
    assert!(early.taken_at > late.taken_at);
    world.sql("acme", "delete from tasks").await;
    // A time before the wrong one finds the right one, and says that the times contradict each other.
    let plan = world.plan(restoring(RestorePoint::At(early.taken_at - 1)), acme()).await.unwrap();
    assert!(plan.sample[0].action.contains(&late.id.to_string()), "{plan:?}");
    assert!(plan.notes.iter().any(|note| note.contains("clock was wrong")), "{plan:?}");
    for to in [RestorePoint::At(world.now() + 2 * 90_000), RestorePoint::Latest] {
        let plan = world.plan(restoring(to), acme()).await.unwrap();
        assert!(plan.sample[0].action.contains(&late.id.to_string()), "{plan:?}");
        assert!(!plan.notes.iter().any(|note| note.contains("clock was wrong")), "{plan:?}");
    }
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    assert!(has(&world, "acknowledged").await);
}

/// One operation by one of two processes.
async fn by(app: &Arc<App>, params: OperationParams) {
    let submitted =
        app.runner.submit_operation(&caller(), Submission::new(params, acme()), SubmitMode::Run).await.unwrap();
    let SubmitOutcome::Started(record) = submitted else { panic!("only planned") };
    let ended = app.runner.wait_for_operation(record.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(ended.error_code, None);
}

#[tokio::test]
async fn two_processes_a_few_seconds_apart_agree_on_what_came_last() {
    let world = tenant().await;
    let other = world.ahead(Duration::from_secs(4)).await;
    by(&other, backing_up()).await;
    write(&world, "before the second backup").await;
    by(&world.app, backing_up()).await;
    write(&world, "before the first restore").await;
    by(&other, restoring(RestorePoint::Latest)).await;
    assert!(has(&world, "before the second backup").await);
    write(&world, "acknowledged").await;
    by(&world.app, restoring(RestorePoint::Latest)).await;
    by(&other, undoing()).await;
    assert!(has(&world, "acknowledged").await && !has(&world, "before the first restore").await);
    other.shut_down(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_pause_is_measured_while_the_clock_steps() {
    for step in [Duration::from_secs(3_600), Duration::ZERO] {
        let world = tenant().await;
        world.backup("acme").await;
        world.app.context.halt_at("restore: frozen");
        let started = world.start(Submission::new(restoring(RestorePoint::Latest), acme())).await.unwrap();
        world.app.context.wait_until_halted().await;
        // Not so far ahead that the lease ends.
        world.advance(Duration::from_secs(15));
        world.turn_back(step);
        world.app.context.resume_halted();
        let ended = world.finish(started.id).await;
        let facts: serde_json::Value = serde_json::from_str(&world.steps(ended.id, &[]).await[0].0.facts).unwrap();
        let frozen_ms = facts["frozen_ms"].as_i64().unwrap();
        assert!((0..15_000).contains(&frozen_ms), "{facts}");
    }
}

/// A backup of acme that is at work, in a fleet where globex is free.
async fn at_work(script: &Arc<Script>) -> (World, catalog::OperationId) {
    let world = World::faulty(script, On::Sqlite).await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme", "globex"]).await;
    script.fail(1, When::Held);
    let op = world.start(Submission::new(backing_up(), acme())).await.unwrap().id;
    script.begun().await;
    (world, op)
}

#[tokio::test]
async fn a_step_that_this_process_runs_is_not_claimed_again_when_the_clock_is_set() {
    const HOURS: Duration = Duration::from_secs(2 * 3_600);
    for set in [World::turn_back, World::advance] {
        let script = Arc::default();
        let (world, op) = at_work(&script).await;
        set(&world, HOURS);
        // The runner looks at every operation before it has come to the end of this one.
        world.succeed(backing_up(), TenantSelection::one_tenant("globex")).await;
        script.let_go();
        let ended = world.finish(op).await;
        let (step, _) = &world.steps(ended.id, &[]).await[0];
        assert_eq!((step.lease_epoch, step.deaths), (1, 0), "{step:?}");
        assert_eq!(ended.error_code, None);
        invariants::check(&world).await;
    }
}

#[tokio::test]
async fn a_step_that_this_process_runs_keeps_its_tenant_when_the_operation_is_cancelled_and_the_clock_set_back() {
    let script = Arc::default();
    let (world, op) = at_work(&script).await;
    world.turn_back(Duration::from_secs(2 * 3_600));
    let record = world.app.runner.control_operation(&caller(), op, OperationControl::Cancel, None).await.unwrap();
    assert_eq!((record.finished_at, world.tenant("acme").await.op_id), (None, Some(op)));
    script.let_go();
    world.finish(op).await;
    assert_eq!(world.tenant("acme").await.op_id, None);
    invariants::check(&world).await;
}
