//! Every operation, ended at every point between two actions as a crash would end it, and finished by another process.

use catalog::operations::OperationState;
use control_plane::operations::Params;
use control_plane::plan::Selection;
use control_plane::runner::submit::Submission;

use crate::invariants;
use crate::world::{DONE, TASKS, World, creating, migrating};

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
            None => world,
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
    for point in ["create: claimed", "create: provisioned", "create: stamped", "record: begins", "record: committed"] {
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
