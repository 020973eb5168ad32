//! restore and its undo

use catalog::OperationId;
use catalog::operations::OperationState;
use control_plane::operations::restore::{self, RestorePoint};
use control_plane::operations::{OperationParams, r#move, read_only, settle, verify};
use control_plane::plan::TenantSelection;
use control_plane::runner::control::OperationControl;
use control_plane::runner::submit::Submission;

use crate::invariants;
use crate::world::{DONE, TASKS, World, backing_up, caller, deleting, restoring, undoing};

/// Two tenants with colliding keys and a value of their own each.
async fn two_tenants() -> World {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme", "globex"]).await;
    for name in ["acme", "globex"] {
        world.sql(name, &format!("insert into tasks (id, title) values (1, 'canary of {name}')")).await;
    }
    world
}

fn acme() -> TenantSelection {
    TenantSelection::one_tenant("acme")
}

/// To the tenant's own schema.
fn forward() -> OperationParams {
    OperationParams::Restore(restore::RestoreParams {
        to: RestorePoint::Latest,
        as_name: None,
        schema: restore::RestoredSchema::Current,
        resolved: None,
    })
}

async fn canary(world: &World, name: &str, whose: &str) -> i64 {
    world.int(name, &format!("select count(*) from tasks where id = 1 and title = 'canary of {whose}'")).await
}

#[tokio::test]
async fn a_damaged_tenant_comes_back_under_its_name() {
    let world = two_tenants().await;
    world.backup("acme").await;
    for (what, spoil) in [("garbage", Some("garbage")), ("empty", Some("")), ("missing", None)] {
        let file = world.file("acme").await;
        match spoil {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        world.succeed(restoring(RestorePoint::Latest), acme()).await;
        assert_eq!(canary(&world, "acme", "acme").await, 1, "{what}");
        world.sql("acme", "insert into tasks (title) values ('writes work')").await;
        invariants::check(&world).await;
        // What cannot be read cannot come back by itself.
        assert_eq!(world.run(undoing(), acme()).await.unwrap_err().code(), "nothing_to_undo", "{what}");
    }
    assert_eq!(canary(&world, "globex", "globex").await, 1);
}

#[tokio::test]
async fn an_undo_brings_back_what_was_replaced_and_can_be_undone() {
    let world = two_tenants().await;
    world.backup("acme").await;
    world.sql("acme", "insert into tasks (title) values ('after the backup')").await;
    let before = world.tenant("acme").await.generation;
    let ended = world.succeed(restoring(RestorePoint::Latest), acme()).await;
    assert_eq!(world.int("acme", "select count(*) from tasks").await, 1);
    assert_eq!(world.tenant("acme").await.generation.0, before.0 + 2);
    let facts: serde_json::Value = serde_json::from_str(&world.steps(ended.id, &[]).await[0].0.facts).unwrap();
    assert!(facts["frozen_ms"].is_i64() && facts["undo_until"].is_i64(), "{facts}");
    world.succeed(undoing(), acme()).await;
    assert_eq!(world.int("acme", "select count(*) from tasks").await, 2);
    invariants::check(&world).await;
    world.succeed(undoing(), acme()).await;
    assert_eq!(world.int("acme", "select count(*) from tasks").await, 1);
    world.sql("acme", "insert into tasks (title) values ('writes work')").await;
    invariants::check(&world).await;
}

#[tokio::test]
async fn an_older_backup_is_brought_forward_to_where_the_tenant_is() {
    let world = two_tenants().await;
    world.backup("acme").await;
    world.migrate(&[TASKS, DONE]).await;
    world.succeed(forward(), acme()).await;
    assert_eq!(world.tenant("acme").await.schema_version, Some(2));
    assert_eq!(world.int("acme", "select count(*) from tasks where done = 0").await, 1);
    let again = world.migrate(&[TASKS, DONE]).await;
    assert_eq!(again.steps_total, 0);
    invariants::check(&world).await;
}

#[tokio::test]
async fn a_point_in_time_is_the_newest_backup_at_or_before_it() {
    let world = two_tenants().await;
    let before_all = world.now();
    world.backup("acme").await;
    let between = world.now();
    world.sql("acme", "insert into tasks (title) values ('second')").await;
    world.backup("acme").await;
    world.sql("acme", "delete from tasks").await;
    assert_eq!(
        world.run(restoring(RestorePoint::At(before_all)), acme()).await.unwrap_err().code(),
        "backup_not_found"
    );
    world.succeed(restoring(RestorePoint::At(between)), acme()).await;
    assert_eq!(world.int("acme", "select count(*) from tasks").await, 1);
    world.succeed(restoring(RestorePoint::At(world.now())), acme()).await;
    assert_eq!(world.int("acme", "select count(*) from tasks").await, 2);
    invariants::check(&world).await;
}

#[tokio::test]
async fn a_copy_is_a_tenant_of_its_own() {
    let world = two_tenants().await;
    world.backup("acme").await;
    let params = |name: &str| {
        OperationParams::Restore(restore::RestoreParams {
            to: RestorePoint::Latest,
            as_name: Some(name.to_owned()),
            schema: restore::RestoredSchema::Backup,
            resolved: None,
        })
    };
    world.succeed(params("copy"), acme()).await;
    assert_eq!(canary(&world, "copy", "acme").await, 1);
    world.sql("copy", "delete from tasks").await;
    assert_eq!(canary(&world, "acme", "acme").await, 1);
    assert_ne!(world.tenant("copy").await.id, world.tenant("acme").await.id);
    assert_eq!(world.run(params("globex"), acme()).await.unwrap_err().code(), "already_exists");
    assert_eq!(world.run(params(".."), acme()).await.unwrap_err().code(), "invalid");
    // The copy's own backups are its own.
    world.backup("copy").await;
    world.succeed(restoring(RestorePoint::Latest), TenantSelection::one_tenant("copy")).await;
    invariants::check(&world).await;
}

#[tokio::test]
async fn another_tenants_backup_is_refused_wherever_the_mix_up_is() {
    let world = two_tenants().await;
    let (mine, theirs) = (world.backup("acme").await, world.backup("globex").await);
    // Named outright.
    let error = world.run(restoring(RestorePoint::Backup(theirs.id)), acme()).await.unwrap_err();
    assert_eq!(error.code(), "wrong_tenant_backup");
    // Their objects under my keys: the manifest says so.
    let object = |key: &str| world.object(&key.replace(".manifest.json", ".db.zst"));
    std::fs::copy(object(&theirs.object_key), object(&mine.object_key)).unwrap();
    let ended = world.run(restoring(RestorePoint::Latest), acme()).await.unwrap();
    assert_eq!(world.failure(&ended).await, "backup_damaged");
    // A manifest forged to fit their bytes: this fleet did not write it.
    let read = |key: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(world.object(key)).unwrap()).unwrap()
    };
    let (mut forged, real) = (read(&mine.object_key), read(&theirs.object_key));
    forged["image"] = real["image"].clone();
    for field in ["size_bytes", "sha256"] {
        forged["object"][field] = real["object"][field].clone();
    }
    std::fs::write(world.object(&mine.object_key), forged.to_string()).unwrap();
    let ended = world.run(restoring(RestorePoint::Latest), acme()).await.unwrap();
    let code = world.failure(&ended).await;
    assert!(["backup_damaged", "backup_not_authentic"].contains(&code.as_str()), "{code}");
    assert_eq!(canary(&world, "acme", "acme").await, 1);
    invariants::check(&world).await;
}

