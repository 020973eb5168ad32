//! A fleet whose first release names its ledger: each operation keeps the name, and another one is refused before
//! anything is touched.

use catalog::TenantState;
use control_plane::operations::{OperationParams, adopt, archive, clone, r#move, restore, unarchive};
use control_plane::plan::TenantSelection;
use tenant_engine::MigrationSets;

use crate::world::{DONE, On, TASKS, World, deleting, files, migrating, restoring};

const OPS: (&str, &str) = ("sqlx.toml", "[migrate]\ntable-name = \"public.ops\"\n");
const THIRD: (&str, &str) = ("0003_third.sql", "insert into tasks (id, title) values (3, 'once');\n");

fn acme() -> TenantSelection {
    TenantSelection::one_tenant("acme")
}

async fn applied(world: &World, name: &str) -> i64 {
    world.int(name, "select count(*) from ops where success").await
}

async fn is_refused(world: &World, set: &[(&str, &str)], next: &str) {
    let dry = world.plan(migrating(set), TenantSelection::all_tenants()).await.unwrap_err();
    let run = world.run(migrating(set), TenantSelection::all_tenants()).await.unwrap_err();
    for error in [dry, run] {
        assert_eq!(
            (error.code(), control_plane::http::status_of(&error.kind).as_u16()),
            ("ledger_name_differs", 409),
            "{error}"
        );
        assert!(error.next_steps.concat().contains(next), "{error:?}");
    }
}

async fn a_fleet_keeps_the_name(on: On) {
    let world = World::on(on).await;
    world.migrate(&[TASKS, OPS]).await;
    world.create(&["acme"]).await;
    world.migrate(&[TASKS, DONE, OPS]).await;
    assert_eq!(applied(&world, "acme").await, 2);
    let other = ("sqlx.toml", "[migrate]\ntable-name = 'others'\n");
    is_refused(&world, &[TASKS, DONE, THIRD], "table-name = \"ops\"").await;
    is_refused(&world, &[TASKS, DONE, THIRD, other], "table-name = \"ops\"").await;

    world.backup("acme").await;
    world.succeed(restoring(restore::RestorePoint::Latest), acme()).await;
    world.add_other().await;
    world
        .succeed(
            OperationParams::Move(r#move::MoveParams { to: Some("other".to_owned()), ..Default::default() }),
            acme(),
        )
        .await;
    world.succeed(OperationParams::Clone(clone::CloneParams { name: "copy".to_owned(), source: None }), acme()).await;
    world.succeed(OperationParams::Archive(archive::ArchiveParams {}), acme()).await;
    world.succeed(OperationParams::Unarchive(unarchive::UnarchiveParams {}), acme()).await;
    world.create(&["new"]).await;
    world.migrate(&[TASKS, DONE, THIRD, OPS]).await;
    for name in ["acme", "copy", "new"] {
        assert_eq!(applied(&world, name).await, 3, "{name}");
        assert_eq!(world.int(name, "select count(*) from tasks").await, 1, "{name}");
        for sql in ["delete from ops", "update ops set success = false", "insert into ops(version) values (9)"] {
            assert!(world.try_sql(name, sql).await.is_err(), "{name}: {sql}");
        }
        assert_eq!(world.tenant(name).await.state, TenantState::Active);
    }
}

#[tokio::test]
async fn a_fleet_on_sqlite_keeps_the_name_of_its_ledger() {
    a_fleet_keeps_the_name(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_on_postgres_keeps_the_name_of_its_ledger() {
    a_fleet_keeps_the_name(On::postgres()).await;
}

#[tokio::test]
async fn tenants_from_before_the_first_release_have_the_usual_ledger() {
    let world = World::new().await;
    world.create(&["acme"]).await;
    is_refused(&world, &[TASKS, OPS], "remove table-name").await;
    world.succeed(deleting(), acme()).await;
    is_refused(&world, &[TASKS, OPS], "remove table-name").await;
    world.migrate(&[TASKS]).await;
    is_refused(&world, &[TASKS, DONE, OPS], "remove table-name").await;
}

/// It has the ledger of the release that is stored, though it starts from none.
#[tokio::test]
async fn a_tenant_from_before_the_current_release_has_the_ledger_of_the_stored_one() {
    let world = World::new().await;
    let (files, mut tx) = (files(&[TASKS, OPS]), world.app.catalog.write().await.unwrap());
    let sets = MigrationSets::from_files(&files).unwrap();
    catalog::releases::ensure_release(&mut tx, &sets, &files, "test").await.unwrap();
    tx.commit().await.unwrap();
    world.create(&["acme"]).await;
    assert_eq!(applied(&world, "acme").await, 0);
    world.migrate(&[TASKS, OPS]).await;
    assert_eq!(applied(&world, "acme").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_database_goes_on_with_its_ledger() {
    let on = On::postgres();
    let world = World::on(on.clone()).await;
    let On::Postgres(servers) = &on else { panic!("it is Postgres") };
    let cluster = &servers.first;
    let set = MigrationSets::from_files(&files(&[TASKS])).unwrap();
    let checksum = &set.version_set().all_migrations()[0].checksum;
    let checksum: String = checksum.iter().map(|byte| format!("{byte:02x}")).collect();
    cluster.psql("postgres", "create database theirs owner fleet");
    let ledger = "create table ops(version bigint primary key, description text not null, installed_on timestamptz \
                  not null default now(), success boolean not null, checksum bytea not null, execution_time bigint \
                  not null)";
    cluster.psql("theirs", &format!("set role fleet; {}; {ledger}", TASKS.1));
    let row = format!("insert into ops values (1, 'tasks', now(), true, decode('{checksum}', 'hex'), 1)");
    cluster.psql("theirs", &row);
    let adopting = |name: &str| {
        let source = adopt::AdoptParams::seal_source(&world.app.context, &cluster.dsn("theirs").into());
        OperationParams::Adopt(adopt::AdoptParams {
            name: name.to_owned(),
            labels: Default::default(),
            server: None,
            source,
        })
    };
    world.migrate(&[TASKS, DONE, OPS]).await;
    world.succeed(adopting("acme"), TenantSelection::default()).await;
    assert_eq!(applied(&world, "acme").await, 2);
    world.migrate(&[TASKS, DONE, THIRD, OPS]).await;
    assert_eq!(world.int("acme", "select count(*) from tasks").await, 1);
}
