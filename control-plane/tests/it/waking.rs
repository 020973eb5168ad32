//! Archived and deleted tenants come back in the right state and with the right content: after an upgrade, and while a
//! process of the version before runs beside this one.
//!
//! `asleep.tar.zst` is a data directory of the version before the column `wake_state`. Each tenant is named after its
//! state. It has a first row, then a backup, then a second row, then its state. The purged tenant has nothing.

use catalog::{BlockWrites, TenantState};
use control_plane::operations::{OperationParams, archive, read_only, resume, suspend, unarchive, undelete};
use control_plane::plan::TenantSelection;
use tempfile::TempDir;

use crate::in_flight::unpack;
use crate::invariants;
use crate::world::{TASKS, World};

/// Each tenant that is archived or deleted: its state on waking, and whether it is read-only.
const ASLEEP: [(&str, TenantState, bool); 9] = [
    ("archived", TenantState::Active, false),
    ("archived-suspended", TenantState::Suspended, false),
    ("archived-read-only", TenantState::Active, true),
    // Of a tenant that was read-only and suspended, only the suspension was remembered.
    ("archived-both", TenantState::Suspended, false),
    ("deleted", TenantState::Active, false),
    ("deleted-suspended", TenantState::Suspended, false),
    ("deleted-read-only", TenantState::Active, true),
    ("deleted-archived", TenantState::Active, false),
    ("deleted-archived-suspended", TenantState::Suspended, false),
];

const AWAKE: [(&str, TenantState, Option<BlockWrites>); 4] = [
    ("active", TenantState::Active, None),
    ("suspended", TenantState::Suspended, None),
    ("read-only", TenantState::Active, Some(BlockWrites::Operator)),
    ("purged", TenantState::Purged, None),
];

/// What a process of the version before leaves of the columns that it does not know.
const UNKNOWN: &str = "update tenants set wake_state = null, archive_backup_id = null, wake_generation = null";

/// The data directory of the version before; `change` is SQL for its catalog.
async fn left_by_older(change: &str) -> World {
    let dir = TempDir::new().unwrap();
    unpack(include_bytes!("../fixtures/asleep.tar.zst"), "asleep", &dir).await;
    sql(&dir, change);
    World::opened(dir).await
}

fn sql(dir: &TempDir, change: &str) {
    rusqlite::Connection::open(dir.path().join("catalog.db")).unwrap().execute_batch(change).unwrap();
}

fn one(name: &str) -> TenantSelection {
    TenantSelection::one_tenant(name)
}

async fn archive(world: &World, name: &str) {
    world.succeed(OperationParams::Archive(archive::ArchiveParams {}), one(name)).await;
}

async fn unarchive(world: &World, name: &str) {
    world.succeed(OperationParams::Unarchive(unarchive::UnarchiveParams {}), one(name)).await;
}

async fn suspend(world: &World, name: &str) {
    world.succeed(OperationParams::Suspend(suspend::SuspendParams {}), one(name)).await;
}

async fn count(world: &World, name: &str) -> i64 {
    world.int(name, "select count(*) from tasks").await
}

/// Every tenant comes back as it was put to sleep.
async fn wake_all(world: &World) {
    for (name, state, read_only) in ASLEEP {
        if name.starts_with("deleted") {
            world.succeed(OperationParams::Undelete(undelete::UndeleteParams {}), one(name)).await;
        }
        if name.contains("archived") {
            assert_eq!(world.tenant(name).await.state, TenantState::Archived, "{name}");
            unarchive(world, name).await;
        }
        let tenant = world.tenant(name).await;
        assert_eq!((tenant.state, tenant.block_writes.is_some()), (state, read_only), "{name}");
        assert_eq!(tenant.state_reason.is_some(), read_only || state == TenantState::Suspended, "{name}");
        if state == TenantState::Suspended {
            world.succeed(OperationParams::Resume(resume::ResumeParams {}), one(name)).await;
        }
        if read_only {
            assert!(world.try_sql(name, "insert into tasks (title) values ('no')").await.is_err(), "{name}");
            world.succeed(OperationParams::ReadOnly(read_only::ReadOnlyParams { on: false }), one(name)).await;
        }
        assert_eq!(count(world, name).await, 2, "{name}");
        world.sql(name, "insert into tasks (title) values ('awake')").await;
    }
    invariants::check(world).await;
}