#[tokio::test]
async fn a_damaged_backup_changes_nothing() {
    let world = two_tenants().await;
    let backup = world.backup("acme").await;
    let before = world.tenant("acme").await;
    let object = world.object(&backup.object_key.replace(".manifest.json", ".db.zst"));
    let whole = std::fs::read(&object).unwrap();
    let mut flipped = whole.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 0x40;
    for bytes in [&whole[..whole.len() / 3], &[][..], &flipped[..]] {
        std::fs::write(&object, bytes).unwrap();
        let ended = world.run(restoring(RestorePoint::Latest), acme()).await.unwrap();
        assert_eq!(world.failure(&ended).await, "backup_damaged");
        let now = world.tenant("acme").await;
        assert_eq!((now.generation, now.placement), (before.generation, before.placement.clone()));
        invariants::check(&world).await;
    }
    std::fs::write(&object, whole).unwrap();
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
}

#[tokio::test]
async fn violations_that_were_there_do_not_block_a_restore() {
    let world = World::new().await;
    let tables = (
        "0001_tables.sql",
        "create table owners (id integer primary key);\n\
         create table things (id integer primary key, owner integer references owners (id));\n",
    );
    world.migrate(&[tables]).await;
    world.create(&["acme"]).await;
    // As an application left it that never switched foreign keys on.
    let file = rusqlite::Connection::open(world.file("acme").await).unwrap();
    file.execute_batch("pragma foreign_keys = off; insert into things (owner) values (7)").unwrap();
    drop(file);
    let backup = world.backup("acme").await;
    let manifest = world.app.backup_manifest(&backup).await.unwrap();
    assert_eq!(manifest["foreign_key_violations"], 1);
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    assert_eq!(world.int("acme", "select owner from things").await, 7);
    // What the manifest admits to cannot be changed afterwards.
    let mut forged = manifest;
    forged["foreign_key_violations"] = 0.into();
    std::fs::write(world.object(&backup.object_key), forged.to_string()).unwrap();
    let ended = world.run(restoring(RestorePoint::Latest), acme()).await.unwrap();
    assert_eq!(world.failure(&ended).await, "backup_not_authentic");
    invariants::check(&world).await;
}

