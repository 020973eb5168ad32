//! create

use std::os::unix::fs::PermissionsExt;

use catalog::TenantState;
use catalog::operations::OperationState;
use control_plane::operations::restore::RestorePoint;
use control_plane::operations::{OperationParams, create};
use control_plane::plan::TenantSelection;

use crate::invariants;
use crate::world::{DONE, TASKS, World, backing_up, creating, deleting, migrating, restoring, verifying};

#[tokio::test]
async fn new_tenants_answer_and_carry_the_current_release() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme", "globex"]).await;
    for name in ["acme", "globex"] {
        let tenant = world.tenant(name).await;
        assert_eq!((tenant.state, tenant.generation.0, tenant.schema_version), (TenantState::Active, 2, Some(1)));
        world.sql(name, "insert into tasks (title) values ('first')").await;
        assert_eq!(world.int(name, "select count(*) from tasks").await, 1);
    }
    invariants::check(&world).await;
}

#[tokio::test]
async fn before_any_release_a_tenant_is_an_empty_database() {
    let world = World::new().await;
    world.create(&["acme"]).await;
    assert_eq!(world.tenant("acme").await.schema_version, None);
    assert_eq!(world.int("acme", "select 1").await, 1);
    invariants::check(&world).await;
}

#[tokio::test]
async fn a_taken_name_refuses_the_whole_list_or_is_skipped() {
    let world = World::new().await;
    world.create(&["acme"]).await;
    let error = world.run(creating(&["globex", "ACME"]), TenantSelection::default()).await.unwrap_err();
    assert_eq!((error.code(), error.items.len(), error.items[0].index), ("already_exists", 1, 1));
    let OperationParams::Create(params) = creating(&["globex", "acme"]) else { unreachable!() };
    let skipping =
        OperationParams::Create(create::CreateParams { if_exists: create::ExistingNamePolicy::Skip, ..params });
    let ended = world.succeed(skipping, TenantSelection::default()).await;
    assert_eq!((ended.steps_total, ended.steps_skipped), (1, 1));
    invariants::check(&world).await;
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let world = World::new().await;
    let plan = world.plan(creating(&["acme"]), TenantSelection::default()).await.unwrap();
    assert_eq!((plan.kind, plan.tenants, plan.sample[0].tenant.as_str()), ("create", 1, "acme"));
    // The name is still free.
    world.create(&["acme"]).await;
}

/// And no writer waits for it: a viewer may ask for the plan of a large fleet.
#[tokio::test]
async fn a_dry_run_waits_for_no_writer() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    world.succeed(backing_up(), TenantSelection::all_tenants()).await;
    let acme = || TenantSelection::one_tenant("acme");
    let writer = world.app.catalog.write().await.unwrap();
    for (params, targets) in [
        (creating(&["globex"]), TenantSelection::default()),
        (migrating(&[TASKS, DONE]), TenantSelection::all_tenants()),
        (migrating(&[TASKS]), acme()),
        (backing_up(), TenantSelection::all_tenants()),
        (verifying(), TenantSelection::all_tenants()),
        (restoring(RestorePoint::Latest), acme()),
        (deleting(), acme()),
    ] {
        let kind = world.plan(params, targets).await.unwrap().kind;
        assert!(!kind.is_empty());
    }
    drop(writer);
    // A dry run stores no release.
    let releases =
        catalog::releases::list_releases(&mut world.app.catalog.read().await.unwrap(), None, 10).await.unwrap();
    assert_eq!(releases.len(), 1);
}

