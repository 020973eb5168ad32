//! Edited, missing and renumbered migration files: refused before any tenant, so that a fleet keeps one schema a version.

use catalog::operations::OperationState;
use catalog::{ReleaseId, TenantState};
use control_plane::operations::{OperationParams, suspend};
use control_plane::plan::TenantSelection;
use control_plane::runner::submit::Submission;

use crate::invariants;
use crate::world::{DONE, On, TASKS, World, creating, files, migrating};

const EDITED: (&str, &str) = ("0001_tasks.sql", "create table tasks (id integer primary key, name text);\n");
const LATER: (&str, &str) = ("0003_later.sql", "create table later (id integer primary key);\n");
const BROKEN: (&str, &str) = ("0003_broken.sql", "insert into tasks (id) select id from tasks;\n");

async fn current(world: &World) -> Option<ReleaseId> {
    catalog::fleet::current_release(&mut world.app.catalog.read().await.unwrap()).await.unwrap()
}

/// Three tenants at the head of this set.
async fn three(on: On, set: &[(&str, &str)]) -> World {
    let world = World::on(on).await;
    world.migrate(set).await;
    world.create(&["acme", "globex", "initech"]).await;
    world
}

/// Refused, also in a dry run, with this code and these words; nothing was written.
async fn refused(world: &World, set: &[(&str, &str)], code: &str, words: &str) {
    let before = current(world).await;
    let dry = world.plan(migrating(set), TenantSelection::all_tenants()).await.unwrap_err();
    let run = world.run(migrating(set), TenantSelection::all_tenants()).await.unwrap_err();
    for error in [dry, run] {
        assert_eq!(error.code(), code, "{error}");
        assert!(error.detail.contains(words) && !error.next_steps.is_empty(), "{error}");
    }
    assert_eq!(current(world).await, before);
    for name in ["acme", "globex", "initech"] {
        assert_eq!(world.int(name, "select count(*) from _sqlx_migrations").await, 2, "{name}");
    }
}

async fn what_does_not_go_on_is_refused(on: On) {
    let world = three(on, &[TASKS, DONE]).await;
    let crlf = ("0001_tasks.sql", &*TASKS.1.replace('\n', "\r\n"));
    let space = ("0002_done.sql", &*format!("{} ", DONE.1));
    refused(&world, &[EDITED, DONE], "migration_changed", "3 of 3 tenants have applied: the file of version 1").await;
    refused(&world, &[crlf, DONE, LATER], "migration_changed", "version 1 was changed").await;
    refused(&world, &[TASKS, space], "migration_changed", "version 2 was changed").await;
    refused(&world, &[DONE, LATER], "migration_missing", "version 1 is missing (3 tenants: acme, globex, initech)")
        .await;
    let renumbered = ("0004_done.sql", DONE.1);
    refused(&world, &[TASKS, renumbered], "migration_missing", "version 2 is missing").await;
    refused(&world, &[TASKS], "migration_ahead", "version 2 is newer than the files").await;
    refused(&world, &[EDITED, LATER], "migration_changed", "the file of version 2 is missing").await;
    // Back to what it was: nothing to do, and nothing in the way of the next version.
    let again = world.migrate(&[TASKS, DONE]).await;
    assert_eq!((again.steps_total, again.steps_skipped), (0, 3));
    let described = ("0001_other_words.sql", TASKS.1);
    world.migrate(&[described, DONE, LATER]).await;
    world.create(&["hooli"]).await;
    assert_eq!(world.tenant("hooli").await.schema_version, Some(3));
    invariants::check(&world).await;
}

