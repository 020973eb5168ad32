//! A process that dies again and again at the same point of an operation: the step is given up, and the tenant serves.

use catalog::operations::{OperationRecord, OperationState};
use control_plane::operations::{OperationParams, archive, r#move, restore, settle};
use control_plane::plan::TenantSelection;
use control_plane::runner::submit::Submission;

use crate::invariants;
use crate::world::{DONE, TASKS, World, migrating, restoring, undoing};

/// More deaths than any step may cost: those of a phase, and those of giving it up.
const DEATHS_MAX: usize = 12;

fn acme() -> TenantSelection {
    TenantSelection::one_tenant("acme")
}

async fn with_backup(world: &World) {
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    world.sql("acme", "insert into tasks (title) values ('in the backup')").await;
    world.backup("acme").await;
}

async fn with_replaced(world: &World) {
    with_backup(world).await;
    world.succeed(restoring(restore::RestorePoint::Latest), acme()).await;
}

async fn with_other(world: &World) {
    with_backup(world).await;
    world.add_other().await;
}

fn archiving() -> OperationParams {
    OperationParams::Archive(archive::ArchiveParams {})
}

fn moving() -> OperationParams {
    OperationParams::Move(r#move::MoveParams { to: Some("other".to_owned()), ..Default::default() })
}

fn restoring_latest() -> OperationParams {
    restoring(restore::RestorePoint::Latest)
}

/// Ends the process whenever it comes to this point, until the operation has ended; says how often.
async fn die_at(
    world: World,
    params: OperationParams,
    targets: TenantSelection,
    point: &'static str,
) -> (World, OperationRecord, usize) {
    world.app.context.halt_at(point);
    let started = world.start(Submission::new(params, targets)).await.unwrap();
    let mut world = world;
    for deaths in 0..=DEATHS_MAX {
        let fleet = std::sync::Arc::clone(&world.app.context);
        let ended = tokio::select! {
            biased;
            _ = fleet.wait_until_halted() => None,
            ended = world.finish(started.id) => Some(ended),
        };
        drop(fleet);
        if let Some(ended) = ended {
            return (world, ended, deaths);
        }
        world = world.crash().await;
        world.app.context.halt_at(point);
    }
    panic!("the process died more than {DEATHS_MAX} times at '{point}'");
}

/// What a serving process does in the background.
async fn repair(world: &World) {
    world.succeed(OperationParams::Settle(settle::SettleParams::default()), acme()).await;
}

/// The process dies at this point as often as the step allows; then the tenant serves and holds its row.
async fn gives_up_at(prepare: impl AsyncFn(&World), params: fn() -> OperationParams, point: &'static str) {
    let world = World::new().await;
    prepare(&world).await;
    let (world, ended, deaths) = die_at(world, params(), acme(), point).await;
    assert_eq!(deaths, 5, "{point}");
    assert_eq!(
        (ended.state, world.failure(&ended).await.as_str()),
        (OperationState::Failed, "process_died"),
        "{point}"
    );
    repair(&world).await;
    world.sql("acme", "insert into tasks (title) values ('writes go on')").await;
    assert_eq!(world.int("acme", "select count(*) from tasks").await, 2, "{point}");
    invariants::check(&world).await;
}

#[tokio::test]
async fn an_archive_is_given_up() {
    for point in ["archive: claimed", "archive: frozen", "archive: proved", "archive: stamped"] {
        gives_up_at(with_backup, archiving, point).await;
    }
}

#[tokio::test]
async fn a_restore_is_given_up() {
    for point in ["build: filled", "restore: freezes", "restore: frozen"] {
        gives_up_at(with_backup, restoring_latest, point).await;
    }
}

#[tokio::test]
async fn a_swap_is_given_up_before_and_after_the_new_database_was_stamped() {
    for point in ["build: stamped", "swap: retired"] {
        gives_up_at(with_backup, restoring_latest, point).await;
    }
}

#[tokio::test]
async fn an_undo_is_given_up() {
    for point in ["undo: claimed", "undo: looked at", "undo: frozen", "swap: retired"] {
        gives_up_at(with_replaced, undoing, point).await;
    }
}

#[tokio::test]
async fn a_move_is_given_up() {
    for point in ["move: claimed", "move: frozen", "move: filled", "move: verified", "swap: retired"] {
        gives_up_at(with_other, moving, point).await;
    }
}

#[tokio::test]
async fn each_tenant_of_a_run_is_given_up_and_the_run_ends() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme", "globex", "initech"]).await;
    let (world, ended, _) =
        die_at(world, migrating(&[TASKS, DONE]), TenantSelection::all_tenants(), "migrate: applied").await;
    assert_eq!(ended.state, OperationState::Failed);
    for (step, _) in world.steps(ended.id, &[]).await {
        assert_eq!(step.error_code.as_deref(), Some("process_died"));
        assert!(step.error.unwrap().contains("processes that ran the step died 5 times"));
    }
    // Whatever ended the process is gone: the run can be done again.
    world.app.context.halt_after(usize::MAX);
    world.migrate(&[TASKS, DONE]).await;
    invariants::check(&world).await;
}