#[tokio::test]
async fn one_tenant_is_restored_at_a_time_and_must_exist() {
    let world = two_tenants().await;
    world.succeed(backing_up(), TenantSelection::all_tenants()).await;
    assert_eq!(
        world.run(restoring(RestorePoint::Latest), TenantSelection::all_tenants()).await.unwrap_err().code(),
        "invalid"
    );
    assert_eq!(
        world.run(restoring(RestorePoint::Latest), TenantSelection::one_tenant("nobody")).await.unwrap_err().code(),
        "not_found"
    );
    let unknown = catalog::BackupId::generate();
    assert_eq!(
        world.run(restoring(RestorePoint::Backup(unknown)), acme()).await.unwrap_err().code(),
        "backup_not_found"
    );
    let verify = OperationParams::Verify(verify::VerifyParams { backups: vec![unknown] });
    assert_eq!(world.run(verify, TenantSelection::default()).await.unwrap_err().code(), "backup_not_found");
}

#[tokio::test]
async fn a_dry_run_says_what_would_come_back() {
    let world = two_tenants().await;
    let backup = world.backup("acme").await;
    let plan = world.plan(restoring(RestorePoint::Latest), acme()).await.unwrap();
    assert!(plan.sample[0].action.contains(&backup.id.to_string()), "{plan:?}");
    assert_eq!(world.tenant("acme").await.op_id, None);
}

#[tokio::test]
async fn a_migration_that_cannot_follow_stops_the_restore_before_the_swap() {
    let world = two_tenants().await;
    world.sql("acme", "insert into tasks (id, title) values (2, 'canary of acme')").await;
    world.backup("acme").await;
    world.sql("acme", "delete from tasks where id = 2").await;
    let unique = ("0002_unique.sql", "create unique index tasks_title on tasks (title);\n");
    world.migrate(&[TASKS, unique]).await;
    let ended = world.run(forward(), acme()).await.unwrap();
    assert_eq!(ended.state, OperationState::Failed);
    assert_eq!(world.failure(&ended).await, "migration_failed");
    assert_eq!(world.int("acme", "select count(*) from tasks").await, 1);
    invariants::check(&world).await;
}

#[tokio::test]
async fn when_the_new_database_is_lost_at_the_last_moment_the_current_one_serves_again() {
    let world = two_tenants().await;
    world.backup("acme").await;
    world.sql("acme", "insert into tasks (title) values ('later')").await;
    world.app.context.halt_at("build: activates");
    let started = world.start(Submission::new(restoring(RestorePoint::Latest), acme())).await.unwrap();
    world.app.context.wait_until_halted().await;
    // Fenced now: reads go on, writes do not.
    assert!(world.tenant("acme").await.block_writes.is_some());
    let current = world.file("acme").await;
    let new = std::fs::read_dir(current.parent().unwrap()).unwrap().map(|file| file.unwrap().path());
    let new: Vec<_> = new.filter(|path| !path.to_string_lossy().starts_with(&*current.to_string_lossy())).collect();
    assert!(!new.is_empty());
    for path in new {
        std::fs::remove_file(path).unwrap();
    }
    let world = world.crash().await;
    let ended = world.finish(started.id).await;
    assert_eq!(world.failure(&ended).await, "database_missing");
    assert_eq!(world.int("acme", "select count(*) from tasks").await, 2);
    world.sql("acme", "insert into tasks (title) values ('writes work')").await;
    invariants::check(&world).await;
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
}

