//! backup and verify

use std::path::Path;

use catalog::operations::OperationState;
use control_plane::operations::{OperationParams, verify};
use control_plane::plan::TenantSelection;

use crate::invariants;
use crate::world::{TASKS, World, backing_up, verifying};

async fn two_tenants() -> World {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme", "globex"]).await;
    for name in ["acme", "globex"] {
        world.sql(name, &format!("insert into tasks (id, title) values (1, 'canary of {name}')")).await;
    }
    world
}

#[tokio::test]
async fn a_backup_is_listed_described_and_stored() {
    let world = two_tenants().await;
    let ended = world.succeed(backing_up(), TenantSelection::all_tenants()).await;
    assert_eq!(ended.steps_total, 2);
    let backup = world.newest("acme").await.unwrap();
    assert_eq!((backup.schema_version, backup.reason.as_str(), backup.op_id), (Some(1), "manual", Some(ended.id)));
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(world.object(&backup.object_key)).unwrap()).unwrap();
    assert_eq!(manifest["tenant"], world.tenant("acme").await.id.to_string());
    assert_eq!(manifest["image"]["blake3"].as_str().unwrap().len(), 64);
    assert_eq!(manifest["image"]["sha256"].as_str().unwrap().len(), 64);
    let object = world.object(manifest["object"]["key"].as_str().unwrap());
    assert_eq!(std::fs::metadata(object).unwrap().len(), manifest["object"]["size_bytes"]);
    assert_eq!(world.tenant("acme").await.size_bytes, Some(backup.size_bytes));
    invariants::check(&world).await;
}

#[tokio::test]
async fn equal_content_has_an_equal_hash_and_another_content_another() {
    let world = two_tenants().await;
    let (first, again) = (world.backup("acme").await, world.backup("acme").await);
    assert_ne!(first.id, again.id);
    assert_eq!(first.content_hash, again.content_hash);
    world.sql("acme", "update tasks set title = 'changed'").await;
    assert_ne!(world.backup("acme").await.content_hash, first.content_hash);
}

#[tokio::test]
async fn the_catalog_is_copied_when_a_copy_is_due_or_the_store_has_none() {
    let world = two_tenants().await;
    let ended = world.succeed(backing_up(), TenantSelection::all_tenants()).await;
    let first = catalogs(&world);
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&first[0]).unwrap()).unwrap();
    assert_eq!((first.len(), &manifest["op"]), (1, &serde_json::json!(ended.id.to_string())));
    assert!(world.object(manifest["object"]["key"].as_str().unwrap()).exists());
    // As if the catalog were so large that a copy takes long.
    let mut tx = world.app.catalog.write().await.unwrap();
    let last = catalog::fleet::last_copy(&mut tx).await.unwrap().unwrap();
    catalog::fleet::note_copy(&mut tx, catalog::fleet::CatalogCopy { took_ms: 3_600_000, ..last }).await.unwrap();
    tx.commit().await.unwrap();
    world.succeed(backing_up(), TenantSelection::all_tenants()).await;
    assert_eq!(catalogs(&world), first, "a copy was made just now");
    std::fs::remove_file(&first[0]).unwrap();
    world.succeed(backing_up(), TenantSelection::all_tenants()).await;
    assert_eq!(catalogs(&world).len(), 1, "the store had lost its copy");
}

fn catalogs(world: &World) -> Vec<std::path::PathBuf> {
    let folder = world.object("v1/catalog").join(world.app.catalog.fleet_id().uuid().to_string());
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "json")).collect()
}

#[tokio::test]
async fn a_damaged_database_fails_its_backup_and_no_other() {
    let world = two_tenants().await;
    std::fs::write(world.file("acme").await, "garbage").unwrap();
    let ended = world.run(backing_up(), TenantSelection::all_tenants()).await.unwrap();
    assert_eq!(ended.state, OperationState::Partial);
    assert_eq!(world.failure(&ended).await, "database_corrupt");
    assert!(world.newest("acme").await.is_none() && world.newest("globex").await.is_some());
}

#[tokio::test]
async fn verification_proves_good_backups_and_tells_bad_ones() {
    let world = two_tenants().await;
    world.succeed(backing_up(), TenantSelection::all_tenants()).await;
    world.succeed(verifying(), TenantSelection::all_tenants()).await;
    let good = world.newest("acme").await.unwrap();
    assert!(good.verified_at.is_some() && good.verify_error.is_none());
    for (name, spoil) in [("truncated", truncate as fn(&Path)), ("flipped", flip), ("gone", remove)] {
        let backup = world.backup("acme").await;
        spoil(&world.object(&backup.object_key.replace(".manifest.json", ".db.zst")));
        let named = OperationParams::Verify(verify::VerifyParams { backups: vec![backup.id] });
        let ended = world.run(named, TenantSelection::default()).await.unwrap();
        assert_eq!(ended.state, OperationState::Failed, "{name}");
        assert_eq!(world.failure(&ended).await, "backup_damaged", "{name}");
        assert!(world.newest("acme").await.unwrap().verify_error.is_some(), "{name}");
    }
    let ended = world.run(verifying(), TenantSelection::all_tenants()).await.unwrap();
    assert_eq!(ended.state, OperationState::Partial);
    invariants::check(&world).await;
}

#[tokio::test]
async fn a_tenant_without_a_backup_has_nothing_to_verify() {
    let world = two_tenants().await;
    let ended = world.run(verifying(), TenantSelection::one_tenant("acme")).await.unwrap();
    assert_eq!(world.failure(&ended).await, "backup_not_found");
}

#[tokio::test]
async fn a_large_database_goes_there_and_back_in_pieces() {
    let world = two_tenants().await;
    // Beyond what is kept in memory, and hardly compressible.
    let grow = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 700) \
                insert into tasks (title) select hex(randomblob(40000)) from n";
    world.sql("acme", grow).await;
    let sum = "select count(*) from tasks";
    let before = world.int("acme", sum).await;
    let backup = world.backup("acme").await;
    assert!(backup.size_bytes > 50 << 20 && backup.stored_bytes > 16 << 20, "{backup:?}");
    world.succeed(verifying(), TenantSelection::one_tenant("acme")).await;
    world.sql("acme", "delete from tasks").await;
    world
        .succeed(
            crate::world::restoring(control_plane::operations::restore::RestorePoint::Latest),
            TenantSelection::one_tenant("acme"),
        )
        .await;
    assert_eq!(world.int("acme", sum).await, before);
    invariants::check(&world).await;
}

fn truncate(path: &Path) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}