#[tokio::test]
async fn bad_lists_make_nothing() {
    let world = World::new().await;
    for (names, code) in
        [(vec![], "invalid"), (vec![".."], "invalid"), (vec!["a", "a"], "invalid"), (vec!["x\0y"], "invalid")]
    {
        let error = world.run(creating(&names), TenantSelection::default()).await.unwrap_err();
        assert_eq!(error.code(), code, "{names:?}");
    }
    let OperationParams::Create(params) = creating(&["acme"]) else { unreachable!() };
    let elsewhere = OperationParams::Create(create::CreateParams { server: Some("nowhere".to_owned()), ..params });
    assert_eq!(world.run(elsewhere, TenantSelection::default()).await.unwrap_err().code(), "not_found");
    assert_eq!(
        world.app.runner.select_tenants(&TenantSelection::all_tenants()).await.unwrap_err().code(),
        "selection_matches_nobody"
    );
}

#[tokio::test]
async fn what_it_makes_is_private() {
    let world = World::new().await;
    world.create(&["acme"]).await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for name in ["fleet.key", "operator.token", "catalog.db"] {
        assert_eq!(mode(&world.data().join(name)), 0o600, "{name}");
    }
    for name in ["tenants", "scratch"] {
        assert_eq!(mode(&world.data().join(name)), 0o700, "{name}");
    }
    assert_eq!(mode(&world.file("acme").await), 0o600);
}

#[tokio::test]
async fn many_are_made_at_once() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    let names: Vec<String> = (0..600).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.create(&names).await;
    assert_eq!(world.app.runner.select_tenants(&TenantSelection::all_tenants()).await.unwrap().len(), 600);
    invariants::check(&world).await;
}

#[tokio::test]
async fn a_step_that_cannot_be_done_is_told_and_can_be_abandoned_or_retried() {
    use control_plane::runner::control::OperationControl;
    let world = World::new().await;
    // The server's directory cannot be written: root may, so a file stands where the directory should be.
    let tenants = world.data().join("tenants");
    std::fs::remove_dir_all(&tenants).unwrap();
    std::fs::write(&tenants, "").unwrap();
    let started = world
        .start(control_plane::runner::submit::Submission::new(
            creating(&["acme", "globex"]),
            TenantSelection::default(),
        ))
        .await
        .unwrap();
    let ended = finish_through_retries(&world, started.id).await;
    assert_eq!(ended.state, OperationState::Failed);
    let steps = world.steps(ended.id, &[]).await;
    assert!(steps.iter().all(|(step, _)| step.error_code.is_some()), "{steps:?}");
    std::fs::remove_file(&tenants).unwrap();
    std::fs::create_dir(&tenants).unwrap();
    world.app.runner.control_operation(&crate::world::caller(), ended.id, OperationControl::Retry, None).await.unwrap();
    let ended = world.finish(ended.id).await;
    assert_eq!(ended.state, OperationState::Succeeded);
    invariants::check(&world).await;
}

#[tokio::test]
async fn an_abandoned_create_frees_its_name() {
    use control_plane::runner::control::OperationControl;
    let world = World::new().await;
    let tenants = world.data().join("tenants");
    std::fs::remove_dir_all(&tenants).unwrap();
    std::fs::write(&tenants, "").unwrap();
    let started = world
        .start(control_plane::runner::submit::Submission::new(creating(&["acme"]), TenantSelection::default()))
        .await
        .unwrap();
    finish_through_retries(&world, started.id).await;
    std::fs::remove_file(&tenants).unwrap();
    std::fs::create_dir(&tenants).unwrap();
    world
        .app
        .runner
        .control_operation(&crate::world::caller(), started.id, OperationControl::Abandon, Some("wrong disk"))
        .await
        .unwrap();
    world.create(&["acme"]).await;
    invariants::check(&world).await;
}

/// Moves the clock over each delay until the runner gives up.
async fn finish_through_retries(world: &World, op: catalog::OperationId) -> catalog::operations::OperationRecord {
    for _ in 0..100 {
        let record = world.app.runner.wait_for_operation(op, std::time::Duration::from_millis(200)).await.unwrap();
        if record.finished_at.is_some() {
            return record;
        }
        world.advance(std::time::Duration::from_secs(31));
    }
    panic!("it never gave up: {:?}", world.steps(op, &[]).await)
}
