//! The size that the catalog has of a database is the database's, whatever touched it last.

use control_plane::operations::{OperationParams, r#move, restore::RestorePoint};
use control_plane::plan::TenantSelection;

use crate::world::{On, World, restoring, undoing};

const TASKS: (&str, &str) = ("0001_tasks.sql", "create table tasks (title text not null);");

async fn is_measured(world: &World, when: &str) {
    let tenant = world.tenant("acme").await;
    let (engine, at) = world.app.context.current_database(&tenant).await.unwrap();
    let size = i64::try_from(engine.database_size(&at).await.unwrap()).unwrap();
    let known = tenant.size_bytes.unwrap();
    // A server writes to its own tables now and then: a few pages are no other size.
    assert!((known - size).abs() <= size / 10, "{when}: the catalog says {known}, it has {size}");
}

/// Rows that a dump compresses to nearly nothing.
fn grow(on: &On) -> String {
    let rows = match on {
        On::Sqlite => {
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 40000) select printf('%.200c', 'x') from n"
        }
        On::Postgres(_) => "select repeat('x', 200) from generate_series(1, 40000)",
    };
    format!("insert into tasks (title) {rows}")
}

async fn sizes(on: On) {
    let world = World::on(on).await;
    world.add_other().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    world.sql("acme", &grow(&world.on)).await;
    let backup = world.backup("acme").await;
    is_measured(&world, "after a backup").await;
    assert!(backup.stored_bytes < world.tenant("acme").await.size_bytes.unwrap());
    let index =
        ("0002_index.sql", "create table copies as select * from tasks; create index tasks_title on tasks (title);");
    world.migrate(&[TASKS, index]).await;
    is_measured(&world, "after a migration").await;
    world.succeed(restoring(RestorePoint::Latest), TenantSelection::one_tenant("acme")).await;
    is_measured(&world, "after a restore").await;
    world.succeed(undoing(), TenantSelection::one_tenant("acme")).await;
    is_measured(&world, "after an undo").await;
    let moving = OperationParams::Move(r#move::MoveParams { to: Some("other".to_owned()), ..Default::default() });
    world.succeed(moving, TenantSelection::one_tenant("acme")).await;
    is_measured(&world, "after a move").await;
}

#[tokio::test]
async fn sizes_on_sqlite() {
    sizes(On::Sqlite).await;
}

#[tokio::test]
async fn sizes_on_postgres() {
    sizes(On::postgres()).await;
}