#[tokio::test]
async fn what_does_not_go_on_is_refused_on_sqlite() {
    what_does_not_go_on_is_refused(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_go_on_is_refused_on_postgres() {
    what_does_not_go_on_is_refused(On::postgres()).await;
}

/// The catalog names what the databases reached, and new tenants do not get what failed everywhere.
async fn a_failing_release(on: On) {
    let world = three(on, &[TASKS]).await;
    let old = current(&world).await;
    for name in ["acme", "globex", "initech"] {
        world.sql(name, "insert into tasks (id, title) values (1, 'x')").await;
    }
    let ended = world.run(migrating(&[TASKS, DONE, BROKEN]), TenantSelection::all_tenants()).await.unwrap();
    assert_eq!(ended.state, OperationState::Failed);
    for name in ["acme", "globex", "initech"] {
        let tenant = world.tenant(name).await;
        assert_eq!((tenant.schema_version, tenant.release_id), (Some(2), None), "{name}");
        assert_eq!(tenant.ledger_release_id, ended.release_id, "{name}");
        assert_eq!(world.int(name, "select max(version) from _sqlx_migrations").await, 2, "{name}");
    }
    assert_eq!(current(&world).await, old, "nothing of it succeeded");
    world.create(&["hooli"]).await;
    assert_eq!(world.tenant("hooli").await.schema_version, Some(1));
    // Of a version that was applied although its run failed the text counts, too.
    let edited = ("0002_done.sql", "alter table tasks add column finished integer;\n");
    let refused = world.run(migrating(&[TASKS, edited]), TenantSelection::all_tenants()).await.unwrap_err();
    assert!(refused.code() == "migration_changed" && refused.detail.contains("3 of 4"), "{refused}");
    // With one tenant that can go there, new ones do.
    world.sql("acme", "delete from tasks").await;
    let ended = world.run(migrating(&[TASKS, DONE, BROKEN]), TenantSelection::all_tenants()).await.unwrap();
    assert_eq!(ended.state, OperationState::Partial);
    assert_eq!(current(&world).await, ended.release_id);
    world.create(&["umbrella"]).await;
    assert_eq!(world.tenant("umbrella").await.schema_version, Some(3));
    invariants::check(&world).await;
}

#[tokio::test]
async fn the_catalog_follows_a_failing_release_on_sqlite() {
    a_failing_release(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_follows_a_failing_release_on_postgres() {
    a_failing_release(On::postgres()).await;
}

#[tokio::test]
async fn a_fleet_without_tenants_gets_its_first_release_and_one_of_read_only_tenants_does_not() {
    let world = World::new().await;
    let first = world.migrate(&[TASKS]).await;
    assert_eq!(current(&world).await, first.release_id);
    world.create(&["acme"]).await;
    let on = OperationParams::ReadOnly(control_plane::operations::read_only::ReadOnlyParams { on: true });
    world.succeed(on, TenantSelection::one_tenant("acme")).await;
    let ended = world.run(migrating(&[TASKS, DONE]), TenantSelection::all_tenants()).await.unwrap();
    assert_eq!((ended.state, ended.error_code.as_deref()), (OperationState::Failed, Some("nothing_done")));
    assert_eq!(current(&world).await, first.release_id);
}

#[tokio::test]
async fn what_was_made_current_during_a_run_stays() {
    let world = three(On::Sqlite, &[TASKS]).await;
    let old = current(&world).await.unwrap();
    let stored = |set: Vec<(&'static str, &'static str)>| {
        let files = files(&set);
        async move { tenant_engine::MigrationSets::from_files(&files).map(|sets| (sets, files)).unwrap() }
    };
    let (sets, other) = stored(vec![TASKS, LATER]).await;
    world.app.context.halt_at("migrate: applied");
    let submission = Submission::new(migrating(&[TASKS, DONE]), TenantSelection::all_tenants());
    let op = world.start(submission).await.unwrap();
    world.app.context.wait_until_halted().await;
    assert_eq!(current(&world).await, Some(old), "nothing has succeeded yet");
    let made = world.start(Submission::new(creating(&["hooli"]), TenantSelection::default())).await.unwrap();
    let mut tx = world.app.catalog.write().await.unwrap();
    let chosen = catalog::releases::ensure_release(&mut tx, &sets, &other, "test").await.unwrap().id;
    catalog::fleet::set_current_release(&mut tx, chosen).await.unwrap();
    tx.commit().await.unwrap();
    world.app.context.resume_halted();
    world.finish(op.id).await;
    world.finish(made.id).await;
    assert_eq!(current(&world).await, Some(chosen));
    assert_eq!(world.tenant("hooli").await.schema_version, Some(1), "it was made before the first success");
}

#[tokio::test]
async fn a_tenant_whose_release_is_not_known_is_looked_into() {
    let world = three(On::Sqlite, &[TASKS]).await;
    let mut tx = world.app.catalog.write().await.unwrap();
    let unknown = |name: catalog::TenantRecord| catalog::tenants::ReachedSchema {
        tenant: name.id,
        version: Some(1),
        release: None,
        ledger: None,
    };
    let reached = unknown(world.tenant("globex").await);
    catalog::tenants::set_schema_many(&mut tx, &[reached]).await.unwrap();
    tx.commit().await.unwrap();
    let edited = migrating(&[EDITED, DONE]);
    let refused = world.run(edited, TenantSelection::one_tenant("globex")).await.unwrap_err();
    assert!(refused.code() == "migration_changed" && refused.detail.contains("1 of 1"), "{refused}");
    world.migrate(&[TASKS, DONE]).await;
    assert_eq!(world.tenant("globex").await.schema_version, Some(2));
}

#[tokio::test]
async fn suspended_tenants_are_checked_and_migrated_like_the_others() {
    let world = three(On::Sqlite, &[TASKS]).await;
    world.succeed(OperationParams::Suspend(suspend::SuspendParams {}), TenantSelection::one_tenant("acme")).await;
    let refused = world.run(migrating(&[EDITED, DONE]), TenantSelection::all_tenants()).await.unwrap_err();
    assert!(refused.detail.contains("3 of 3"), "{refused}");
    world.migrate(&[TASKS, DONE]).await;
    let acme = world.tenant("acme").await;
    assert_eq!((acme.state, acme.schema_version), (TenantState::Suspended, Some(2)));
}

#[tokio::test]
async fn a_file_that_was_merged_late_is_applied_and_the_plan_says_so() {
    let world = three(On::Sqlite, &[TASKS, LATER]).await;
    let plan = world.plan(migrating(&[TASKS, DONE, LATER]), TenantSelection::all_tenants()).await.unwrap();
    assert!(plan.notes.iter().any(|note| note.contains("version 2 is older")), "{:?}", plan.notes);
    world.migrate(&[TASKS, DONE, LATER]).await;
    for name in ["acme", "globex"] {
        assert_eq!(world.int(name, "select count(*) from _sqlx_migrations").await, 3, "{name}");
    }
    invariants::check(&world).await;
}
