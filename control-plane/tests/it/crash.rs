//! One operation, ended at each point its code passes as a crash would end it, and finished by another process.
#![expect(clippy::print_stdout, reason = "the matrix is told, for whoever asks for it")]

use catalog::operations::OperationState;
use control_plane::operations::Params;
use control_plane::plan::Selection;
use control_plane::runner::submit::Submission;

use crate::invariants;
use crate::world::{On, World};

/// More points than any operation has; a loop that gets there did not end.
const POINTS_MAX: usize = 60;

/// Points of the runner, which are the same on every engine: between one of them and the operation's own next to it
/// nothing happens to a database.
const OF_THE_RUNNER: [&str; 3] = ["record: ", "worker: ", "operation: "];

/// Runs the operation without a crash to learn its points, then once for each of them, each time in a fresh fleet, ended
/// there and finished by another process. Returns the points that were met. On Postgres, where a fleet takes a while,
/// the runner's own points are left to the files.
pub(crate) async fn crash_everywhere(
    on: &On,
    what: &str,
    prepare: impl AsyncFn(&World),
    params: impl Fn(&World) -> Params,
    targets: impl Fn() -> Selection,
    check: impl AsyncFn(&World),
) -> Vec<&'static str> {
    let (_, points) = crash_at(on, usize::MAX, &prepare, &params, &targets, &check).await;
    assert!(points.len() < POINTS_MAX, "{points:?}");
    let is_run = |point: &str| matches!(on, On::Sqlite) || !OF_THE_RUNNER.iter().any(|of| point.starts_with(of));
    let mut met = Vec::new();
    for (index, _) in points.iter().enumerate().filter(|(_, point)| is_run(point)) {
        met.extend(crash_at(on, index + 1, &prepare, &params, &targets, &check).await.0);
    }
    let engine = if matches!(on, On::Sqlite) { "sqlite" } else { "postgres" };
    println!("cell {what} on {engine}: {} points, all passed", met.len());
    met
}

/// One cell; returns where the process ended, and all points it passed.
async fn crash_at(
    on: &On,
    count: usize,
    prepare: &impl AsyncFn(&World),
    params: &impl Fn(&World) -> Params,
    targets: &impl Fn() -> Selection,
    check: &impl AsyncFn(&World),
) -> (Option<&'static str>, Vec<&'static str>) {
    let world = World::on(on.clone()).await;
    prepare(&world).await;
    let names = names(&world).await;
    world.app.fleet.halt_after(count);
    let started = world.start(Submission::new(params(&world), targets())).await.unwrap();
    let at = tokio::select! {
        biased;
        at = world.app.fleet.halted() => Some(at),
        ended = world.finish(started.id) => {
            let steps = world.steps(ended.id, &[]).await;
            assert_eq!(ended.state, OperationState::Succeeded, "{steps:?}");
            None
        }
    };
    let points = world.app.fleet.points();
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
    for (name, tenant) in names {
        assert_eq!(world.tenant(&name).await.id, tenant, "I4: {name} leads to somebody else");
    }
    check(&world).await;
    world.app.shutdown(std::time::Duration::from_secs(5)).await;
    (at, points)
}

/// Who every name leads to.
async fn names(world: &World) -> Vec<(String, catalog::TenantId)> {
    let every = catalog::tenants::Selection { states: vec![], ..Default::default() };
    let mut tx = world.app.catalog.read().await.unwrap();
    let tenants = catalog::tenants::page(&mut tx, &every, None, 100).await.unwrap();
    tenants.into_iter().map(|tenant| (tenant.name, tenant.id)).collect()
}
