//! migrate

use catalog::operations::OperationState;
use catalog::steps::StepState;
use control_plane::operations::{OperationParams, migrate};
use control_plane::plan::TenantSelection;
use control_plane::runner::control::OperationControl;

use crate::invariants;
use crate::world::{DONE, TASKS, World, caller, files, migrating};

#[tokio::test]
async fn a_fleet_goes_to_the_head_and_new_tenants_start_there() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme", "globex"]).await;
    let ended = world.migrate(&[TASKS, DONE]).await;
    assert_eq!((ended.steps_total, ended.steps_skipped), (2, 0));
    world.create(&["initech"]).await;
    for name in ["acme", "globex", "initech"] {
        assert_eq!(world.tenant(name).await.schema_version, Some(2), "{name}");
        world.sql(name, "insert into tasks (title, done) values ('x', 1)").await;
    }
    let again = world.migrate(&[TASKS, DONE]).await;
    assert_eq!((again.steps_total, again.steps_skipped), (0, 3));
    invariants::check(&world).await;
}

#[tokio::test]
async fn three_of_many_fail_and_only_they_are_done_again() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    let names: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.create(&names).await;
    let bad = ["t7", "t42", "t99"];
    for name in bad {
        world.sql(name, "insert into tasks (id, title) values (1, 'same'), (2, 'same')").await;
    }
    let unique = ("0002_unique.sql", "create unique index tasks_title on tasks (title);\n");
    let ended = world.run(migrating(&[TASKS, unique]), TenantSelection::all_tenants()).await.unwrap();
    assert_eq!(ended.state, OperationState::Partial);
    let failed = world.steps(ended.id, &[StepState::Failed]).await;
    let mut told: Vec<&str> = failed.iter().map(|(_, name)| name.as_str()).collect();
    told.sort_unstable();
    assert_eq!(told, ["t42", "t7", "t99"]);
    for (step, _) in &failed {
        assert_eq!(step.error_code.as_deref(), Some("migration_failed"));
        let error = step.error.as_deref().unwrap();
        assert!(error.contains('2') && error.contains("UNIQUE"), "{error}");
    }
    assert_eq!(world.tenant("t7").await.schema_version, Some(1));
    invariants::check(&world).await;
    for name in bad {
        world.sql(name, "delete from tasks where id = 2").await;
    }
    let again = world.migrate(&[TASKS, unique]).await;
    assert_eq!((again.steps_total, again.steps_skipped), (3, 97));
    invariants::check(&world).await;
}

#[tokio::test]
async fn failed_steps_can_be_retried_in_place() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    world.sql("acme", "insert into tasks (id, title) values (1, 'same'), (2, 'same')").await;
    let unique = ("0002_unique.sql", "create unique index tasks_title on tasks (title);\n");
    let ended = world.run(migrating(&[TASKS, unique]), TenantSelection::all_tenants()).await.unwrap();
    assert_eq!(ended.state, OperationState::Failed);
    world.sql("acme", "delete from tasks where id = 2").await;
    world.app.runner.control_operation(&caller(), ended.id, OperationControl::Retry, None).await.unwrap();
    assert_eq!(world.finish(ended.id).await.state, OperationState::Succeeded);
    invariants::check(&world).await;
}

