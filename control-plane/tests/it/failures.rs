//! An operation that fails puts back what it touched: every call that it makes of an engine fails once, before the engine
//! has acted and after; then the fleet is whole, the tenant serves, and the operation can be done again.

use std::sync::Arc;

use catalog::operations::OperationState;
use catalog::{BlockWrites, TenantRecord, TenantState};
use control_plane::operations::restore::To;
use control_plane::operations::{
    Params, archive, r#move, purge, read_only, resume, settle, suspend, unarchive, undelete,
};
use control_plane::plan::Selection;

use crate::faulty::{Script, When};
use crate::invariants;
use crate::world::{TASKS, World, backing_up, deleting, restoring, undoing, verifying};

fn acme() -> Selection {
    Selection::one("acme")
}

/// A tenant with a backup, a database that a restore replaced, and a second server.
async fn world() -> (World, Arc<Script>) {
    let script = Arc::new(Script::default());
    let world = World::faulty(&script).await;
    world.add_other().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    world.sql("acme", "insert into tasks (title) values ('first')").await;
    world.backup("acme").await;
    world.succeed(restoring(To::Latest), acme()).await;
    (world, script)
}

/// Lets every call fail once; `back` undoes what a success did, `None`: it can simply be done again.
async fn fails_everywhere(world: &World, script: &Script, params: fn() -> Params, back: Option<fn() -> Params>) {
    for when in [When::Before, When::After] {
        for call in 1.. {
            let before = world.tenant("acme").await;
            script.fail(call, when);
            let ended = world.run(params(), acme()).await.unwrap();
            let Some(verb) = script.met() else {
                assert_eq!(ended.state, OperationState::Succeeded, "{ended:?}");
                assert!(call > 1, "no call was met");
                go_back(world, back).await;
                break;
            };
            let what = format!("{} failed at call {call}, {verb}, {when:?}", ended.kind);
            let now = whole(world, &what).await;
            if ended.state == OperationState::Succeeded || has_changed(&before, &now) {
                go_back(world, back).await;
            }
        }
    }
}

async fn go_back(world: &World, back: Option<fn() -> Params>) {
    if let Some(back) = back {
        world.succeed(back(), acme()).await;
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
        world.succeed(Params::Settle(settle::Params::default()), acme()).await;
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
    };
}

family! {
    backup: backing_up(), None;
    verify: verifying(), None;
    restore: restoring(To::Latest), None;
    undo: undoing(), None;
    suspend: Params::Suspend(suspend::Params {}), Some(|| Params::Resume(resume::Params {}));
    read_only: Params::ReadOnly(read_only::Params { on: true }), Some(|| Params::ReadOnly(read_only::Params { on: false }));
    move_there: moving("other"), Some(|| moving("local"));
    archive: Params::Archive(archive::Params {}), Some(|| Params::Unarchive(unarchive::Params {}));
    delete: deleting(), Some(|| Params::Undelete(undelete::Params {}));
    settle: Params::Settle(settle::Params::default()), None;
}

fn moving(to: &str) -> Params {
    Params::Move(r#move::Params { to: Some(to.to_owned()), ..Default::default() })
}

#[tokio::test]
async fn resume() {
    let (world, script) = world().await;
    world.succeed(Params::Suspend(suspend::Params {}), acme()).await;
    let back = || Params::Suspend(suspend::Params {});
    fails_everywhere(&world, &script, || Params::Resume(resume::Params {}), Some(back)).await;
}

#[tokio::test]
async fn unarchive() {
    let (world, script) = world().await;
    world.succeed(Params::Archive(archive::Params {}), acme()).await;
    let back = || Params::Archive(archive::Params {});
    fails_everywhere(&world, &script, || Params::Unarchive(unarchive::Params {}), Some(back)).await;
}

#[tokio::test]
async fn undelete() {
    let (world, script) = world().await;
    world.succeed(deleting(), acme()).await;
    fails_everywhere(&world, &script, || Params::Undelete(undelete::Params {}), Some(deleting)).await;
}

#[tokio::test]
async fn purge() {
    let (world, script) = world().await;
    world.succeed(deleting(), acme()).await;
    for call in 1.. {
        script.fail(call, if call % 2 == 0 { When::After } else { When::Before });
        let ended = world.run(Params::Purge(purge::Params::default()), acme()).await.unwrap();
        if script.met().is_none() {
            assert_eq!(ended.state, OperationState::Succeeded);
            break;
        }
    }
    invariants::check(&world).await;
}

#[tokio::test]
async fn an_undo_needs_no_migration_that_would_fail_on_the_kept_database() {
    let (world, _) = world().await;
    world.sql("acme", "insert into tasks (title) values ('twice'), ('twice')").await;
    world.succeed(restoring(To::Latest), acme()).await;
    let unique = ("0002_unique.sql", "create unique index tasks_title on tasks (title);\n");
    world.migrate(&[TASKS, unique]).await;
    world.succeed(undoing(), acme()).await;
    invariants::check(&world).await;
    assert_eq!(world.int("acme", "select count(*) from tasks").await, 3);
    assert_eq!(world.tenant("acme").await.pin.map(|pin| pin.below), Some(2));
    // The current one is the last that serves.
    let newest = Params::Settle(settle::Params { newest: true, ..Default::default() });
    world.succeed(newest, acme()).await;
    invariants::check(&world).await;
}
