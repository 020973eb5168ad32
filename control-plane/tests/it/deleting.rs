//! delete

use catalog::TenantState;
use control_plane::operations::{OperationParams, restore};
use control_plane::plan::TenantSelection;

use crate::invariants;
use crate::world::{TASKS, World, backing_up, deleting};

#[tokio::test]
async fn a_deleted_tenant_answers_no_more_and_its_backup_is_proved() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme", "globex"]).await;
    world.sql("acme", "insert into tasks (title) values ('kept')").await;
    world.succeed(deleting(), TenantSelection::one_tenant("acme")).await;
    let tenant = world.tenant("acme").await;
    assert_eq!(tenant.state, TenantState::Deleted);
    assert!(tenant.purge_after.unwrap() > tenant.deleted_at.unwrap());
    assert!(world.try_sql("acme", "select 1").await.is_err());
    let backup = world.newest("acme").await.unwrap();
    assert_eq!((backup.reason.as_str(), backup.verified_at.is_some()), ("pre_delete", true));
    invariants::check(&world).await;
    assert_eq!(world.run(backing_up(), TenantSelection::one_tenant("acme")).await.unwrap_err().code(), "not_found");
    assert_eq!(world.succeed(backing_up(), TenantSelection::all_tenants()).await.steps_total, 1);
    // Its name is not free, its data is not lost.
    assert_eq!(
        world.run(crate::world::creating(&["acme"]), TenantSelection::default()).await.unwrap_err().code(),
        "already_exists"
    );
    let as_name = Some("acme-again".to_owned());
    let back = OperationParams::Restore(restore::RestoreParams {
        to: restore::RestorePoint::Latest,
        as_name,
        schema: restore::RestoredSchema::Backup,
        resolved: None,
    });
    world.succeed(back, TenantSelection::one_tenant("acme")).await;
    assert_eq!(world.int("acme-again", "select count(*) from tasks where title = 'kept'").await, 1);
    invariants::check(&world).await;
}

#[tokio::test]
async fn a_protected_tenant_is_refused_with_all_that_were_selected() {
    let world = World::new().await;
    world.create(&["acme", "globex"]).await;
    let id = world.tenant("globex").await.id;
    let mut tx = world.app.catalog.write().await.unwrap();
    catalog::tenants::set_protected(&mut tx, id, true).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.run(deleting(), TenantSelection::all_tenants()).await.unwrap_err().code(), "protected");
    assert_eq!(world.tenant("acme").await.state, TenantState::Active);
    world.succeed(deleting(), TenantSelection::one_tenant("acme")).await;
}