#[tokio::test]
async fn a_restore_cancelled_behind_its_fence_leaves_a_reason_and_a_way_out() {
    let world = two_tenants().await;
    world.backup("acme").await;
    world.app.context.halt_at("build: activates");
    let started = world.start(Submission::new(restoring(RestorePoint::Latest), acme())).await.unwrap();
    world.app.context.wait_until_halted().await;
    let world = world.crash().await;
    world
        .app
        .runner
        .control_operation(&caller(), started.id, OperationControl::Cancel, Some("changed my mind"))
        .await
        .unwrap();
    assert_eq!(world.finish(started.id).await.state, OperationState::Cancelled);
    let tenant = world.tenant("acme").await;
    assert!(tenant.block_writes.is_some() && tenant.state_reason.unwrap().contains("restore"));
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    assert_eq!(canary(&world, "acme", "acme").await, 1);
    world.sql("acme", "insert into tasks (title) values ('writes work')").await;
}

#[tokio::test]
async fn what_a_cancelled_operation_left_fenced_is_settled() {
    for (params, point) in [
        (restoring(RestorePoint::Latest), "restore: frozen"),
        (restoring(RestorePoint::Latest), "build: activates"),
        (deleting(), "delete: stamped"),
    ] {
        let world = two_tenants().await;
        world.backup("acme").await;
        world.sql("acme", "insert into tasks (title) values ('after the backup')").await;
        let world = cancelled_at(world, params, point).await;
        assert!(world.try_sql("acme", "insert into tasks (title) values ('no')").await.is_err(), "{point}");
        let mut tx = world.app.catalog.read().await.unwrap();
        let left = catalog::tenants::unsettled_tenants(&mut tx, 0, 10).await.unwrap();
        drop(tx);
        assert_eq!(left, [world.tenant("acme").await.id], "the control plane finds it by itself: {point}");
        world.succeed(OperationParams::Settle(settle::SettleParams::default()), acme()).await;
        assert_eq!(world.int("acme", "select count(*) from tasks where title = 'after the backup'").await, 1);
        world.sql("acme", "insert into tasks (title) values ('writes work')").await;
        let mut tx = world.app.catalog.read().await.unwrap();
        assert!(catalog::tenants::unsettled_tenants(&mut tx, 0, 10).await.unwrap().is_empty(), "once is enough");
    }
}

