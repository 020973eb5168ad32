//! Files whose text alone shows that no database can run them: refused before the first tenant, and all at once.

use catalog::{ReleaseId, TenantRecord};
use control_plane::operations::{OperationParams, migrate};
use control_plane::plan::TenantSelection;
use tenant_engine::MigrationSets;

use crate::world::{DONE, On, TASKS, World, files, migrating};

/// One text for each rule, with a word of its reason.
const SQLITE: [(&str, &str); 11] = [
    ("rollback;", "ROLLBACK TO"),
    ("attach '/x' as y;", "ATTACH"),
    ("detach y;", "DETACH"),
    ("vacuum;", "no-transaction"),
    ("delete from _sqlx_migrations;", "belongs to the engine"),
    ("alter table tasks rename to _fleet_tasks;", "belongs to the engine"),
    ("pragma journal_mode = delete;", "set by the engine"),
    ("select load_extension('x');", "extensions"),
    ("insert into tasks (title) values (?);", "no parameters"),
    ("explain commit; explain begin;", "cannot be ended"),
    ("selec 1;", "syntax error"),
];
const POSTGRES: [(&str, &str); 9] = [
    ("rollback;", "ROLLBACK TO"),
    ("prepare transaction 'x';", "cannot be prepared"),
    ("set role x;", "fleet_owner"),
    ("copy tasks from stdin;", "psql"),
    ("copy tasks to stdout;", "TO STDOUT"),
    ("\\restrict x\n", "command of psql"),
    ("delete from _sqlx_migrations;", "belongs to the engine"),
    ("drop table _fleet_identity;", "belongs to the engine"),
    ("create index concurrently i on tasks(title);", "no-transaction"),
];

/// Two bad files around a good one: both are named, with line and cause, and nobody was touched.
async fn is_refused(world: &World, bad: &str, why: &str) {
    let text = format!("select 1;\n{bad}");
    let set = [TASKS, ("0002_bad.sql", &text), ("0003_good.sql", "select 1;"), ("0004_bad.sql", bad)];
    let dry = world.plan(migrating(&set), TenantSelection::all_tenants()).await.unwrap_err();
    let run = world.run(migrating(&set), TenantSelection::one_tenant("acme")).await.unwrap_err();
    for error in [dry, run] {
        assert_eq!(
            (error.code(), control_plane::http::status_of(&error.kind).as_u16()),
            ("migration_refused", 422),
            "{bad}: {error}"
        );
        let [first, last] = &error.items[..] else { panic!("{bad}: {:?}", error.items) };
        assert_eq!((first.name.as_str(), last.name.as_str()), ("0002_bad.sql", "0004_bad.sql"));
        assert!(first.detail.contains("line 2: ") && first.detail.contains(why), "{bad}: {first:?}");
        assert!(last.detail.contains("line 1: "), "{bad}: {last:?}");
    }
    assert_eq!(world.int("acme", "select count(*) from _sqlx_migrations").await, 1, "{bad}");
}

/// A release as the version before may have stored it.
async fn stored(world: &World, set: &[(&str, &str)]) -> ReleaseId {
    let (files, mut tx) = (files(set), world.app.catalog.write().await.unwrap());
    let sets = MigrationSets::from_files(&files).unwrap();
    let release = catalog::releases::ensure_release(&mut tx, &sets, &files, "before").await.unwrap();
    tx.commit().await.unwrap();
    release.id
}

async fn has_applied(world: &World, tenant: &TenantRecord, release: ReleaseId, version: i64) {
    let mut tx = world.app.catalog.write().await.unwrap();
    let reached = catalog::tenants::ReachedSchema {
        tenant: tenant.id,
        version: Some(version),
        release: Some(release),
        ledger: Some(release),
    };
    catalog::tenants::set_schema_many(&mut tx, &[reached]).await.unwrap();
    tx.commit().await.unwrap();
}

async fn what_is_pending_decides(world: &World) {
    let old = [TASKS, ("0002_old.sql", "select 1;\nrollback;")];
    let release = stored(world, &old).await;
    let to = |target| {
        OperationParams::Migrate(migrate::MigrateParams {
            target,
            ..migrate::MigrateParams::to_head(migrate::ReleaseSource::Id(release))
        })
    };
    let error = world.run(to(None), TenantSelection::all_tenants()).await.unwrap_err();
    assert_eq!(error.code(), "migration_refused", "{error}");
    assert!(error.detail.contains("0002_old.sql, line 2"), "{error}");
    assert!(world.plan(to(Some(1)), TenantSelection::all_tenants()).await.is_ok(), "the target comes before it");
    has_applied(world, &world.tenant("acme").await, release, 2).await;
    let next = migrating(&[old[0], old[1], ("0003_next.sql", "select 1;")]);
    assert!(world.plan(next.clone(), TenantSelection::one_tenant("acme")).await.is_ok(), "it has applied that file");
    let error = world.plan(next, TenantSelection::all_tenants()).await.unwrap_err();
    assert_eq!(error.code(), "migration_refused", "globex has not: {error}");
}

async fn a_fleet_refuses(on: On, rules: &[(&str, &str)]) {
    let world = World::on(on).await;
    let empty = world
        .plan(migrating(&[TASKS, ("0002_bad.sql", "rollback;")]), TenantSelection::all_tenants())
        .await
        .unwrap_err();
    assert_eq!(empty.code(), "migration_refused", "without tenants: {empty}");
    world.migrate(&[TASKS]).await;
    world.create(&["acme", "globex"]).await;
    for (bad, why) in rules {
        is_refused(&world, bad, why).await;
    }
    what_is_pending_decides(&world).await;
}

#[tokio::test]
async fn a_text_that_sqlite_refuses_is_refused_before_the_first_tenant() {
    a_fleet_refuses(On::Sqlite, &SQLITE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_postgres_refuses_is_refused_before_the_first_tenant() {
    a_fleet_refuses(On::postgres(), &POSTGRES).await;
}

#[tokio::test]
async fn a_file_that_is_good_for_one_engine_stops_the_tenants_of_the_other_only() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    let copies = ("0002_copy.sql", "insert into tasks (title) values ('copy x from stdin');");
    assert!(
        world
            .plan(migrating(&[TASKS, copies, ("0003_done.sql", DONE.1)]), TenantSelection::all_tenants())
            .await
            .is_ok()
    );
    let dumped = ("0002_role.sql", "reset role;");
    let error = world.plan(migrating(&[TASKS, dumped]), TenantSelection::all_tenants()).await.unwrap_err();
    assert!(error.detail.contains("syntax error"), "SQLite's own reason: {error}");
}
