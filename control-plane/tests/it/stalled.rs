//! A worker that is stopped in the middle of a step, for longer than its lease, and goes on when another one has done the
//! work: whatever it does then is refused by a database's identity or by its step's epoch.

use std::time::Duration;

use catalog::operations::OperationState;
use control_plane::config::Role;
use control_plane::operations::restore::To;
use control_plane::operations::{Params, archive, r#move};
use control_plane::plan::Selection;
use control_plane::runner::submit::Submission;

use crate::invariants;
use crate::world::{TASKS, World, restoring, undoing};

/// Longer than a lease.
const STALL: Duration = Duration::from_secs(61);

async fn acme() -> World {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    world.add_other().await;
    world.sql("acme", "insert into tasks (title) values ('before')").await;
    world
}

/// Runs the operation, whose first worker stalls at `point`; returns a process that sees how it is when that one is done.
async fn stalled(world: World, params: Params, point: &'static str) -> World {
    world.app.fleet.halt_at(point);
    let started = world.start(Submission::new(params, Selection::one("acme"))).await.unwrap();
    world.app.fleet.halted().await;
    world.advance(STALL);
    let other = world.another(Role::Serving).await;
    let ended = other.wait(started.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(ended.state, OperationState::Succeeded, "{point}");
    other.shutdown(Duration::from_secs(5)).await;
    let passed = world.app.fleet.points().len();
    world.app.fleet.go_on();
    // Its worker goes on to its end, as it takes itself for the one that holds the step.
    world.app.shutdown(Duration::from_secs(30)).await;
    // Between two phases it looks whether the step still is its own, and ends there.
    let ends = point == "record: committed";
    assert_eq!(world.app.fleet.points().len() == passed, ends, "{point}: it went on, or did not");
    world.crash().await
}

#[tokio::test]
async fn of_a_move_one_database_is_active() {
    let points =
        ["move: freezes", "move: frozen", "move: copies", "move: filled", "move: verified", "build: activates"];
    for point in points.into_iter().chain(["build: stamped", "swap: retired", "record: committed"]) {
        let moving = Params::Move(r#move::Params { to: Some("other".to_owned()), servers: Vec::new() });
        let world = stalled(acme().await, moving, point).await;
        assert_eq!(world.int("acme", "select count(*) from tasks").await, 1, "{point}");
        world.sql("acme", "insert into tasks (title) values ('after')").await;
        invariants::check(&world).await;
    }
}

#[tokio::test]
async fn of_a_restore_and_its_undo_one_database_is_active() {
    let points = ["build: filled", "restore: freezes", "restore: frozen", "build: activates", "build: stamped"];
    for point in points.into_iter().chain(["swap: retired", "record: committed"]) {
        let world = acme().await;
        world.backup("acme").await;
        let world = stalled(world, restoring(To::Latest), point).await;
        world.sql("acme", "insert into tasks (title) values ('after')").await;
        invariants::check(&world).await;
    }
    for point in ["undo: building", "undo: freezes", "undo: frozen", "build: activates", "swap: retired"] {
        let world = acme().await;
        world.backup("acme").await;
        world.succeed(restoring(To::Latest), Selection::one("acme")).await;
        let world = stalled(world, undoing(), point).await;
        world.sql("acme", "insert into tasks (title) values ('after')").await;
        invariants::check(&world).await;
    }
}

#[tokio::test]
async fn an_archived_tenant_stays_archived() {
    for point in ["archive: claimed", "archive: frozen", "archive: proved", "archive: stamped"] {
        let world = stalled(acme().await, Params::Archive(archive::Params::default()), point).await;
        assert_eq!(world.tenant("acme").await.state, catalog::TenantState::Archived, "{point}");
        invariants::check(&world).await;
    }
}