#[tokio::test]
async fn each_misfit_between_files_and_database_has_its_own_error() {
    let world = World::new().await;
    world.migrate(&[TASKS, DONE]).await;
    world.create(&["acme"]).await;
    let changed = ("0002_done.sql", "alter table tasks add column finished integer;\n");
    let later = ("0003_later.sql", "create table later (id integer primary key);\n");
    for (set, code) in [
        (vec![TASKS], "migration_ahead"),
        (vec![TASKS, changed], "migration_changed"),
        (vec![TASKS, later], "migration_missing"),
    ] {
        let refused = world.run(migrating(&set), TenantSelection::one_tenant("acme")).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    assert_eq!(world.tenant("acme").await.schema_version, Some(2));
    invariants::check(&world).await;
}

#[tokio::test]
async fn a_target_stops_before_the_head_and_does_not_move_the_fleet() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    let three = ("0003_three.sql", "create table three (id integer primary key);\n");
    let to = |target| {
        OperationParams::Migrate(migrate::MigrateParams {
            target: Some(target),
            ..migrate::MigrateParams::to_head(migrate::ReleaseSource::Files(files(&[TASKS, DONE, three])))
        })
    };
    world.succeed(to(2), TenantSelection::all_tenants()).await;
    assert_eq!(world.tenant("acme").await.schema_version, Some(2));
    world.create(&["globex"]).await;
    assert_eq!(world.tenant("globex").await.schema_version, Some(1));
    assert_eq!(world.run(to(7), TenantSelection::all_tenants()).await.unwrap_err().code(), "invalid");
}

#[tokio::test]
async fn a_set_that_builds_no_empty_database_does_not_become_current() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    let broken = ("0002_broken.sql", "insert into missing values (1);\n");
    let plan = world.plan(migrating(&[TASKS, broken]), TenantSelection::all_tenants()).await.unwrap();
    assert!(plan.notes[0].contains("new tenants will not start"), "{:?}", plan.notes);
    let ended = world.run(migrating(&[TASKS, broken]), TenantSelection::all_tenants()).await.unwrap();
    assert_eq!(ended.state, OperationState::Failed);
    world.create(&["globex"]).await;
    assert_eq!(world.tenant("globex").await.schema_version, Some(1));
}

#[tokio::test]
async fn looking_at_every_database_finds_what_the_catalog_does_not_know() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    let every = || {
        OperationParams::Migrate(migrate::MigrateParams {
            look: migrate::StepCoverage::Every,
            ..migrate::MigrateParams::to_head(migrate::ReleaseSource::Files(files(&[TASKS])))
        })
    };
    let ended = world.succeed(every(), TenantSelection::all_tenants()).await;
    assert_eq!((ended.steps_total, ended.steps_skipped), (1, 0));
    std::fs::write(world.file("acme").await, "not a database").unwrap();
    let ended = world.run(every(), TenantSelection::all_tenants()).await.unwrap();
    assert_eq!(world.steps(ended.id, &[]).await[0].0.error_code.as_deref(), Some("database_corrupt"));
}

#[tokio::test]
async fn selections_are_explicit_and_counted() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme", "globex"]).await;
    let set = || migrating(&[TASKS, DONE]);
    assert_eq!(world.run(set(), TenantSelection::default()).await.unwrap_err().code(), "selection_empty");
    assert_eq!(world.run(set(), TenantSelection::one_tenant("nobody")).await.unwrap_err().code(), "not_found");
    let mut counted = control_plane::runner::submit::Submission::new(set(), TenantSelection::all_tenants());
    counted.expect_count = Some(3);
    assert_eq!(world.start(counted).await.unwrap_err().code(), "count_mismatch");
    assert_eq!(world.tenant("acme").await.schema_version, Some(1));
}

#[tokio::test]
async fn a_release_that_no_database_can_be_made_with_fails_where_there_is_no_tenant() {
    let world = World::new().await;
    let wrong = migrating(&[TASKS, ("0002_wrong.sql", "alter table missing add column note text;\n")]);
    let ended = world.run(wrong.clone(), TenantSelection::all_tenants()).await.unwrap();
    assert_eq!((ended.state, ended.error_code.as_deref()), (OperationState::Failed, Some("migration_failed")));
    assert!(ended.error.as_deref().unwrap().contains("missing"), "{ended:?}");
    assert_eq!(catalog::fleet::current_release(&mut world.app.catalog.read().await.unwrap()).await.unwrap(), None);
    let ended = world.run(migrating(&[TASKS]), TenantSelection::all_tenants()).await.unwrap();
    assert_eq!((ended.state, ended.steps_total), (OperationState::Succeeded, 0));
}
