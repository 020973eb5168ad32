//! A router that does not know of a change never serves the database from before it.

use std::sync::Arc;
use std::time::Duration;

use catalog::TenantState;
use tenant_router::{ErrorKind, Read, Role, Router, Write};

use crate::world::{World, canary, note, open};

/// Two programs over one fleet: what one changes, the other only hears of.
async fn two_routers(world: &World) -> (Router, Router) {
    let other = world.other_catalog().await;
    let theirs = Router::builder(other).engine(world.engine.clone()).build().await.unwrap();
    (world.router().await, theirs)
}

#[tokio::test]
async fn a_warm_handle_moves_to_the_new_database() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let (_, router) = two_routers(&world).await;
    let token = world.token_for(id, Role::Writer).await;
    let warm = open::<Write>(&router, "acme", &token).await.unwrap();
    assert_eq!(note(&warm, 1).await.unwrap(), canary("acme", 1));
    // A restore: the old database is fenced, then a new placement takes over.
    let old = world.placement(&world.record(id).await).await;
    world.stamp_ahead(id).await;
    world.fill(id, "restored").await;
    // The very same handle, without having heard of anything.
    assert_eq!(note(&warm, 1).await.unwrap(), "restored, note 1");
    warm.execute("update notes set body = 'written' where id = 1", ()).await.unwrap();
    assert_eq!(note(&open::<Read>(&router, "acme", &token).await.unwrap(), 1).await.unwrap(), "written");
    let before = rusqlite::Connection::open(old.file_path()).unwrap();
    let left: String = before.query_row("select body from notes where id = 1", [], |row| row.get(0)).unwrap();
    assert_eq!(left, canary("acme", 1), "the old database was written to");
}

#[tokio::test]
async fn while_nobody_updates_the_record_the_request_waits_and_then_is_refused() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.builder().replacement_wait_max(Duration::from_millis(200)).build().await.unwrap();
    let token = world.token_for(id, Role::Writer).await;
    let warm = open::<Write>(&router, "acme", &token).await.unwrap();
    world.stamp_ahead(id).await;
    for _ in 0..2 {
        let refused = note(&warm, 1).await.unwrap_err();
        assert_eq!((refused.kind(), refused.status()), (ErrorKind::Fenced, 503));
        assert!(refused.retry_after().is_some());
        let written = warm.execute("delete from notes", ()).await.unwrap_err();
        assert_eq!(written.kind(), ErrorKind::Fenced);
    }
    assert_eq!(open::<Read>(&router, "acme", &token).await.unwrap_err().kind(), ErrorKind::Fenced);
    world.update_record(id, |_| ()).await;
    assert_eq!(note(&warm, 1).await.unwrap(), canary("acme", 1));
}

#[tokio::test]
async fn a_request_in_the_middle_of_a_flip_gets_through() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.builder().replacement_wait_max(Duration::from_secs(20)).build().await.unwrap();
    let token = world.token_for(id, Role::Writer).await;
    let warm = Arc::new(open::<Write>(&router, "acme", &token).await.unwrap());
    world.stamp_ahead(id).await;
    let waiting = tokio::spawn({
        let warm = warm.clone();
        async move { note(&warm, 1).await }
    });
    tokio::task::yield_now().await;
    world.update_record(id, |_| ()).await;
    assert_eq!(waiting.await.unwrap().unwrap(), canary("acme", 1));
}

#[tokio::test]
async fn another_tenants_database_is_refused_not_served() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let router = world.builder().replacement_wait_max(Duration::from_millis(100)).build().await.unwrap();
    let token = world.token_for(ids[0], Role::Reader).await;
    // Somebody put globex's file where acme's was.
    let acme = world.placement(&world.record(ids[0]).await).await;
    let globex = world.placement(&world.record(ids[1]).await).await;
    remove(&acme.file_path());
    let db = rusqlite::Connection::open(globex.file_path()).unwrap();
    db.execute("vacuum into ?1", [acme.file_path().to_str().unwrap()]).unwrap();
    let refused = open::<Read>(&router, "acme", &token).await.unwrap_err();
    assert_eq!((refused.kind(), refused.status()), (ErrorKind::Fenced, 503));
    assert!(!refused.to_string().contains("globex"));
}

#[tokio::test]
async fn a_missing_database_is_an_error_and_stays_missing() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.builder().replacement_wait_max(Duration::from_millis(100)).build().await.unwrap();
    let token = world.token_for(id, Role::Reader).await;
    let path = world.placement(&world.record(id).await).await.file_path();
    remove(&path);
    assert_eq!(open::<Read>(&router, "acme", &token).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_deleted_tenant_is_gone_for_warm_handles_of_other_programs() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let (_, router) = two_routers(&world).await;
    let token = world.token_for(id, Role::Writer).await;
    let warm = open::<Write>(&router, "acme", &token).await.unwrap();
    world.update_tenant(id, |update| update.state = Some(TenantState::Deleted)).await;
    assert_eq!(note(&warm, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(warm.execute("delete from notes", ()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_read_across_a_flip_sees_the_state_it_began_with() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let token = world.token_for(id, Role::Reader).await;
    let tenant = open::<Read>(&router, "acme", &token).await.unwrap();
    let mut tx = tenant.read();
    let first = tx.query("select body from notes where id = 1", ()).await.unwrap();
    world.stamp_ahead(id).await;
    world.fill(id, "restored").await;
    // It began before the update and sees that state to its end: never half of each.
    let second = tx.query("select body from notes where id = 1", ()).await.unwrap();
    assert_eq!(first, second);
    drop(tx);
    assert_eq!(note(&tenant, 1).await.unwrap(), "restored, note 1");
}

/// The file with its write-ahead log, which would else be applied to the next file of that name.
fn remove(path: &std::path::Path) {
    std::fs::remove_file(path).unwrap();
    for side in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(side);
        // There is none when the last connection was closed.
        let _ = std::fs::remove_file(name);
    }
}
