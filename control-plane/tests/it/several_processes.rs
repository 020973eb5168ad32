//! Several processes on one data directory: leases arbitrate.

use std::time::Duration;

use catalog::operations::OperationState;
use control_plane::config::ProcessRole;
use control_plane::plan::TenantSelection;
use control_plane::runner::control::OperationControl;
use control_plane::runner::submit::Submission;

use crate::invariants;
use crate::world::{DONE, TASKS, World, caller, creating, migrating};

#[tokio::test]
async fn an_embedded_process_runs_nothing_that_it_was_not_asked_to() {
    let world = World::new().await;
    let other = world.another(ProcessRole::Embedded).await;
    // Submitted and never run: its process dies first.
    world.app.context.halt_after(1);
    let left = world.start(Submission::new(creating(&["acme"]), TenantSelection::default())).await.unwrap();
    world.app.context.wait_until_halted().await;
    let control_plane::runner::submit::SubmitOutcome::Started(own) = other
        .runner
        .submit_operation(
            &caller(),
            Submission::new(creating(&["globex"]), TenantSelection::default()),
            control_plane::runner::submit::SubmitMode::Run,
        )
        .await
        .unwrap()
    else {
        panic!("only planned")
    };
    assert_eq!(
        other.runner.wait_for_operation(own.id, Duration::from_secs(30)).await.unwrap().state,
        OperationState::Succeeded
    );
    let untouched = catalog::operations::get(&mut other.catalog.read().await.unwrap(), left.id).await.unwrap().unwrap();
    assert!(untouched.finished_at.is_none());
    // Waiting for it is asking for it.
    world.advance(Duration::from_secs(61));
    let ended = other.runner.wait_for_operation(left.id, Duration::from_secs(30)).await.unwrap();
    assert_eq!(ended.state, OperationState::Succeeded);
    other.shut_down(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_serving_process_runs_what_others_left() {
    let world = World::new().await;
    world.app.context.halt_after(1);
    let left = world.start(Submission::new(creating(&["acme", "globex"]), TenantSelection::default())).await.unwrap();
    world.app.context.wait_until_halted().await;
    world.app.simulate_kill().await;
    world.advance(Duration::from_secs(61));
    let server = world.another(ProcessRole::Serving).await;
    // Nobody tells it: it looks.
    let ended = loop {
        let found =
            catalog::operations::get(&mut server.catalog.read().await.unwrap(), left.id).await.unwrap().unwrap();
        if found.finished_at.is_some() {
            break found;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(ended.state, OperationState::Succeeded);
    assert!(server.runner.is_alive());
    server.shut_down(Duration::from_secs(5)).await;
    assert!(!server.runner.is_alive());
}

#[tokio::test]
async fn two_servers_share_a_run_and_nothing_is_done_twice() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    let names: Vec<String> = (0..300).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.create(&names).await;
    let (one, two) = (world.another(ProcessRole::Serving).await, world.another(ProcessRole::Serving).await);
    let started =
        world.start(Submission::new(migrating(&[TASKS, DONE]), TenantSelection::all_tenants())).await.unwrap();
    let (a, b) = tokio::join!(
        one.runner.wait_for_operation(started.id, Duration::from_secs(60)),
        two.runner.wait_for_operation(started.id, Duration::from_secs(60))
    );
    assert_eq!((a.unwrap().state, b.unwrap().state), (OperationState::Succeeded, OperationState::Succeeded));
    let steps = world.steps(started.id, &[]).await;
    assert!(steps.iter().all(|(step, _)| step.lease_epoch == 1), "a step was claimed twice");
    for app in [one, two] {
        app.shut_down(Duration::from_secs(5)).await;
    }
    invariants::check(&world).await;
}

#[tokio::test]
async fn a_paused_operation_goes_on_and_a_cancelled_one_does_not() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme", "globex", "initech"]).await;
    let mut one_by_one = Submission::new(migrating(&[TASKS, DONE]), TenantSelection::all_tenants());
    one_by_one.concurrency = Some(1);
    let started = world.start(one_by_one).await.unwrap();
    let paused =
        world.app.runner.control_operation(&caller(), started.id, OperationControl::Pause, Some("look first")).await;
    if paused.is_ok() {
        assert_eq!(
            world.app.runner.wait_for_operation(started.id, Duration::from_secs(30)).await.unwrap().state,
            OperationState::Paused
        );
        world.app.runner.control_operation(&caller(), started.id, OperationControl::Resume, None).await.unwrap();
    }
    assert_eq!(world.finish(started.id).await.state, OperationState::Succeeded);
    let error =
        world.app.runner.control_operation(&caller(), started.id, OperationControl::Cancel, None).await.unwrap_err();
    assert_eq!(error.code(), "conflict");
    let unknown = catalog::OperationId::generate();
    assert_eq!(
        world.app.runner.control_operation(&caller(), unknown, OperationControl::Pause, None).await.unwrap_err().code(),
        "not_found"
    );
    invariants::check(&world).await;
}

#[tokio::test]
async fn a_shutdown_gives_back_what_it_did_not_begin() {
    let world = World::new().await;
    let names: Vec<String> = (0..500).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let started = world.start(Submission::new(creating(&names), TenantSelection::default())).await.unwrap();
    world.app.shut_down(Duration::from_secs(30)).await;
    let next = world.another(ProcessRole::Embedded).await;
    // Without a lease to wait out.
    let ended = next.runner.wait_for_operation(started.id, Duration::from_secs(30)).await.unwrap();
    assert_eq!(ended.state, OperationState::Succeeded);
    next.shut_down(Duration::from_secs(5)).await;
}
