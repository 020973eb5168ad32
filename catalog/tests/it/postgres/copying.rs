//! From a file into a database: everything arrives, or nothing does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use catalog::copy::copy_to_postgres;
use catalog::db::CatalogLocation;
use catalog::members::{self, Role};
use catalog::operations::{self, NewOperation, WhenLeft};
use catalog::seal::FleetKey;
use catalog::tokens::{self, TokenScope};
use catalog::{Catalog, ErrorKind, OperationId, TenantId, events, tenants};
use secrecy::ExposeSecret as _;

use super::suite::{clock, copy as same, seed};
use super::world::World;

async fn file(directory: &Path, key: &FleetKey) -> Catalog {
    Catalog::create(&CatalogLocation::File(directory.join("catalog.db")), same(key), clock()).await.unwrap()
}

/// Something in most tables; returns a secret that must still open.
async fn populate(catalog: &Catalog) -> (Vec<TenantId>, String) {
    let (_, ids) = seed(catalog, 1_300).await;
    let mut tx = catalog.write().await.unwrap();
    let labels = BTreeMap::from([("plan".to_owned(), Some("größer \u{1f980} '\"\\".to_owned()))]);
    tenants::set_labels(&mut tx, ids[7], &labels).await.unwrap();
    members::set_member(&mut tx, ids[7], "ann", Role::Manager).await.unwrap();
    let scope = TokenScope::Tenant { tenant: ids[7], role: Role::Writer };
    let (_, secret) = tokens::create_token(&mut tx, scope, None, None).await.unwrap();
    let new = NewOperation {
        id: OperationId::generate(),
        kind: "create".to_owned(),
        params: "{}".to_owned(),
        release_id: None,
        tenants: ids.clone(),
        skipped: 0,
        left_out: Vec::new(),
        when_left: WhenLeft::Fail,
        concurrency: 8,
        requested_by: "test".to_owned(),
        reason: None,
    };
    operations::insert_operation(&mut tx, &new).await.unwrap();
    let event = events::NewEvent {
        kind: "test.done".to_owned(),
        actor: "test".to_owned(),
        tenant_id: None,
        op_id: Some(new.id),
        request_id: None,
        data: serde_json::json!({"nul": "\u{0}"}),
    };
    events::append_events(&mut tx, &[event]).await.unwrap();
    tx.commit().await.unwrap();
    (ids, secret.expose_secret().to_owned())
}

fn tables(world: &World) -> Vec<String> {
    let sql = "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1";
    world.psql(sql).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_copy_is_the_same_catalog_and_no_table_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let key = FleetKey::generate();
    let source = file(directory.path(), &key).await;
    let (ids, secret) = populate(&source).await;
    let world = World::new();
    let marked = AtomicBool::new(false);
    let mark = || {
        marked.store(true, Ordering::SeqCst);
        Ok(())
    };
    let copied = copy_to_postgres(&source, &world.location(), mark).await.unwrap();
    assert!(marked.load(Ordering::SeqCst) && !copied.was_there);
    let names: Vec<String> = copied.rows.iter().map(|(table, _)| table.clone()).collect();
    let mut there = tables(&world);
    there.sort_unstable();
    assert_eq!(names, there, "every table of the schema is copied");
    let rows: BTreeMap<String, i64> = copied.rows.iter().cloned().collect();
    let versions = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/catalog");
    let versions = std::fs::read_dir(versions).unwrap().count();
    let ledger = usize::try_from(rows["_catalog_migrations"]).unwrap();
    assert_eq!((rows["tenants"], rows["steps"], ledger), (1_300, 1_300, versions));

    let target = Catalog::open(&world.location(), same(&key), clock()).await.unwrap();
    assert_eq!(target.fleet_id(), source.fleet_id());
    let (mut here, mut there) = (source.read().await.unwrap(), target.read().await.unwrap());
    let token = tokens::by_secret(&mut there, &secret).await.unwrap().unwrap();
    assert_eq!(Some(token), tokens::by_secret(&mut here, &secret).await.unwrap());
    for id in [ids[0], ids[7], ids[1_299]] {
        assert_eq!(tenants::get(&mut there, id).await.unwrap(), tenants::get(&mut here, id).await.unwrap());
    }
    let found = catalog::check::inspect_catalog(&target).await.unwrap();
    assert_eq!((found.columns_out_of_order, usize::try_from(found.schema_version).unwrap()), (0, versions));

    let again = copy_to_postgres(&source, &world.location(), || Ok(())).await.unwrap();
    assert!(again.was_there, "an interrupted command may be repeated");
    let mut tx = target.write().await.unwrap();
    members::set_member(&mut tx, ids[0], "bob", Role::Reader).await.unwrap();
    tx.commit().await.unwrap();
    let error = copy_to_postgres(&source, &world.location(), || panic!("not to be marked")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "somebody works on it");
}

#[tokio::test]
async fn what_cannot_be_copied_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let key = FleetKey::generate();
    let source = file(directory.path(), &key).await;
    let (ids, _) = populate(&source).await;
    let mut tx = source.write().await.unwrap();
    let open = operations::open_operations(&mut tx).await.unwrap();
    operations::fail_operation(&mut tx, open[0].id, "x", "a\u{0}b").await.unwrap();
    tx.commit().await.unwrap();
    let world = World::new();
    let error = copy_to_postgres(&source, &world.location(), || panic!("not to be marked")).await.unwrap_err();
    assert!(error.to_string().contains("operations"), "{error}");
    assert_eq!(tables(&world), Vec::<String>::new());
    world.psql("create table notes (x text)");
    let error = copy_to_postgres(&source, &world.location(), || panic!("not to be marked")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let mut tx = source.write().await.unwrap();
    assert!(tenants::get(&mut tx, ids[0]).await.unwrap().is_some(), "the source goes on");
}
