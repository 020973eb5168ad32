//! Two routers: one keeps a tenant open, with warm pools, while the other process changes everything under it. Whatever
//! the stale one is told to do, it never writes to what was replaced and never reads from it.

use std::sync::Arc;

use catalog::retained::RetainedRecord;
use control_plane::App;
use control_plane::config::ProcessRole;
use control_plane::operations::{OperationParams, archive, r#move, restore, suspend};
use control_plane::plan::TenantSelection;
use tenant_engine::{IdentityState, InspectionDepth, SqlValue};
use tenant_router::{Principal, Tenant, Write};

use crate::invariants;
use crate::world::{On, World, deleting, restoring};

const TASKS: (&str, &str) = ("0001_tasks.sql", "create table tasks (title text not null);");

async fn open(app: &Arc<App>, world: &World) -> Tenant<Write> {
    let id = world.tenant("acme").await.id;
    let who = Arc::new(Principal::of_tenant("stale", id, tenant_router::Role::Writer));
    app.router.open_id::<Write>(who, id).await.unwrap()
}

async fn rows(tenant: &Tenant<Write>, title: &str) -> tenant_router::Result<i64> {
    let found = tenant.query(&format!("select count(*) from tasks where title = '{title}'"), ()).await?;
    match found.rows[0][0] {
        SqlValue::Integer(count) => Ok(count),
        ref other => panic!("{other:?}"),
    }
}

async fn insert(tenant: &Tenant<Write>, title: &str) -> tenant_router::Result<()> {
    tenant.execute(&format!("insert into tasks (title) values ('{title}')"), ()).await.map(drop)
}

/// The databases that were replaced.
async fn replaced(world: &World) -> Vec<RetainedRecord> {
    let id = world.tenant("acme").await.id;
    catalog::retained::of_tenant(&mut world.app.catalog.read().await.unwrap(), id).await.unwrap()
}

/// How many rows of this title are in a database that nobody serves, read past every fence.
async fn rows_in(world: &World, kept: &RetainedRecord, title: &str) -> i64 {
    let sql = format!("select count(*) from tasks where title = '{title}'");
    let mut tx = world.app.catalog.read().await.unwrap();
    let server = catalog::servers::get(&mut tx, kept.server_id).await.unwrap().unwrap();
    match &world.on {
        On::Sqlite => {
            let file = std::path::Path::new(&server.base).join(&kept.placement);
            rusqlite::Connection::open(file).unwrap().query_row(&sql, [], |row| row.get(0)).unwrap()
        }
        On::Postgres(servers) => {
            let cluster = servers.started().find(|cluster| server.base.ends_with(&cluster.port().to_string())).unwrap();
            cluster.psql(&kept.placement, &sql).parse().unwrap()
        }
    }
}

/// What is done to the tenant behind the stale router's back, and whether it serves afterwards.
struct Case {
    params: fn() -> OperationParams,
    serves: bool,
}

async fn nothing_goes_to_what_was_replaced(on: On, case: Case) {
    let world = World::on(on).await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    world.backup("acme").await;
    world.add_other().await;
    let other = world.another(ProcessRole::Embedded).await;
    let (stale, idle) = (open(&other, &world).await, open(&other, &world).await);
    insert(&stale, "before").await.unwrap();
    assert_eq!(rows(&idle, "before").await.unwrap(), 1);

    world.succeed((case.params)(), TenantSelection::one_tenant("acme")).await;

    let written = insert(&stale, "after").await.is_ok();
    let read = rows(&idle, "after").await;
    assert_eq!(written, case.serves, "the stale router follows the catalog, or refuses");
    match read {
        // What it reads is where it wrote.
        Ok(found) => assert_eq!((found, case.serves), (1, true)),
        Err(_) => assert!(!case.serves),
    }
    for kept in replaced(&world).await {
        assert_eq!(rows_in(&world, &kept, "after").await, 0, "it wrote to {}", kept.placement);
        let (engine, at) = world.app.context.resolve_placement(kept.server_id, &kept.placement).await.unwrap();
        let identity = engine.inspect_database(&at, None, InspectionDepth::Ledger).await.unwrap().identity;
        assert!(matches!(identity.state, IdentityState::Moved | IdentityState::Tombstone), "{identity:?}");
    }
    if case.serves {
        assert_eq!(world.int("acme", "select count(*) from tasks where title = 'after'").await, 1);
    }
    other.shut_down(std::time::Duration::from_secs(5)).await;
    invariants::check(&world).await;
}

macro_rules! cases {
    ($($name:ident => $case:expr,)*) => {
        mod sqlite {
            use super::*;
            $(#[tokio::test] async fn $name() { nothing_goes_to_what_was_replaced(On::Sqlite, $case).await; })*
        }
        mod postgres {
            use super::*;
            $(#[tokio::test] async fn $name() { nothing_goes_to_what_was_replaced(On::postgres(), $case).await; })*
        }
    };
}

cases! {
    moved => Case {
        params: || OperationParams::Move(r#move::MoveParams { to: Some("other".to_owned()), ..Default::default() }),
        serves: true,
    },
    restored => Case { params: || restoring(restore::RestorePoint::Latest), serves: true },
    suspended => Case { params: || OperationParams::Suspend(suspend::SuspendParams {}), serves: false },
    archived => Case { params: || OperationParams::Archive(archive::ArchiveParams {}), serves: false },
    deleted => Case { params: deleting, serves: false },
}

/// A name is the catalog's alone: the open tenant goes on, and both names lead to it.
#[tokio::test]
async fn renamed() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    let other = world.another(ProcessRole::Embedded).await;
    let stale = open(&other, &world).await;
    let mut tx = world.app.catalog.write().await.unwrap();
    let new = catalog::TenantName::parse_slug("acme-corp").unwrap();
    catalog::tenants::rename_tenant(&mut tx, stale.id(), &new).await.unwrap();
    tx.commit().await.unwrap();
    insert(&stale, "after").await.unwrap();
    assert_eq!(world.int("acme-corp", "select count(*) from tasks where title = 'after'").await, 1);
    assert_eq!(world.tenant("acme").await.id, stale.id());
    other.shut_down(std::time::Duration::from_secs(5)).await;
}
