//! An operation that fails puts back what it touched: every call that it makes of an engine fails once, before the engine
//! has acted and after; then the fleet is whole, the tenant serves, and the operation can be done again.

use std::sync::Arc;
use std::time::Duration;

use catalog::operations::{OperationRecord, OperationState};
use catalog::steps::StepRecord;
use catalog::{BlockWrites, TenantRecord, TenantState};
use control_plane::operations::restore::RestorePoint;
use control_plane::operations::{
    OperationParams, archive, clone, r#move, purge, read_only, resume, settle, suspend, unarchive, undelete,
};
use control_plane::plan::TenantSelection;
use control_plane::runner::control::OperationControl;

use crate::faulty::{Script, When};
use crate::invariants;
use crate::world::{On, World, backing_up, caller, deleting, restoring, undoing, verifying};

fn acme() -> TenantSelection {
    TenantSelection::one_tenant("acme")
}

/// Rows of it need no other value, on either engine.
const TITLES: (&str, &str) = ("0001_tasks.sql", "create table tasks (title text not null);\n");

/// A tenant with a backup, a database that a restore replaced, and a second server.
async fn world() -> (World, Arc<Script>) {
    world_on(On::Sqlite).await
}

async fn world_on(on: On) -> (World, Arc<Script>) {
    let script = Arc::new(Script::on(&on));
    let world = World::faulty(&script, on).await;
    world.add_other().await;
    world.migrate(&[TITLES]).await;
    world.create(&["acme"]).await;
    world.sql("acme", "insert into tasks (title) values ('first')").await;
    world.backup("acme").await;
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    (world, script)
}

/// Lets every call fail once; `back` undoes what a success did, `None`: it can simply be done again. On Postgres, where
/// an operation takes longer, the ways to fail take turns.
async fn fails_everywhere(
    world: &World,
    script: &Script,
    params: fn() -> OperationParams,
    back: Option<fn() -> OperationParams>,
) {
    let rounds: &[&[When]] = match world.on {
        On::Sqlite => &[&[When::Before], &[When::After]],
        On::Postgres(_) => &[&[When::After, When::Refused, When::Restarted]],
    };
    for ways in rounds {
        for call in 1.. {
            let (before, when) = (world.tenant("acme").await, ways[call % ways.len()]);
            script.fail(call, when);
            let ended = run_in_time(world, params()).await;
            let Some(verb) = script.met() else {
                assert_eq!(ended.state, OperationState::Succeeded, "{ended:?}");
                assert!(call > 1, "no call was met");
                go_back(world, back).await;
                break;
            };
            let what = format!("{} failed at call {call}, {verb}, {when:?}", ended.kind);
            let now = whole(world, &format!("{what}: {}", told(world, &ended).await)).await;
            if ended.state == OperationState::Succeeded || has_changed(&before, &now) {
                go_back(world, back).await;
            }
        }
    }
}

/// How its steps ended.
async fn told(world: &World, ended: &OperationRecord) -> String {
    let steps = world.steps(ended.id, &[]).await;
    let told = |step: &StepRecord| format!("{:?} after {} attempts: {:?}", step.state, step.attempt, step.error);
    steps.iter().map(|(step, _)| told(step)).collect::<Vec<_>>().join("; ")
}

/// Runs an operation while time goes by: one that a server failed is tried again a little later.
async fn run_in_time(world: &World, params: OperationParams) -> OperationRecord {
    let ticking = async {
        loop {
            tokio::time::sleep(TICK).await;
            world.advance(TICK);
        }
    };
    tokio::select! {
        ended = world.run(params, acme()) => ended.unwrap(),
        () = ticking => unreachable!("it ticks without end"),
    }
}

const TICK: Duration = Duration::from_millis(20);

async fn go_back(world: &World, back: Option<fn() -> OperationParams>) {
    if let Some(back) = back {
        let ended = run_in_time(world, back()).await;
        assert_eq!(ended.state, OperationState::Succeeded, "{:?}", world.steps(ended.id, &[]).await);
    }
}

/// The operation failed behind its point of no return, and what it was to do is done.
fn has_changed(before: &TenantRecord, now: &TenantRecord) -> bool {
    (before.state, before.server_id, before.block_writes) != (now.state, now.server_id, now.block_writes)
}

/// As an operator finds it, after the periodic repair where one is due.
#[expect(clippy::print_stderr, reason = "tells a failed test's reader which call it was")]
async fn whole(world: &World, what: &str) -> TenantRecord {
    if world.tenant("acme").await.block_writes == Some(BlockWrites::Operation) {
        world.succeed(OperationParams::Settle(settle::SettleParams::default()), acme()).await;
    }
    eprintln!("{what}");
    invariants::check(world).await;
    let now = world.tenant("acme").await;
    if matches!(now.state, TenantState::Active | TenantState::Suspended) {
        assert_eq!(world.int("acme", "select count(*) from tasks where title = 'first'").await, 1, "{what}");
        if now.block_writes.is_none() {
            world.sql("acme", "insert into tasks (title) values ('writes go on')").await;
        }
    }
    now
}