#[tokio::test]
async fn a_block_of_an_operator_outlives_an_operation_that_died_behind_its_own() {
    let world = two_tenants().await;
    world.add_other().await;
    world.succeed(OperationParams::ReadOnly(read_only::ReadOnlyParams { on: true }), acme()).await;
    let reason = world.tenant("acme").await.state_reason;
    let moving = OperationParams::Move(r#move::MoveParams { to: Some("other".to_owned()), ..Default::default() });
    let world = cancelled_at(world, moving, "move: filled").await;
    world.succeed(OperationParams::Settle(settle::SettleParams::default()), acme()).await;
    let tenant = world.tenant("acme").await;
    assert_eq!((tenant.block_writes, tenant.state_reason), (Some(catalog::BlockWrites::Operator), reason));
    assert!(world.try_sql("acme", "insert into tasks (title) values ('no')").await.is_err());
    assert_eq!(world.int("acme", "select count(*) from tasks").await, 1);
}

#[tokio::test]
async fn an_operation_that_finds_the_tenant_deleted_does_nothing() {
    let world = two_tenants().await;
    world.backup("acme").await;
    world.app.context.halt_at("delete: proved");
    let deleting = world.start(Submission::new(deleting(), acme())).await.unwrap();
    world.app.context.wait_until_halted().await;
    let world = world.crash().await;
    // Accepted while the tenant still is active, and run when it is no more.
    let restoring = world.start(Submission::new(restoring(RestorePoint::Latest), acme())).await.unwrap();
    assert_eq!(world.finish(deleting.id).await.state, OperationState::Succeeded);
    let ended = world.finish(restoring.id).await;
    if ended.state == OperationState::Failed {
        assert_eq!(world.tenant("acme").await.state, catalog::TenantState::Deleted);
    }
    invariants::check(&world).await;
}

/// Ends the process at a point of an operation, and cancels the operation before anybody takes its step over.
async fn cancelled_at(world: World, params: OperationParams, point: &'static str) -> World {
    world.app.context.halt_at(point);
    let started = world.start(Submission::new(params, acme())).await.unwrap();
    world.app.context.wait_until_halted().await;
    let world = world.crash().await;
    world.app.runner.control_operation(&caller(), started.id, OperationControl::Cancel, None).await.unwrap();
    assert_eq!(world.finish(started.id).await.state, OperationState::Cancelled);
    world
}

#[tokio::test]
async fn what_a_dead_operation_stamped_ahead_of_the_catalog_is_not_lost() {
    for (params, point) in [(restoring(RestorePoint::Latest), "restore: frozen"), (deleting(), "delete: stamped")] {
        let world = two_tenants().await;
        world.backup("acme").await;
        world.sql("acme", "insert into tasks (title) values ('after the backup')").await;
        let world = cancelled_at(world, params, point).await;
        // The database is a step ahead of the catalog: it is not served, and a restore is the way out.
        world.succeed(restoring(RestorePoint::Latest), acme()).await;
        world.sql("acme", "insert into tasks (title) values ('writes work')").await;
        world.succeed(undoing(), acme()).await;
        assert_eq!(
            world.int("acme", "select count(*) from tasks where title = 'after the backup'").await,
            1,
            "{point}"
        );
        world.sql("acme", "insert into tasks (title) values ('writes work')").await;
    }
}

#[tokio::test]
async fn an_undo_cancelled_after_its_stamp_can_be_done_again() {
    let world = two_tenants().await;
    world.backup("acme").await;
    world.sql("acme", "insert into tasks (title) values ('after the backup')").await;
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    let world = cancelled_at(world, undoing(), "build: stamped").await;
    world.succeed(undoing(), acme()).await;
    assert_eq!(world.int("acme", "select count(*) from tasks where title = 'after the backup'").await, 1);
    world.sql("acme", "insert into tasks (title) values ('writes work')").await;
    invariants::check(&world).await;
}

#[tokio::test]
async fn when_the_kept_database_is_lost_at_the_last_moment_the_current_one_serves_again() {
    let world = two_tenants().await;
    world.backup("acme").await;
    let kept = world.file("acme").await;
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    world.sql("acme", "insert into tasks (title) values ('later')").await;
    world.app.context.halt_at("build: activates");
    let started = world.start(Submission::new(undoing(), acme())).await.unwrap();
    world.app.context.wait_until_halted().await;
    std::fs::remove_file(kept).unwrap();
    let world = world.crash().await;
    let ended = world.finish(started.id).await;
    assert_eq!(world.failure(&ended).await, "database_missing");
    assert_eq!(world.int("acme", "select count(*) from tasks where title = 'later'").await, 1);
    world.sql("acme", "insert into tasks (title) values ('writes work')").await;
}

/// A move that has activated the copy, and whose destination takes no tenants any more.
async fn about_to_give_up() -> (World, OperationId) {
    let world = two_tenants().await;
    world.add_other().await;
    let moving = OperationParams::Move(r#move::MoveParams { to: Some("other".to_owned()), ..Default::default() });
    world.app.context.halt_at("build: stamped");
    let started = world.start(Submission::new(moving, acme())).await.unwrap();
    world.app.context.wait_until_halted().await;
    world.set_state("other", catalog::ServerState::Cordoned).await;
    (world.crash().await, started.id)
}

#[tokio::test]
async fn a_swap_that_is_given_up_thaws_through_crashes_and_keeps_what_was_activated() {
    for point in ["thaw: claimed", "thaw: stamped", "record: begins", "record: committed"] {
        let (world, op) = about_to_give_up().await;
        world.app.context.halt_at(point);
        tokio::select! {
            _ = world.finish(op) => panic!("{point} was not met"),
            _ = world.app.context.wait_until_halted() => {}
        }
        let world = world.crash().await;
        let ended = world.finish(op).await;
        assert_eq!(world.failure(&ended).await, "server_cordoned", "{point}");
        assert_eq!(canary(&world, "acme", "acme").await, 1, "{point}");
        world.sql("acme", "insert into tasks (title) values ('writes work')").await;
        let id = world.tenant("acme").await.id;
        let kept = catalog::retained::of_tenant(&mut world.app.catalog.read().await.unwrap(), id).await.unwrap();
        let kept: Vec<(&str, bool)> = kept.iter().map(|k| (k.reason.as_str(), k.keep_until > world.now())).collect();
        assert_eq!(kept, [("given_up", true)], "{point}");
        invariants::check(&world).await;
    }
}

#[tokio::test]
async fn a_move_that_was_given_up_begins_anew_when_it_is_retried() {
    let (world, op) = about_to_give_up().await;
    let ended = world.finish(op).await;
    assert_eq!(world.failure(&ended).await, "server_cordoned");
    world.set_state("other", catalog::ServerState::Active).await;
    world.app.runner.control_operation(&caller(), op, OperationControl::Retry, None).await.unwrap();
    assert_eq!(world.finish(op).await.state, OperationState::Succeeded);
    assert_eq!(canary(&world, "acme", "acme").await, 1);
    world.sql("acme", "insert into tasks (title) values ('writes work')").await;
    invariants::check(&world).await;
}
