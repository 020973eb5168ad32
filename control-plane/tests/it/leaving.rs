//! Tenants that leave after a run was planned: a run that selected them by a rule skips them and says why.

use std::time::Duration;

use catalog::operations::{OperationRecord, OperationState};
use catalog::steps::StepState;
use catalog::tenants::TenantUpdate;
use catalog::{BlockWrites, OperationId};
use control_plane::config::ProcessRole;
use control_plane::operations::{OperationParams, archive, r#move, read_only, resume, suspend};
use control_plane::plan::TenantSelection;
use control_plane::runner::submit::{Submission, SubmitMode, SubmitOutcome};

use crate::invariants;
use crate::world::{DONE, TASKS, World, backing_up, caller, deleting, migrating, verifying};

/// A run by its name, and the tenants that it selects.
fn run(kind: &str) -> (OperationParams, TenantSelection) {
    let params = match kind {
        "backup" => backing_up(),
        "migrate" => migrating(&[TASKS, DONE]),
        "verify" => verifying(),
        "suspend" => OperationParams::Suspend(suspend::SuspendParams {}),
        "resume" => OperationParams::Resume(resume::ResumeParams {}),
        "read_only" => OperationParams::ReadOnly(read_only::ReadOnlyParams { on: true }),
        "writable" => OperationParams::ReadOnly(read_only::ReadOnlyParams { on: false }),
        "archive" => OperationParams::Archive(archive::ArchiveParams {}),
        "delete" => deleting(),
        "drain" => {
            let targets = TenantSelection { server: Some("local".to_owned()), ..TenantSelection::default() };
            return (OperationParams::Move(r#move::MoveParams::default()), targets);
        }
        "move" => {
            return (
                OperationParams::Move(r#move::MoveParams { to: Some("other".to_owned()), ..Default::default() }),
                one(),
            );
        }
        other => panic!("{other}"),
    };
    (params, TenantSelection::all_tenants())
}

fn one() -> TenantSelection {
    TenantSelection::one_tenant("gone")
}

/// Written down and not begun: the process that was asked is dead.
async fn planned(world: &World, params: OperationParams, targets: TenantSelection) -> OperationId {
    let dead = world.another(ProcessRole::Embedded).await;
    dead.simulate_kill().await;
    match dead.runner.submit_operation(&caller(), Submission::new(params, targets), SubmitMode::Run).await.unwrap() {
        SubmitOutcome::Started(record) => record.id,
        SubmitOutcome::Planned(plan) => panic!("{plan:?}"),
    }
}

/// Two tenants, ready for this kind of run.
async fn ready(kind: &str) -> World {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["gone", "stays"]).await;
    world.add_other().await;
    let before = match kind {
        "verify" => "backup",
        "resume" => "suspend",
        "writable" => "read_only",
        _ => return world,
    };
    world.succeed(run(before).0, TenantSelection::all_tenants()).await;
    world
}

async fn ended(world: &World, op: OperationId) -> (OperationRecord, StepState, Option<String>) {
    let record = world.finish(op).await;
    let steps = world.steps(op, &[]).await;
    assert!(steps.iter().any(|(step, name)| name == "stays" && step.state == StepState::Succeeded), "{steps:?}");
    let (step, _) = steps.into_iter().find(|(_, name)| name == "gone").unwrap();
    (record, step.state, step.error)
}

#[tokio::test]
async fn a_run_skips_who_has_left_and_does_who_still_belongs() {
    use StepState::{Skipped, Succeeded};
    for (kind, way, found) in [
        ("backup", "delete", Skipped),
        ("backup", "archive", Skipped),
        ("backup", "suspend", Succeeded),
        ("backup", "read_only", Succeeded),
        ("backup", "move", Succeeded),
        ("migrate", "delete", Skipped),
        ("migrate", "archive", Skipped),
        ("migrate", "read_only", Skipped),
        ("migrate", "suspend", Succeeded),
        ("migrate", "move", Succeeded),
        ("verify", "delete", Succeeded),
        ("suspend", "delete", Skipped),
        ("suspend", "archive", Skipped),
        ("suspend", "suspend", Skipped),
        ("suspend", "read_only", Succeeded),
        ("resume", "resume", Skipped),
        ("resume", "delete", Skipped),
        ("read_only", "suspend", Skipped),
        ("read_only", "read_only", Skipped),
        ("read_only", "delete", Skipped),
        ("writable", "writable", Skipped),
        ("archive", "archive", Skipped),
        ("archive", "delete", Skipped),
        ("delete", "delete", Skipped),
        ("delete", "archive", Succeeded),
        ("drain", "move", Skipped),
        ("drain", "delete", Skipped),
        ("drain", "archive", Succeeded),
    ] {
        let world = ready(kind).await;
        let (params, targets) = run(kind);
        let op = planned(&world, params, targets).await;
        world.succeed(run(way).0, one()).await;
        let (record, state, why) = ended(&world, op).await;
        assert_eq!((record.state, state), (OperationState::Succeeded, found), "{kind} {way} {why:?}");
        assert!(state == Succeeded || why.unwrap().contains("gone is "), "{kind} {way}");
        invariants::check(&world).await;
    }
}

#[tokio::test]
async fn a_tenant_that_was_named_and_is_gone_is_an_error() {
    for kind in ["backup", "migrate", "suspend", "archive"] {
        let world = ready(kind).await;
        let both = TenantSelection { names: vec!["gone".to_owned(), "stays".to_owned()], ..TenantSelection::default() };
        let op = planned(&world, run(kind).0, both).await;
        world.succeed(deleting(), one()).await;
        let (record, state, why) = ended(&world, op).await;
        assert_eq!((record.state, state), (OperationState::Partial, StepState::Failed), "{kind} {why:?}");
    }
}

#[tokio::test]
async fn a_run_that_skips_everybody_did_nothing_and_says_so() {
    for (allowed, end, code) in
        [(false, OperationState::Failed, Some("nothing_done")), (true, OperationState::Succeeded, None)]
    {
        let world = ready("backup").await;
        let op =
            planned(&world, backing_up(), TenantSelection { allow_empty: allowed, ..TenantSelection::all_tenants() })
                .await;
        let both = TenantSelection { names: vec!["gone".to_owned(), "stays".to_owned()], ..TenantSelection::default() };
        world.succeed(deleting(), both).await;
        let ended = world.finish(op).await;
        assert_eq!((ended.state, ended.error_code.as_deref()), (end, code));
        let steps = world.steps(op, &[StepState::Skipped]).await;
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[0].0.error_code.as_deref(), Some("tenant_left"));
    }
}

#[tokio::test]
async fn a_tenant_whose_database_is_being_replaced_is_skipped_after_some_attempts() {
    let world = ready("backup").await;
    let op = planned(&world, backing_up(), TenantSelection::all_tenants()).await;
    let tenant = world.tenant("gone").await;
    let fence = TenantUpdate {
        block_writes: Some(Some(BlockWrites::Operation)),
        ..TenantUpdate::for_generation(tenant.id, tenant.generation)
    };
    let mut tx = world.app.catalog.write().await.unwrap();
    catalog::tenants::update_many(&mut tx, &[fence]).await.unwrap();
    tx.commit().await.unwrap();
    let clock = async {
        loop {
            world.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (record, state, why) = tokio::select! {
        ended = ended(&world, op) => ended,
        () = clock => unreachable!(),
    };
    assert_eq!((record.state, state), (OperationState::Succeeded, StepState::Skipped), "{why:?}");
}

#[tokio::test]
async fn a_read_only_tenant_is_left_out_of_a_rollout_and_named_it_is_an_error() {
    let world = ready("migrate").await;
    world.succeed(run("read_only").0, one()).await;
    let plan = world.plan(migrating(&[TASKS, DONE]), TenantSelection::all_tenants()).await.unwrap();
    assert_eq!((plan.tenants, plan.left_out), (1, 1), "{plan:?}");
    let op = world.start(Submission::new(migrating(&[TASKS, DONE]), TenantSelection::all_tenants())).await.unwrap().id;
    let (record, state, _) = ended(&world, op).await;
    assert_eq!((record.state, record.steps_total, state), (OperationState::Succeeded, 2, StepState::Skipped));
    let named = world.run(migrating(&[TASKS, DONE]), one()).await.unwrap();
    assert_eq!(world.failure(&named).await, "tenant_read_only");
    // Nobody is left who could take part.
    let again = world.run(
        migrating(&[TASKS, DONE]),
        TenantSelection { server: Some("local".to_owned()), ..TenantSelection::default() },
    );
    assert_eq!(again.await.unwrap().state, OperationState::Succeeded, "one tenant is there already");
}
