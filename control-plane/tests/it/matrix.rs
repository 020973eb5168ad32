//! Every operation on every engine, its process ended or stopped at every point between two actions, and finished by
//! another process; then the invariants of the whole fleet, and what the operation promises.
//!
//! A cell is one operation, one fault, at one point, on one engine. The points are found by running: a new one is covered
//! the day it is written, and a new operation without a scenario here fails `every_operation_is_in_the_matrix`.

use std::collections::BTreeSet;

use catalog::{Generation, TenantState};
use control_plane::operations::{
    KINDS, OperationParams, adopt, archive, clone, r#move, purge, read_only, restore, resume, settle, suspend,
    unarchive, undelete,
};
use control_plane::plan::TenantSelection;
use control_plane::runner::submit::Submission;
use tenant_engine::IdentityState;

use crate::crash::{Column, Fault, crash_everywhere};
use crate::invariants;
use crate::world::{On, World, backing_up, creating, deleting, migrating, restoring, undoing, verifying};

/// For both engines.
const TASKS: (&str, &str) = ("0001_tasks.sql", "create table tasks (title text not null);");
const DONE: (&str, &str) = ("0002_done.sql", "alter table tasks add column done integer not null default 0;");

macro_rules! column {
    ($name:ident, $on:expr, $fault:expr, $($scenario:ident),*) => {
        mod $name {
            use super::{Column, Fault, On};
            $(#[tokio::test] async fn $scenario() { super::$scenario(&Column { on: $on, fault: $fault }).await; })*
        }
    };
}

/// A test of each scenario in each column.
macro_rules! cells {
    ($($scenario:ident => $kind:literal,)*) => {
        const CELLS: &[&str] = &[$($kind),*];
        column!(killed_on_sqlite, On::Sqlite, Fault::Killed, $($scenario),*);
        column!(killed_on_postgres, On::postgres(), Fault::Killed, $($scenario),*);
        column!(stalled_on_sqlite, On::Sqlite, Fault::Stalled, $($scenario),*);
        column!(stalled_on_postgres, On::postgres(), Fault::Stalled, $($scenario),*);
    };
}

cells! {
    create => "create",
    migrate => "migrate",
    backup => "backup",
    verify => "verify",
    restore_in_place => "restore",
    restore_as_a_new_tenant => "restore",
    undo => "restore_undo",
    suspend_one => "suspend",
    resume_one => "resume",
    read_only_on => "read_only",
    read_only_off => "read_only",
    move_one => "move",
    move_a_read_only_one => "move",
    move_a_suspended_one => "move",
    clone_one => "clone",
    archive_one => "archive",
    archive_a_suspended_one => "archive",
    archive_a_read_only_one => "archive",
    unarchive_one => "unarchive",
    delete => "delete",
    delete_an_archived_one => "delete",
    delete_a_read_only_one => "delete",
    undelete_one => "undelete",
    purge_one => "purge",
    settle_one => "settle",
    settle_one_with_its_newest => "settle",
    adopt_one => "adopt",
}

#[test]
fn every_operation_is_in_the_matrix() {
    let all: BTreeSet<&str> = KINDS.iter().copied().collect();
    assert_eq!(CELLS.iter().copied().collect::<BTreeSet<_>>(), all);
}

fn acme() -> TenantSelection {
    TenantSelection::one_tenant("acme")
}

async fn count(world: &World, name: &str) -> i64 {
    world.int(name, "select count(*) from tasks").await
}

async fn writes(world: &World, name: &str) {
    let before = count(world, name).await;
    world.sql(name, "insert into tasks (title) values ('writes go on')").await;
    assert_eq!(count(world, name).await, before + 1);
}

/// A tenant with one row.
async fn with_a_row(world: &World) {
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    world.sql("acme", "insert into tasks (title) values ('in the backup')").await;
}

/// A tenant with one row in its backup and two in its database.
async fn with_backup(world: &World) {
    with_a_row(world).await;
    world.backup("acme").await;
    world.sql("acme", "insert into tasks (title) values ('later')").await;
}

async fn create(on: &Column) {
    let prepare = async |world: &World| drop(world.migrate(&[TASKS]).await);
    let check = async |world: &World| writes(world, "acme").await;
    let met =
        crash_everywhere(on, "create", prepare, |_: &World| creating(&["acme"]), TenantSelection::default, check).await;
    for point in ["create: claimed", "create: provisioned", "create: probed"] {
        assert!(met.contains(&point), "{point} was not met: {met:?}");
    }
}

async fn migrate(on: &Column) {
    let check = async |world: &World| {
        assert_eq!(world.int("acme", "select count(*) from tasks where done = 0").await, 1);
    };
    let met = crash_everywhere(
        on,
        "migrate",
        with_a_row,
        |_: &World| migrating(&[TASKS, DONE]),
        TenantSelection::all_tenants,
        check,
    )
    .await;
    assert!(met.contains(&"migrate: applied"), "{met:?}");
}

async fn backup(on: &Column) {
    let check = async |world: &World| {
        let backup = world.newest("acme").await.unwrap();
        world.succeed(verifying(), acme()).await;
        assert_eq!(backup.schema_version, Some(1));
    };
    let met =
        crash_everywhere(on, "backup", with_backup, |_: &World| backing_up(), TenantSelection::all_tenants, check)
            .await;
    for point in ["backup: stored", "backup: listed"] {
        assert!(met.contains(&point), "{point} was not met: {met:?}");
    }
}

async fn verify(on: &Column) {
    let check = async |world: &World| {
        let backup = world.newest("acme").await.unwrap();
        assert!(backup.verified_at.is_some() && backup.verify_error.is_none(), "{backup:?}");
    };
    crash_everywhere(on, "verify", with_backup, |_: &World| verifying(), acme, check).await;
}

async fn restore_in_place(on: &Column) {
    let prepare = async |world: &World| {
        with_backup(world).await;
        world.migrate(&[TASKS, DONE]).await;
    };
    let check = async |world: &World| {
        let tenant = world.tenant("acme").await;
        assert_eq!((tenant.schema_version, tenant.pin.map(|pin| pin.below)), (Some(1), Some(2)));
        assert_eq!(count(world, "acme").await, 1);
        writes(world, "acme").await;
        world.succeed(undoing(), acme()).await;
        let tenant = world.tenant("acme").await;
        assert_eq!((tenant.schema_version, tenant.pin), (Some(2), None));
        assert_eq!(world.int("acme", "select count(*) from tasks where title = 'later'").await, 1);
        invariants::check(world).await;
    };
    let params = |_: &World| restoring(restore::RestorePoint::Latest);
    let met = crash_everywhere(on, "restore in place", prepare, params, acme, check).await;
    for point in ["build: filled", "restore: frozen", "build: stamped", "swap: retired"] {
        assert!(met.contains(&point), "{point} was not met: {met:?}");
    }
}

async fn restore_as_a_new_tenant(on: &Column) {
    let check = async |world: &World| {
        assert_eq!(count(world, "copy").await, 1);
        assert_eq!(count(world, "acme").await, 2);
    };
    let params = |_: &World| {
        let as_name = Some("copy".to_owned());
        OperationParams::Restore(restore::RestoreParams {
            to: restore::RestorePoint::Latest,
            as_name,
            schema: restore::RestoredSchema::Backup,
            resolved: None,
        })
    };
    crash_everywhere(on, "restore as new", with_backup, params, acme, check).await;
}

async fn undo(on: &Column) {
    let prepare = async |world: &World| {
        with_backup(world).await;
        world.succeed(restoring(restore::RestorePoint::Latest), acme()).await;
        world.migrate(&[TASKS, DONE]).await;
    };
    let check = async |world: &World| {
        let tenant = world.tenant("acme").await;
        assert_eq!((tenant.schema_version, tenant.pin.map(|pin| pin.below)), (Some(1), Some(2)));
        world.succeed(migrating(&[TASKS, DONE]), acme()).await;
        assert_eq!(world.int("acme", "select count(*) from tasks where done = 0").await, 2);
        writes(world, "acme").await;
    };
    let met = crash_everywhere(on, "restore_undo", prepare, |_: &World| undoing(), acme, check).await;
    for point in ["undo: building", "undo: looked at", "undo: frozen", "build: stamped", "swap: retired"] {
        assert!(met.contains(&point), "{point} was not met: {met:?}");
    }
}

fn suspending() -> OperationParams {
    OperationParams::Suspend(suspend::SuspendParams {})
}

async fn suspend_one(on: &Column) {
    let check = async |world: &World| {
        assert_eq!(world.tenant("acme").await.state, TenantState::Suspended);
        // It is looked after all the same.
        world.backup("acme").await;
        world.migrate(&[TASKS, DONE]).await;
        assert_eq!(world.tenant("acme").await.schema_version, Some(2));
    };
    let met = crash_everywhere(on, "suspend", with_a_row, |_: &World| suspending(), acme, check).await;
    assert!(met.contains(&"suspend: stamped"), "{met:?}");
}

async fn resume_one(on: &Column) {
    let prepare = async |world: &World| {
        with_a_row(world).await;
        world.succeed(suspending(), acme()).await;
    };
    let check = async |world: &World| {
        let tenant = world.tenant("acme").await;
        assert_eq!((tenant.state, tenant.state_reason), (TenantState::Active, None));
        writes(world, "acme").await;
    };
    let params = |_: &World| OperationParams::Resume(resume::ResumeParams {});
    let met = crash_everywhere(on, "resume", prepare, params, acme, check).await;
    assert!(met.contains(&"resume: stamped"), "{met:?}");
}

fn blocking(on: bool) -> OperationParams {
    OperationParams::ReadOnly(read_only::ReadOnlyParams { on })
}

async fn is_read_only(world: &World) {
    assert_eq!(count(world, "acme").await, 1);
    assert!(world.try_sql("acme", "insert into tasks (title) values ('no')").await.is_err());
    assert_eq!(world.tenant("acme").await.block_writes, Some(catalog::BlockWrites::Operator));
}

async fn read_only_on(on: &Column) {
    crash_everywhere(on, "read_only on", with_a_row, |_: &World| blocking(true), acme, is_read_only).await;
}

async fn read_only_off(on: &Column) {
    let prepare = async |world: &World| {
        with_a_row(world).await;
        world.succeed(blocking(true), acme()).await;
    };
    let check = async |world: &World| writes(world, "acme").await;
    crash_everywhere(on, "read_only off", prepare, |_: &World| blocking(false), acme, check).await;
}

fn moving() -> OperationParams {
    OperationParams::Move(r#move::MoveParams { to: Some("other".to_owned()), ..Default::default() })
}

async fn is_at(world: &World, server: &str) {
    let tenant = world.tenant("acme").await;
    let mut tx = world.app.catalog.read().await.unwrap();
    let found = catalog::servers::get(&mut tx, tenant.server_id).await.unwrap().unwrap();
    assert_eq!(found.name, server);
}

async fn move_one(on: &Column) {
    let prepare = async |world: &World| {
        with_a_row(world).await;
        world.add_other().await;
    };
    let check = async |world: &World| {
        is_at(world, "other").await;
        writes(world, "acme").await;
        // And it can go on from there.
        world.backup("acme").await;
        world.migrate(&[TASKS, DONE]).await;
        invariants::check(world).await;
    };
    let met = crash_everywhere(on, "move", prepare, |_: &World| moving(), acme, check).await;
    for point in ["move: frozen", "move: filled", "move: verified", "build: stamped", "swap: retired"] {
        assert!(met.contains(&point), "{point} was not met: {met:?}");
    }
}

async fn move_a_read_only_one(on: &Column) {
    let prepare = async |world: &World| {
        with_a_row(world).await;
        world.succeed(blocking(true), acme()).await;
        world.add_other().await;
    };
    let check = async |world: &World| {
        is_at(world, "other").await;
        is_read_only(world).await;
    };
    crash_everywhere(on, "move read-only", prepare, |_: &World| moving(), acme, check).await;
}

async fn move_a_suspended_one(on: &Column) {
    let prepare = async |world: &World| {
        with_a_row(world).await;
        world.succeed(suspending(), acme()).await;
        world.add_other().await;
    };
    let check = async |world: &World| {
        is_at(world, "other").await;
        assert_eq!(world.tenant("acme").await.state, TenantState::Suspended);
        world.succeed(OperationParams::Resume(resume::ResumeParams {}), acme()).await;
        writes(world, "acme").await;
    };
    crash_everywhere(on, "move suspended", prepare, |_: &World| moving(), acme, check).await;
}

async fn clone_one(on: &Column) {
    let check = async |world: &World| {
        writes(world, "copy").await;
        assert_eq!((count(world, "copy").await, count(world, "acme").await), (2, 1));
    };
    let params = |_: &World| OperationParams::Clone(clone::CloneParams { name: "copy".to_owned(), source: None });
    let met = crash_everywhere(on, "clone", with_a_row, params, acme, check).await;
    assert!(met.contains(&"clone: snapshot taken"), "{met:?}");
}

fn archiving() -> OperationParams {
    OperationParams::Archive(archive::ArchiveParams {})
}

fn unarchiving() -> OperationParams {
    OperationParams::Unarchive(unarchive::UnarchiveParams {})
}

async fn archive_one(on: &Column) {
    let check = async |world: &World| {
        let tenant = world.tenant("acme").await;
        assert_eq!((tenant.state, tenant.placement), (TenantState::Archived, None));
        world.succeed(unarchiving(), acme()).await;
        assert_eq!(count(world, "acme").await, 2);
        writes(world, "acme").await;
    };
    let met = crash_everywhere(on, "archive", with_backup, |_: &World| archiving(), acme, check).await;
    for point in ["archive: frozen", "archive: proved", "archive: stamped", "archive: dropped"] {
        assert!(met.contains(&point), "{point} was not met: {met:?}");
    }
}

async fn archive_a_suspended_one(on: &Column) {
    let prepare = async |world: &World| {
        with_a_row(world).await;
        world.succeed(suspending(), acme()).await;
    };
    let check = async |world: &World| {
        world.succeed(unarchiving(), acme()).await;
        assert_eq!(world.tenant("acme").await.state, TenantState::Suspended);
    };
    crash_everywhere(on, "archive suspended", prepare, |_: &World| archiving(), acme, check).await;
}

async fn read_only_one(world: &World) {
    with_a_row(world).await;
    world.succeed(blocking(true), acme()).await;
}

async fn archive_a_read_only_one(on: &Column) {
    let check = async |world: &World| {
        world.succeed(unarchiving(), acme()).await;
        is_read_only(world).await;
        invariants::check(world).await;
    };
    crash_everywhere(on, "archive read-only", read_only_one, |_: &World| archiving(), acme, check).await;
}

async fn unarchive_one(on: &Column) {
    let prepare = async |world: &World| {
        with_backup(world).await;
        world.succeed(archiving(), acme()).await;
        world.migrate(&[TASKS, DONE]).await;
    };
    let check = async |world: &World| {
        // Also the release that came while it slept.
        assert_eq!(world.int("acme", "select count(*) from tasks where done = 0").await, 2);
        writes(world, "acme").await;
    };
    crash_everywhere(on, "unarchive", prepare, |_: &World| unarchiving(), acme, check).await;
}

async fn delete(on: &Column) {
    let check = async |world: &World| {
        assert_eq!(world.tenant("acme").await.state, TenantState::Deleted);
        assert!(world.try_sql("acme", "select 1").await.is_err());
        assert!(world.newest("acme").await.unwrap().verified_at.is_some());
    };
    let met = crash_everywhere(on, "delete", with_backup, |_: &World| deleting(), acme, check).await;
    assert!(met.contains(&"delete: stamped"), "{met:?}");
}

async fn delete_an_archived_one(on: &Column) {
    let prepare = async |world: &World| {
        with_a_row(world).await;
        world.succeed(archiving(), acme()).await;
    };
    let check = async |world: &World| {
        world.succeed(OperationParams::Undelete(undelete::UndeleteParams {}), acme()).await;
        world.succeed(unarchiving(), acme()).await;
        writes(world, "acme").await;
    };
    crash_everywhere(on, "delete archived", prepare, |_: &World| deleting(), acme, check).await;
}

async fn delete_a_read_only_one(on: &Column) {
    let check = async |world: &World| {
        world.succeed(OperationParams::Undelete(undelete::UndeleteParams {}), acme()).await;
        is_read_only(world).await;
        invariants::check(world).await;
        world.succeed(blocking(false), acme()).await;
        writes(world, "acme").await;
    };
    crash_everywhere(on, "delete read-only", read_only_one, |_: &World| deleting(), acme, check).await;
}

async fn deleted(world: &World) {
    with_backup(world).await;
    world.succeed(deleting(), acme()).await;
}

async fn undelete_one(on: &Column) {
    let check = async |world: &World| {
        assert_eq!(count(world, "acme").await, 2);
        writes(world, "acme").await;
    };
    let params = |_: &World| OperationParams::Undelete(undelete::UndeleteParams {});
    crash_everywhere(on, "undelete", deleted, params, acme, check).await;
}

async fn purge_one(on: &Column) {
    let prepare = async |world: &World| {
        with_backup(world).await;
        // So that a database is kept besides the current one.
        world.succeed(restoring(restore::RestorePoint::Latest), acme()).await;
        world.succeed(deleting(), acme()).await;
    };
    let check = async |world: &World| {
        assert_eq!(world.tenant("acme").await.state, TenantState::Purged);
        let again = world.start(Submission::new(creating(&["acme"]), TenantSelection::default())).await;
        assert_eq!(again.unwrap_err().code(), "already_exists", "the name stays reserved");
    };
    let params = |_: &World| OperationParams::Purge(purge::PurgeParams::default());
    let met = crash_everywhere(on, "purge", prepare, params, acme, check).await;
    assert!(met.contains(&"purge: dropped a kept one"), "{met:?}");
}

/// What an operation leaves that stamped and was given up before the catalog heard of it.
async fn stamped_and_forgotten(world: &World) {
    with_a_row(world).await;
    stamp_ahead(world, 1, IdentityState::Frozen).await;
    assert!(world.try_sql("acme", "select 1").await.is_err());
}

/// What the catalog does not know of, as it was set back.
async fn stamped_and_long_forgotten(world: &World) {
    stamped_and_forgotten(world).await;
    stamp_ahead(world, 2, IdentityState::Active).await;
}

/// So many generations ahead of the catalog, and one ahead of what it is.
async fn stamp_ahead(world: &World, by: i64, state: IdentityState) {
    let tenant = world.tenant("acme").await;
    let (engine, at) = world.app.context.current_database(&tenant).await.unwrap();
    let (fleet, ahead) = (world.app.catalog.fleet_id(), |by| Generation(tenant.generation.0 + by));
    let states = vec![IdentityState::Active, IdentityState::Frozen];
    let now = tenant_engine::ExpectedIdentity { tenant: tenant.id, fleet, generation: ahead(by - 1), states };
    let next =
        tenant_engine::Identity { tenant: tenant.id, fleet, generation: ahead(by), state, op: None, stamped_at: 1 };
    engine.stamp_identity(&at, &now, &next).await.unwrap();
}

async fn settle_one(on: &Column) {
    let check = async |world: &World| writes(world, "acme").await;
    let params = |_: &World| OperationParams::Settle(settle::SettleParams::default());
    let met = crash_everywhere(on, "settle", stamped_and_forgotten, params, acme, check).await;
    assert!(met.contains(&"settle: stamped"), "{met:?}");
}

async fn settle_one_with_its_newest(on: &Column) {
    let check = async |world: &World| writes(world, "acme").await;
    let params = |_: &World| OperationParams::Settle(settle::SettleParams { newest: true, ..Default::default() });
    let met = crash_everywhere(on, "settle --newest", stamped_and_long_forgotten, params, acme, check).await;
    assert!(met.contains(&"settle: newest stamped"), "{met:?}");
}

/// Only Postgres has databases that somebody else made.
async fn adopt_one(on: &Column) {
    let On::Postgres(servers) = &on.on else { return };
    let cluster = &servers.first;
    cluster.psql("postgres", "create database theirs");
    cluster.psql("theirs", "create table tasks (title text not null); insert into tasks values ('theirs')");
    cluster.psql("theirs", "grant select on tasks to public");
    let dsn: secrecy::SecretString = cluster.dsn("theirs").into();
    let params = |world: &World| {
        let source = adopt::AdoptParams::seal_source(&world.app.context, &dsn);
        OperationParams::Adopt(adopt::AdoptParams {
            name: "acme".to_owned(),
            labels: Default::default(),
            server: None,
            source,
        })
    };
    let check = async |world: &World| writes(world, "acme").await;
    let met = crash_everywhere(on, "adopt", async |_: &World| {}, params, TenantSelection::default, check).await;
    assert!(met.contains(&"adopt: copied"), "{met:?}");
}
