//! A restore keeps the backup's schema, and the tenant is pinned there until somebody migrates it by name.

use catalog::TenantRecord;
use catalog::operations::OperationState;
use control_plane::operations::restore::{self, RestorePoint, RestoredSchema};
use control_plane::operations::{OperationParams, archive, clone, migrate, settle, unarchive};
use control_plane::plan::TenantSelection;
use control_plane::runner::control::OperationControl;

use crate::invariants;
use crate::older_catalog::{picture, set_back};
use crate::world::{On, World, caller, files, migrating, restoring, undoing};

const ONE: (&str, &str) = ("0001_n.sql", "create table n (id integer primary key, b text);\n");
/// The mistake that a restore is to take back.
const TWO: (&str, &str) = ("0002_oops.sql", "update n set b = null;\n");
const THREE: (&str, &str) = ("0003_c.sql", "alter table n add column c text;\n");

fn acme() -> TenantSelection {
    TenantSelection::one_tenant("acme")
}

/// Tenants whose data the second migration destroys, with a backup from before.
async fn damaged(on: On) -> World {
    let world = World::on(on).await;
    world.migrate(&[ONE]).await;
    world.create(&["acme", "globex"]).await;
    world.sql("acme", "insert into n (id, b) values (1, 'kept')").await;
    world.backup("acme").await;
    world.migrate(&[ONE, TWO]).await;
    assert_eq!(whole_rows(&world, "acme").await, 0);
    world
}

async fn whole_rows(world: &World, name: &str) -> i64 {
    world.int(name, "select count(*) from n where b = 'kept'").await
}

async fn restored(on: On) -> World {
    let world = damaged(on).await;
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    world
}

fn at(tenant: &TenantRecord) -> (Option<i64>, Option<i64>) {
    (tenant.schema_version, tenant.pin.map(|pin| pin.below))
}

async fn acme_at(world: &World) -> (Option<i64>, Option<i64>) {
    at(&world.tenant("acme").await)
}

fn restoring_with(schema: RestoredSchema, as_name: Option<&str>) -> OperationParams {
    let as_name = as_name.map(str::to_owned);
    OperationParams::Restore(restore::RestoreParams { to: RestorePoint::Latest, as_name, schema, resolved: None })
}

fn to(set: &[(&str, &str)], target: Option<i64>, include_pinned: bool) -> OperationParams {
    let release = migrate::ReleaseSource::Files(files(set));
    OperationParams::Migrate(migrate::MigrateParams {
        target,
        include_pinned,
        ..migrate::MigrateParams::to_head(release)
    })
}

/// The whole story, on one engine.
async fn a_restore_takes_a_migration_back(on: On) {
    let world = damaged(on).await;
    let ended = world.succeed(restoring(RestorePoint::Latest), acme()).await;
    assert_eq!(whole_rows(&world, "acme").await, 1, "the restore must not repeat the mistake");
    let pin = world.tenant("acme").await.pin.unwrap();
    assert_eq!((pin.below, pin.op), (2, ended.id));
    invariants::check(&world).await;

    // A run over everybody leaves it out and says why.
    let plan = world.plan(migrating(&[ONE, TWO, THREE]), TenantSelection::all_tenants()).await.unwrap();
    let line = &plan.sample.iter().find(|line| line.tenant == "acme").unwrap().action;
    assert!(line.contains("pinned at version 1") && line.contains(&ended.id.to_string()), "{line}");
    world.succeed(migrating(&[ONE, TWO, THREE]), TenantSelection::all_tenants()).await;
    assert_eq!(world.tenant("globex").await.schema_version, Some(3));
    assert_eq!((acme_at(&world).await, whole_rows(&world, "acme").await), ((Some(1), Some(2)), 1));

    // The way back, and there again: the pin goes and comes with the database.
    world.succeed(undoing(), acme()).await;
    assert_eq!((acme_at(&world).await, whole_rows(&world, "acme").await), ((Some(2), None), 0));
    world.succeed(undoing(), acme()).await;
    assert_eq!((acme_at(&world).await, whole_rows(&world, "acme").await), ((Some(1), Some(2)), 1));
    assert_eq!(world.tenant("acme").await.pin, Some(pin), "the same pin as before");

    // Named, it is migrated, and belongs to everybody again.
    world.succeed(migrating(&[ONE, TWO, THREE]), acme()).await;
    assert_eq!((acme_at(&world).await, whole_rows(&world, "acme").await), ((Some(3), None), 0));
    assert_eq!(world.migrate(&[ONE, TWO, THREE]).await.steps_total, 0);
    invariants::check(&world).await;
}

#[tokio::test]
async fn a_restore_takes_a_migration_back_on_sqlite() {
    a_restore_takes_a_migration_back(On::Sqlite).await;
}

#[tokio::test]
async fn a_restore_takes_a_migration_back_on_postgres() {
    a_restore_takes_a_migration_back(On::postgres()).await;
}