#[tokio::test]
async fn after_an_upgrade_each_tenant_wakes_as_it_was() {
    let world = left_by_older("").await;
    for (name, state, _) in ASLEEP {
        let tenant = world.tenant(name).await;
        assert_eq!(tenant.wake_state, Some(state), "{name}");
        let newest = world.newest(name).await.unwrap().id;
        assert_eq!(tenant.archive_backup_id, name.contains("archived").then_some(newest), "{name}");
    }
    for (name, state, block) in AWAKE {
        let tenant = world.tenant(name).await;
        assert_eq!((tenant.state, tenant.block_writes), (state, block), "{name}");
        assert_eq!((tenant.wake_state, tenant.archive_backup_id), (None, None), "{name}");
    }
    invariants::check(&world).await;
    wake_all(&world).await;
}

#[tokio::test]
async fn an_upgrade_takes_the_backup_that_the_audit_log_names() {
    // The backups are numbered in another order than they were taken in. So the newest is not the right one.
    wake_all(&left_by_older("update backups set seq = seq + 1000 where reason = 'manual'").await).await;
    wake_all(&left_by_older("delete from events where kind = 'tenant.archived'").await).await;
}

#[tokio::test]
async fn tenants_that_an_older_process_archived_after_the_upgrade_wake_as_they_were() {
    for log in ["", "; delete from events where kind = 'tenant.archived'"] {
        let world = left_by_older("").await;
        sql(&world.dir, &format!("{UNKNOWN}{log}"));
        assert_eq!(world.tenant("archived-suspended").await.wake_state, None);
        wake_all(&world).await;
    }
}

#[tokio::test]
async fn what_an_older_process_did_in_between_is_not_overwritten_by_what_the_row_said() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    world.sql("acme", "insert into tasks (title) values ('first')").await;
    archive(&world, "acme").await;
    let first = world.tenant("acme").await;
    unarchive(&world, "acme").await;
    world.sql("acme", "insert into tasks (title) values ('second')").await;
    suspend(&world, "acme").await;
    archive(&world, "acme").await;
    // As if an older process had done everything since the first archiving: the columns still say what was true then.
    let backup = first.archive_backup_id.unwrap();
    let generation = first.generation;
    assert_eq!(first.wake_state, Some(TenantState::Active));
    sql(
        &world.dir,
        &format!(
            "update tenants set wake_state = 'active', archive_backup_id = '{backup}', wake_generation = {generation}"
        ),
    );
    unarchive(&world, "acme").await;
    assert_eq!(world.tenant("acme").await.state, TenantState::Suspended);
    world.succeed(OperationParams::Resume(resume::ResumeParams {}), one("acme")).await;
    assert_eq!(count(&world, "acme").await, 2, "the second archive's backup");
    invariants::check(&world).await;
}

#[tokio::test]
async fn the_backup_of_the_archiving_is_used_even_if_another_one_is_newer() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    world.backup("acme").await;
    world.sql("acme", "insert into tasks (title) values ('kept')").await;
    archive(&world, "acme").await;
    assert_eq!(world.tenant("acme").await.archive_backup_id, world.newest("acme").await.map(|backup| backup.id));
    sql(&world.dir, "update backups set seq = seq + 1000 where reason = 'manual'; update events set data = '{}'");
    unarchive(&world, "acme").await;
    assert_eq!(count(&world, "acme").await, 1);
    invariants::check(&world).await;
}
