//! What a tenant's state lets its members do, on real databases.

use std::time::{Duration, Instant};

use catalog::{BlockWrites, TenantState};
use tenant_router::{ErrorKind, Read, Role, Write};

use crate::world::{World, canary, note, open};

#[tokio::test]
async fn suspended_tenants_tell_members_only() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let router = world.router().await;
    let member = world.token_for(ids[0], Role::Manager).await;
    let stranger = world.token_for(ids[1], Role::Manager).await;
    let open_before = open::<Read>(&router, "acme", &member).await.unwrap();
    world.update_tenant(ids[0], |update| update.state = Some(TenantState::Suspended)).await;
    assert_eq!(open::<Read>(&router, "acme", &member).await.unwrap_err().kind(), ErrorKind::Suspended);
    assert_eq!(open::<Read>(&router, "acme", &stranger).await.unwrap_err().kind(), ErrorKind::NotFound);
    // A handle from before finds out at its next statement.
    assert_eq!(note(&open_before, 1).await.unwrap_err().kind(), ErrorKind::Suspended);
    world.update_tenant(ids[0], |update| update.state = Some(TenantState::Active)).await;
    assert_eq!(note(&open::<Read>(&router, "acme", &member).await.unwrap(), 1).await.unwrap(), canary("acme", 1));
}

#[tokio::test]
async fn gone_tenants_are_like_none_and_archived_ones_ask_for_patience() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let token = world.token_for(id, Role::Manager).await;
    world.update_tenant(id, |update| update.state = Some(TenantState::Archived)).await;
    let archived = open::<Read>(&router, "acme", &token).await.unwrap_err();
    assert_eq!((archived.kind(), archived.status()), (ErrorKind::Archived, 503));
    assert!(archived.retry_after().is_some());
    world.update_tenant(id, |update| update.state = Some(TenantState::Deleted)).await;
    assert_eq!(open::<Read>(&router, "acme", &token).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_tenant_that_is_archived_again_is_asked_for_again_at_once() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let token = world.token_for(id, Role::Manager).await;
    for round in 0..3 {
        world.update_tenant(id, |update| update.state = Some(TenantState::Archived)).await;
        for _ in 0..2 {
            assert_eq!(open::<Read>(&router, "acme", &token).await.unwrap_err().kind(), ErrorKind::Archived);
        }
        let wanted = catalog::tenants::wake_requested(&mut world.catalog.read().await.unwrap(), 10).await.unwrap();
        assert_eq!(wanted, [id], "round {round}");
        world.update_tenant(id, |update| update.state = Some(TenantState::Active)).await;
        open::<Read>(&router, "acme", &token).await.unwrap();
        // The next archive is later than this one.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn an_operators_block_leaves_reads() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let token = world.token_for(id, Role::Writer).await;
    let before = open::<Write>(&router, "acme", &token).await.unwrap();
    world.update_tenant(id, |update| update.block_writes = Some(Some(BlockWrites::Operator))).await;
    assert_eq!(open::<Write>(&router, "acme", &token).await.unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(before.execute("delete from notes", ()).await.unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(note(&open::<Read>(&router, "acme", &token).await.unwrap(), 1).await.unwrap(), canary("acme", 1));
}

#[tokio::test]
async fn writes_wait_for_an_operation_and_go_on_when_it_ends() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.builder().replacement_wait_max(Duration::from_secs(20)).build().await.unwrap();
    let token = world.token_for(id, Role::Writer).await;
    world.update_tenant(id, |update| update.block_writes = Some(Some(BlockWrites::Operation))).await;
    let waiting = tokio::spawn({
        let (router, token) = (router.clone(), token.clone());
        async move { open::<Write>(&router, "acme", &token).await }
    });
    // Reads do not wait.
    let reader = open::<Read>(&router, "acme", &token).await.unwrap();
    assert_eq!(note(&reader, 1).await.unwrap(), canary("acme", 1));
    assert!(!waiting.is_finished());
    world.update_tenant(id, |update| update.block_writes = Some(None)).await;
    let tenant = waiting.await.unwrap().unwrap();
    tenant.execute("update notes set body = 'late' where id = 1", ()).await.unwrap();
    assert_eq!(note(&tenant, 1).await.unwrap(), "late");
}

#[tokio::test]
async fn writes_do_not_wait_for_ever() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.builder().replacement_wait_max(Duration::from_millis(150)).build().await.unwrap();
    let token = world.token_for(id, Role::Writer).await;
    world.update_tenant(id, |update| update.block_writes = Some(Some(BlockWrites::Operation))).await;
    let begun = Instant::now();
    let refused = open::<Write>(&router, "acme", &token).await.unwrap_err();
    assert_eq!((refused.kind(), refused.status()), (ErrorKind::WritesBlocked, 503));
    assert!(refused.retry_after().is_some());
    assert!(begun.elapsed() >= Duration::from_millis(150), "it waited {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_program_refuses_schemas_it_does_not_know() {
    use tenant_router::SchemaRange;
    use tenant_router::gate::NewerSchemaPolicy;
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let token = world.token_for(id, Role::Reader).await;
    let router = world
        .builder()
        .schema_range(SchemaRange { min: 2, max: 3, ahead: NewerSchemaPolicy::Refuse })
        .build()
        .await
        .unwrap();
    let set = |version| {
        let world = &world;
        async move { world.update_tenant(id, |update| update.schema_version = Some(Some(version))).await }
    };
    set(1).await;
    let behind = open::<Read>(&router, "acme", &token).await.unwrap_err();
    assert_eq!((behind.kind(), behind.retry_after().is_some()), (ErrorKind::SchemaBehind, true));
    // Waiting does not help a tenant that stays there: the same code, and other words.
    let pin = |pin| world.update_tenant(id, move |update| update.pin = Some(pin));
    pin(Some(catalog::SchemaPin { below: 2, at: 0, op: catalog::OperationId::generate() })).await;
    let pinned = open::<Read>(&router, "acme", &token).await.unwrap_err();
    assert_eq!((pinned.kind(), pinned.code(), pinned.status()), (ErrorKind::SchemaPinned, behind.code(), 503));
    assert!(pinned.retry_after().is_none() && pinned.detail().contains("older schema"), "{pinned}");
    pin(None).await;
    set(2).await;
    open::<Read>(&router, "acme", &token).await.unwrap();
    set(4).await;
    assert_eq!(open::<Read>(&router, "acme", &token).await.unwrap_err().kind(), ErrorKind::SchemaAhead);
}