macro_rules! family {
    ($($name:ident: $params:expr, $back:expr;)*) => {
        $(#[tokio::test] async fn $name() {
            let (world, script) = world().await;
            fails_everywhere(&world, &script, || $params, $back).await;
        })*

        mod on_postgres {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                let (world, script) = world_on(On::postgres()).await;
                fails_everywhere(&world, &script, || $params, $back).await;
            })*
        }
    };
}

family! {
    backup: backing_up(), None;
    verify: verifying(), None;
    restore: restoring(RestorePoint::Latest), None;
    undo: undoing(), None;
    suspend: OperationParams::Suspend(suspend::SuspendParams {}), Some(|| OperationParams::Resume(resume::ResumeParams {}));
    read_only: OperationParams::ReadOnly(read_only::ReadOnlyParams { on: true }), Some(|| OperationParams::ReadOnly(read_only::ReadOnlyParams { on: false }));
    move_there: moving("other"), Some(|| OperationParams::Move(r#move::MoveParams::default()));
    archive: OperationParams::Archive(archive::ArchiveParams {}), Some(|| OperationParams::Unarchive(unarchive::UnarchiveParams {}));
    delete: deleting(), Some(|| OperationParams::Undelete(undelete::UndeleteParams {}));
    settle: OperationParams::Settle(settle::SettleParams::default()), None;
}

fn moving(to: &str) -> OperationParams {
    OperationParams::Move(r#move::MoveParams { to: Some(to.to_owned()), ..Default::default() })
}

async fn resumes((world, script): (World, Arc<Script>)) {
    world.succeed(OperationParams::Suspend(suspend::SuspendParams {}), acme()).await;
    let back = || OperationParams::Suspend(suspend::SuspendParams {});
    fails_everywhere(&world, &script, || OperationParams::Resume(resume::ResumeParams {}), Some(back)).await;
}

async fn unarchives((world, script): (World, Arc<Script>)) {
    world.succeed(OperationParams::Archive(archive::ArchiveParams {}), acme()).await;
    let back = || OperationParams::Archive(archive::ArchiveParams {});
    fails_everywhere(&world, &script, || OperationParams::Unarchive(unarchive::UnarchiveParams {}), Some(back)).await;
}

async fn undeletes((world, script): (World, Arc<Script>)) {
    world.succeed(deleting(), acme()).await;
    fails_everywhere(&world, &script, || OperationParams::Undelete(undelete::UndeleteParams {}), Some(deleting)).await;
}

async fn purges((world, script): (World, Arc<Script>)) {
    world.succeed(deleting(), acme()).await;
    for call in 1.. {
        script.fail(call, if call % 2 == 0 { When::After } else { When::Before });
        let ended = run_in_time(&world, OperationParams::Purge(purge::PurgeParams::default())).await;
        if script.met().is_none() {
            assert_eq!(ended.state, OperationState::Succeeded);
            break;
        }
    }
    invariants::check(&world).await;
}

/// A copy that fails leaves nothing of the new tenant, and nothing at the old one.
async fn clones((world, script): (World, Arc<Script>)) {
    for call in 1.. {
        let ways = [When::After, When::Refused, When::Restarted];
        script.fail(call, ways[call % ways.len()]);
        let params = OperationParams::Clone(clone::CloneParams { name: format!("copy-{call}"), source: None });
        let ended = run_in_time(&world, params).await;
        let met = script.met();
        if ended.state != OperationState::Succeeded {
            // Its tenant is there without a database, for another attempt.
            world.app.runner.control_operation(&caller(), ended.id, OperationControl::Retry, None).await.unwrap();
            assert_eq!(world.finish(ended.id).await.state, OperationState::Succeeded, "{met:?}");
        }
        whole(&world, &format!("clone at call {call}, {met:?}: {}", told(&world, &ended).await)).await;
        if met.is_none() {
            break;
        }
    }
}

macro_rules! both {
    ($($name:ident: $case:ident;)*) => {
        $(#[tokio::test(flavor = "multi_thread")] async fn $name() { $case(world().await).await; })*

        mod each_on_postgres {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { $case(world_on(On::postgres()).await).await; })*
        }
    };
}

both! {
    resume: resumes;
    unarchive: unarchives;
    undelete: undeletes;
    purge: purges;
    clone: clones;
}

#[tokio::test]
async fn an_undo_needs_no_migration_that_would_fail_on_the_kept_database() {
    let (world, _) = world().await;
    world.sql("acme", "insert into tasks (title) values ('twice'), ('twice')").await;
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    let unique = ("0002_unique.sql", "create unique index tasks_title on tasks (title);\n");
    world.migrate(&[TITLES, unique]).await;
    world.succeed(undoing(), acme()).await;
    invariants::check(&world).await;
    assert_eq!(world.int("acme", "select count(*) from tasks").await, 3);
    assert_eq!(world.tenant("acme").await.pin.map(|pin| pin.below), Some(2));
    // The current one is the last that serves.
    let newest = OperationParams::Settle(settle::SettleParams { newest: true, ..Default::default() });
    world.succeed(newest, acme()).await;
    invariants::check(&world).await;
}
