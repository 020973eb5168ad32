//! Moves, as those meet them who ask for the same one twice or have a transaction open.

use std::sync::Arc;

use catalog::operations::OperationState;
use control_plane::operations::{OperationParams, r#move};
use control_plane::plan::TenantSelection;
use control_plane::runner::submit::Submission;
use tenant_router::{ErrorKind, Principal, Write};

use crate::world::{On, World};

const TASKS: (&str, &str) = ("0001_tasks.sql", "create table tasks (title text not null);");

fn acme() -> TenantSelection {
    TenantSelection::one_tenant("acme")
}

fn moving() -> OperationParams {
    OperationParams::Move(r#move::MoveParams { to: Some("other".to_owned()), ..Default::default() })
}

async fn with_another_server(on: On) -> World {
    let world = World::on(on).await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    world.add_other().await;
    world
}

#[tokio::test]
async fn who_asks_twice_finds_it_done() {
    let world = with_another_server(On::Sqlite).await;
    world.app.context.halt_at("move: copies");
    let first = world.start(Submission::new(moving(), acme())).await.unwrap();
    world.app.context.wait_until_halted().await;
    // Planned while the tenant still is where it was.
    let second = world.start(Submission::new(moving(), acme())).await.unwrap();
    world.app.context.resume_halted();
    for op in [first.id, second.id] {
        let ended = world.finish(op).await;
        assert_eq!(ended.state, OperationState::Succeeded, "{:?}", world.steps(op, &[]).await);
    }
    let id = world.tenant("acme").await.id;
    let kept = catalog::retained::of_tenant(&mut world.app.catalog.read().await.unwrap(), id).await.unwrap();
    assert_eq!(kept.len(), 1, "it was moved once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_a_move_finds_open_is_told_to_come_back() {
    let world = with_another_server(On::postgres()).await;
    let who = Arc::new(Principal::of_tenant("app", world.tenant("acme").await.id, tenant_router::Role::Writer));
    let open =
        || async { world.app.router.open_id::<Write>(Arc::clone(&who), world.tenant("acme").await.id).await.unwrap() };
    let tenant = open().await;
    let mut tx = tenant.write();
    tx.execute("insert into tasks values ('undone')", ()).await.unwrap();
    world.app.context.halt_at("move: frozen");
    let started = world.start(Submission::new(moving(), acme())).await.unwrap();
    world.app.context.wait_until_halted().await;
    let refused = tx.execute("insert into tasks values ('undone too')", ()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.status()), (ErrorKind::Fenced, 503), "{refused:?}");
    assert!(refused.retry_after().is_some());
    world.app.context.resume_halted();
    world.finish(started.id).await;
    let again = open().await;
    let mut tx = again.write();
    tx.execute("insert into tasks values ('done')", ()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.int("acme", "select count(*) from tasks").await, 1);
}
