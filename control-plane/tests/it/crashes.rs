//! Every operation, ended at every point between two actions as a crash would end it, and finished by another process.

use catalog::operations::OperationState;
use control_plane::operations::{Params, restore};
use control_plane::plan::Selection;
use control_plane::runner::submit::Submission;

use crate::invariants;
use crate::world::{DONE, TASKS, World, backing_up, creating, deleting, migrating, restoring, undoing, verifying};

/// More points than any operation has; a loop that gets there did not end.
const POINTS_MAX: usize = 60;

/// Runs the operation once for each point it passes, each time in a fresh world, ended there and finished by another
/// process. Returns the points that were met.
async fn crash_everywhere(
    prepare: impl AsyncFn(&World),
    params: impl Fn() -> Params,
    targets: impl Fn() -> Selection,
    check: impl AsyncFn(&World),
) -> Vec<&'static str> {
    let mut met = Vec::new();
    for count in 1..POINTS_MAX {
        let world = World::new().await;
        prepare(&world).await;
        world.app.fleet.halt_after(count);
        let started = world.start(Submission::new(params(), targets())).await.unwrap();
        let at = tokio::select! {
            biased;
            at = world.app.fleet.halted() => Some(at),
            ended = world.finish(started.id) => { assert_eq!(ended.state, OperationState::Succeeded); None }
        };
        let world = match at {
            Some(_) => world.crash().await,
            None => {
                world.app.fleet.halt_after(usize::MAX);
                world
            }
        };
        let ended = world.finish(started.id).await;
        let steps = world.steps(ended.id, &[]).await;
        assert_eq!(ended.state, OperationState::Succeeded, "crashed at {at:?}: {steps:?}");
        invariants::check(&world).await;
        check(&world).await;
        match at {
            Some(at) => met.push(at),
            None => return met,
        }
    }
    panic!("more than {POINTS_MAX} points: {met:?}")
}

#[tokio::test]
async fn create() {
    let prepare = async |world: &World| {
        world.migrate(&[TASKS]).await;
    };
    let check = async |world: &World| {
        world.sql("acme", "insert into tasks (title) values ('x')").await;
    };
    let met = crash_everywhere(prepare, || creating(&["acme"]), Selection::default, check).await;
    for point in ["create: claimed", "create: provisioned", "create: probed", "record: begins", "record: committed"] {
        assert!(met.contains(&point), "{point} was not met: {met:?}");
    }
}

#[tokio::test]
async fn migrate() {
    let prepare = async |world: &World| {
        world.migrate(&[TASKS]).await;
        world.create(&["acme"]).await;
        world.sql("acme", "insert into tasks (title) values ('kept')").await;
    };
    let check = async |world: &World| {
        assert_eq!(world.int("acme", "select count(*) from tasks where done = 0").await, 1);
    };
    let met = crash_everywhere(prepare, || migrating(&[TASKS, DONE]), Selection::all, check).await;
    assert!(met.contains(&"migrate: applied"), "{met:?}");
}

/// A tenant with one row in its backup and two in its database.
async fn with_backup(world: &World) {
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    world.sql("acme", "insert into tasks (title) values ('in the backup')").await;
    world.backup("acme").await;
    world.sql("acme", "insert into tasks (title) values ('later')").await;
}

#[tokio::test]
async fn backup() {
    let check = async |world: &World| {
        let backup = world.newest("acme").await.unwrap();
        world.succeed(verifying(), Selection::one("acme")).await;
        assert_eq!(backup.schema_version, Some(1));
    };
    let met = crash_everywhere(with_backup, backing_up, Selection::all, check).await;
    for point in ["backup: stored", "backup: listed", "operation: closes", "operation: ends"] {
        assert!(met.contains(&point), "{point} was not met: {met:?}");
    }
}

#[tokio::test]
async fn restore_in_place() {
    let check = async |world: &World| {
        assert_eq!(world.int("acme", "select count(*) from tasks").await, 1);
        world.sql("acme", "insert into tasks (title) values ('writes go on')").await;
        world.succeed(undoing(), Selection::one("acme")).await;
        assert_eq!(world.int("acme", "select count(*) from tasks where title = 'later'").await, 1);
        invariants::check(world).await;
    };
    let params = || restoring(restore::To::Latest);
    let met = crash_everywhere(with_backup, params, || Selection::one("acme"), check).await;
    for point in ["restore: filled", "restore: frozen", "restore: stamped", "record: begins", "record: committed"] {
        assert!(met.contains(&point), "{point} was not met: {met:?}");
    }
}

#[tokio::test]
async fn restore_as_a_new_tenant() {
    let check = async |world: &World| {
        assert_eq!(world.int("copy", "select count(*) from tasks").await, 1);
        assert_eq!(world.int("acme", "select count(*) from tasks").await, 2);
    };
    let params = || {
        let as_name = Some("copy".to_owned());
        Params::Restore(restore::Params { to: restore::To::Latest, as_name, resolved: None })
    };
    crash_everywhere(with_backup, params, || Selection::one("acme"), check).await;
}

#[tokio::test]
async fn undo() {
    let prepare = async |world: &World| {
        with_backup(world).await;
        world.succeed(restoring(restore::To::Latest), Selection::one("acme")).await;
        world.migrate(&[TASKS, DONE]).await;
    };
    let check = async |world: &World| {
        assert_eq!(world.int("acme", "select count(*) from tasks where done = 0").await, 2);
        world.sql("acme", "insert into tasks (title) values ('writes go on')").await;
    };
    let met = crash_everywhere(prepare, undoing, || Selection::one("acme"), check).await;
    for point in ["undo: building", "undo: migrated", "undo: frozen", "undo: stamped"] {
        assert!(met.contains(&point), "{point} was not met: {met:?}");
    }
}

#[tokio::test]
async fn delete() {
    let check = async |world: &World| {
        let tenant = world.tenant("acme").await;
        assert_eq!(tenant.state, catalog::TenantState::Deleted);
        assert!(world.try_sql("acme", "select 1").await.is_err());
        assert!(world.newest("acme").await.unwrap().verified_at.is_some());
    };
    let met = crash_everywhere(with_backup, deleting, || Selection::one("acme"), check).await;
    assert!(met.contains(&"delete: stamped"), "{met:?}");
}