#[tokio::test]
async fn the_tenants_own_schema_comes_back_where_it_is_asked_for() {
    let world = damaged(On::Sqlite).await;
    let plan = world.plan(restoring_with(RestoredSchema::Current, None), acme()).await.unwrap();
    let told = plan.notes.iter().find(|note| note.starts_with("schema:")).unwrap();
    assert!(told.contains("the backup has version 1") && told.contains("migrated to version 2"), "{told}");
    world.succeed(restoring_with(RestoredSchema::Current, None), acme()).await;
    assert_eq!((acme_at(&world).await, whole_rows(&world, "acme").await), ((Some(2), None), 0));
    assert_eq!(world.migrate(&[ONE, TWO]).await.steps_total, 0);
    invariants::check(&world).await;
}

#[tokio::test]
async fn a_backup_that_is_newer_than_the_tenant_cannot_come_to_its_schema() {
    let world = damaged(On::Sqlite).await;
    let newer = world.backup("acme").await;
    let older = world.newest("acme").await.unwrap();
    assert_eq!(older.id, newer.id);
    let first = {
        let mut tx = world.app.catalog.read().await.unwrap();
        let id = world.tenant("acme").await.id;
        catalog::backups::newest_at_version(&mut tx, id, 1).await.unwrap().unwrap()
    };
    world.succeed(restoring(RestorePoint::Backup(first.id)), acme()).await;
    let refused = world.run(restoring_with(RestoredSchema::Current, None), acme()).await.unwrap_err();
    assert_eq!(refused.code(), "schema_unreachable");
    // With its own schema it can, and the tenant is as far as it was before.
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    assert_eq!(acme_at(&world).await, (Some(2), None));
}

#[tokio::test]
async fn a_plan_says_both_versions_and_what_becomes_of_the_tenant() {
    let world = damaged(On::Sqlite).await;
    let plan = world.plan(restoring(RestorePoint::Latest), acme()).await.unwrap();
    let told = plan.notes.iter().find(|note| note.starts_with("schema:")).unwrap();
    assert!(told.contains("from version 2 to version 1") && told.contains("pinned"), "{told}");
    assert_eq!(acme_at(&world).await, (Some(2), None), "nothing was done");
}

#[tokio::test]
async fn pinned_tenants_take_part_where_that_is_said() {
    let world = restored(On::Sqlite).await;
    world.succeed(to(&[ONE, TWO, THREE], None, true), TenantSelection::all_tenants()).await;
    assert_eq!(acme_at(&world).await, (Some(3), None));
}

#[tokio::test]
async fn a_pin_is_lifted_by_a_step_forwards_and_by_nothing_less() {
    let world = restored(On::Sqlite).await;
    let all = &[ONE, TWO, THREE];
    world.migrate(&[ONE, TWO]).await;
    world.succeed(to(all, Some(1), false), acme()).await;
    assert_eq!(acme_at(&world).await, (Some(1), Some(2)), "nothing was migrated");
    world.succeed(to(all, Some(2), false), acme()).await;
    assert_eq!(acme_at(&world).await, (Some(2), None));
    // Of a release that ends there, the tenant is at the head: a caller who names it means that.
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    assert_eq!(acme_at(&world).await, (Some(1), Some(2)));
    world.succeed(migrating(&[ONE]), acme()).await;
    assert_eq!(acme_at(&world).await, (Some(1), None));
}

#[tokio::test]
async fn a_tenant_that_goes_back_twice_stays_pinned_until_it_is_as_far_as_it_was() {
    let world = World::new().await;
    let mut backups = Vec::new();
    let sets: [&[(&str, &str)]; 3] = [&[ONE], &[ONE, TWO], &[ONE, TWO, THREE]];
    for set in sets {
        world.migrate(set).await;
        if set.len() == 1 {
            world.create(&["acme"]).await;
        }
        backups.push(world.backup("acme").await.id);
    }
    for (backup, expected) in
        [(0, (Some(1), Some(3))), (1, (Some(2), Some(3))), (0, (Some(1), Some(3))), (2, (Some(3), None))]
    {
        world.succeed(restoring(RestorePoint::Backup(backups[backup])), acme()).await;
        assert_eq!(acme_at(&world).await, expected, "backup {backup}");
    }
}

#[tokio::test]
async fn an_undo_to_an_older_schema_pins_like_a_restore() {
    let world = World::new().await;
    world.migrate(&[ONE]).await;
    world.create(&["acme"]).await;
    world.sql("acme", "insert into n (id, b) values (1, 'kept')").await;
    world.backup("acme").await;
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    assert_eq!(acme_at(&world).await, (Some(1), None), "it went nowhere");
    world.migrate(&[ONE, TWO]).await;
    let plan = world.plan(undoing(), acme()).await.unwrap();
    assert!(plan.notes.iter().any(|note| note.contains("pinned")), "{plan:?}");
    world.succeed(undoing(), acme()).await;
    assert_eq!((acme_at(&world).await, whole_rows(&world, "acme").await), ((Some(1), Some(2)), 1));
}

