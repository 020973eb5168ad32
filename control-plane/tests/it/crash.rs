//! One operation, whose process is ended or stopped at each point its code passes, and finished by another process.
#![expect(clippy::print_stdout, reason = "the matrix is told, for whoever asks for it")]

use std::time::Duration;

use catalog::OperationId;
use catalog::operations::OperationState;
use control_plane::config::ProcessRole;
use control_plane::operations::OperationParams;
use control_plane::plan::TenantSelection;
use control_plane::runner::submit::Submission;

use crate::invariants;
use crate::world::{On, PreparedFleet, World};

/// More points than any operation has; a loop that gets there did not end.
const POINTS_MAX: usize = 60;

/// Longer than a lease.
const STALL: Duration = Duration::from_secs(61);

/// Points of the runner, which are the same on every engine: between one of them and the operation's own next to it
/// nothing happens to a database.
const OF_THE_RUNNER: [&str; 3] = ["record: ", "worker: ", "operation: "];

/// What becomes of the process that is in the middle of the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is no more.
    Killed,
    /// It sleeps past its lease, and goes on where it was when another one has done the work: whatever it does then is
    /// refused by a database's identity or by its step's epoch.
    Stalled,
}

/// One column of the matrix.
pub(crate) struct Column {
    pub(crate) on: On,
    pub(crate) fault: Fault,
}

impl Column {
    /// On Postgres, where a fleet takes a while, the runner's own points are left to the files. Of a process that goes on
    /// only the one of them is of interest at which it looks whether the step is still its own.
    fn has(&self, point: &str) -> bool {
        let own = !OF_THE_RUNNER.iter().any(|of| point.starts_with(of));
        match self.fault {
            Fault::Killed => own || matches!(self.on, On::Sqlite),
            Fault::Stalled => own || point == "record: committed",
        }
    }
}

/// Prepares a fleet, runs the operation without a fault to learn its points, then once for each of them. Each run begins
/// with the prepared fleet.
/// Returns the points that were met.
pub(crate) async fn crash_everywhere(
    column: &Column,
    what: &str,
    prepare: impl AsyncFn(&World),
    params: impl Fn(&World) -> OperationParams,
    targets: impl Fn() -> TenantSelection,
    check: impl AsyncFn(&World),
) -> Vec<&'static str> {
    let world = World::on(column.on.clone()).await;
    prepare(&world).await;
    let fleet = PreparedFleet::save(world).await;
    let (_, points) = crash_at(column, &fleet, None, &params, &targets, &check).await;
    assert!(points.len() < POINTS_MAX, "{points:?}");
    let mut met = Vec::new();
    for (index, point) in points.iter().enumerate().filter(|(_, point)| column.has(point)) {
        // By name, because points of different tasks do not always come in the same order.
        let pass = points[..=index].iter().filter(|other| *other == point).count();
        met.extend(crash_at(column, &fleet, Some((point, pass)), &params, &targets, &check).await.0);
    }
    let engine = if matches!(column.on, On::Sqlite) { "sqlite" } else { "postgres" };
    println!("cell {what} on {engine}, {:?}: {} points, all passed", column.fault, met.len());
    met
}

/// One cell: the fault comes at the given pass of a point. Returns where the process was ended or stopped, and all points
/// it passed.
async fn crash_at(
    column: &Column,
    fleet: &PreparedFleet,
    fault_at: Option<(&'static str, usize)>,
    params: &impl Fn(&World) -> OperationParams,
    targets: &impl Fn() -> TenantSelection,
    check: &impl AsyncFn(&World),
) -> (Option<&'static str>, Vec<&'static str>) {
    let world = fleet.open().await;
    let names = names(&world).await;
    world.app.context.halt_after(usize::MAX);
    if let Some((point, pass)) = fault_at {
        world.app.context.halt_at_pass(point, pass);
    }
    let started = world.start(Submission::new(params(&world), targets())).await.unwrap();
    let at = tokio::select! {
        biased;
        at = world.app.context.wait_until_halted() => Some(at),
        ended = world.finish(started.id) => {
            let steps = world.steps(ended.id, &[]).await;
            assert_eq!(ended.state, OperationState::Succeeded, "{steps:?}");
            None
        }
    };
    let points = world.app.context.passed_points();
    let world = match (at, column.fault) {
        (Some(_), Fault::Killed) => world.crash().await,
        (Some(at), Fault::Stalled) => goes_on(world, started.id, at).await,
        (None, _) => {
            world.app.context.halt_after(usize::MAX);
            world
        }
    };
    let ended = world.finish(started.id).await;
    let steps = world.steps(ended.id, &[]).await;
    assert_eq!(ended.state, OperationState::Succeeded, "{:?} at {at:?}: {steps:?}", column.fault);
    println!("{:?} at {at:?}", column.fault);
    invariants::check(&world).await;
    for (name, tenant) in names {
        assert_eq!(world.tenant(&name).await.id, tenant, "I4: {name} leads to somebody else");
    }
    check(&world).await;
    world.app.shut_down(Duration::from_secs(5)).await;
    (at, points)
}

/// Another process does the work; then the one that had stopped goes on to its own end.
async fn goes_on(world: World, op: OperationId, at: &str) -> World {
    // A claim that had begun when it was stopped ends at the time it began.
    drop(world.app.catalog.write().await.unwrap());
    world.advance(STALL);
    let other = world.another(ProcessRole::Serving).await;
    let ended = other.runner.wait_for_operation(op, Duration::from_secs(60)).await.unwrap();
    assert!(ended.finished_at.is_some(), "stalled at {at}: {:?}", world.steps(op, &[]).await);
    other.shut_down(Duration::from_secs(5)).await;
    world.app.context.resume_halted();
    world.app.shut_down(Duration::from_secs(30)).await;
    world.crash().await
}

/// Who every name leads to.
async fn names(world: &World) -> Vec<(String, catalog::TenantId)> {
    let every = catalog::tenants::TenantCriteria { states: vec![], ..Default::default() };
    let mut tx = world.app.catalog.read().await.unwrap();
    let tenants = catalog::tenants::list_tenants(&mut tx, &every, None, 100).await.unwrap();
    tenants.into_iter().map(|tenant| (tenant.name, tenant.id)).collect()
}