#[tokio::test]
async fn a_target_behind_a_tenant_is_refused_with_the_way_back() {
    let world = damaged(On::Sqlite).await;
    let backup = world.newest("acme").await.unwrap();
    for selection in [acme(), TenantSelection::all_tenants()] {
        let refused = world.run(to(&[ONE, TWO], Some(1), false), selection).await.unwrap_err();
        assert_eq!(refused.code(), "schema_unreachable");
        assert!(refused.next_steps.iter().any(|next| next.contains(&backup.id.to_string())), "{refused:?}");
    }
    let refused = world.run(to(&[ONE, TWO], Some(1), false), TenantSelection::one_tenant("globex")).await.unwrap_err();
    assert!(refused.next_steps.iter().any(|next| next.contains("backup list globex")), "{refused:?}");
    // Where others can go there, a run over all takes those along and says who stays.
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    world.succeed(migrating(&[ONE, TWO, THREE]), TenantSelection::one_tenant("globex")).await;
    let refused = world.run(to(&[ONE, TWO, THREE], Some(2), false), TenantSelection::all_tenants()).await.unwrap_err();
    assert_eq!(refused.code(), "schema_unreachable", "the only other one is pinned");
    world.succeed(to(&[ONE, TWO, THREE], Some(2), true), TenantSelection::all_tenants()).await;
    assert_eq!((acme_at(&world).await, world.tenant("globex").await.schema_version), ((Some(2), None), Some(3)));
}

#[tokio::test]
async fn copies_of_what_is_behind_are_pinned_too() {
    let world = restored(On::Sqlite).await;
    world.succeed(OperationParams::Clone(clone::CloneParams { name: "cloned".to_owned(), source: None }), acme()).await;
    world.succeed(restoring_with(RestoredSchema::Backup, Some("copy")), acme()).await;
    for name in ["cloned", "copy"] {
        assert_eq!(at(&world.tenant(name).await), (Some(1), Some(2)), "{name}");
        assert_eq!(whole_rows(&world, name).await, 1, "{name}");
    }
    world.succeed(restoring_with(RestoredSchema::Current, Some("forward")), acme()).await;
    assert_eq!(at(&world.tenant("forward").await), (Some(2), None));
    world.migrate(&[ONE, TWO, THREE]).await;
    for name in ["cloned", "copy"] {
        assert_eq!(whole_rows(&world, name).await, 1, "{name}");
    }
}

#[tokio::test]
async fn a_pinned_tenant_wakes_as_it_was_archived() {
    let world = restored(On::Sqlite).await;
    let pin = world.tenant("acme").await.pin;
    world.succeed(OperationParams::Archive(archive::ArchiveParams {}), acme()).await;
    world.migrate(&[ONE, TWO, THREE]).await;
    world.succeed(OperationParams::Unarchive(unarchive::UnarchiveParams {}), acme()).await;
    assert_eq!((acme_at(&world).await, world.tenant("acme").await.pin), ((Some(1), Some(2)), pin));
    assert_eq!(whole_rows(&world, "acme").await, 1);
    world.add_other().await;
    let moving = control_plane::operations::r#move::MoveParams { to: Some("other".to_owned()), ..Default::default() };
    world.succeed(OperationParams::Move(moving), acme()).await;
    assert_eq!((world.tenant("acme").await.pin, whole_rows(&world, "acme").await), (pin, 1));
}

#[tokio::test]
async fn a_retry_of_an_older_run_does_not_repeat_what_a_restore_took_back() {
    let world = World::new().await;
    world.migrate(&[ONE]).await;
    world.create(&["acme"]).await;
    world.sql("acme", "insert into n (id, b) values (1, 'kept')").await;
    world.backup("acme").await;
    let bad = ("0003_bad.sql", "create unique index i on n (b); insert into n values (1, null);\n");
    let started = world.run(migrating(&[ONE, TWO, bad]), acme()).await.unwrap();
    assert_eq!(started.state, OperationState::Failed);
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    assert_eq!(acme_at(&world).await, (Some(1), Some(2)), "by the database's own word it was further");
    world.app.runner.control_operation(&caller(), started.id, OperationControl::Retry, None).await.unwrap();
    world.finish(started.id).await;
    assert_eq!(whole_rows(&world, "acme").await, 1);
    assert_eq!(acme_at(&world).await, (Some(1), Some(2)));
}

#[tokio::test]
async fn a_catalog_that_was_set_back_pins_what_it_finds_behind() {
    let world = damaged(On::Sqlite).await;
    picture(&world);
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    let world = world.reopen(set_back).await;
    assert_eq!(acme_at(&world).await, (Some(2), None), "it knows of no restore");
    world.succeed(OperationParams::Settle(settle::SettleParams { newest: true, ..Default::default() }), acme()).await;
    assert_eq!((acme_at(&world).await, whole_rows(&world, "acme").await), ((Some(1), Some(2)), 1));
}
