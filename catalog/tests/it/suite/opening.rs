//! Opening, creating, locking, rolling back: what transactions promise.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use catalog::seal::FleetKey;
use catalog::servers::NewServer;
use catalog::tenants::{self, TenantCriteria};
use catalog::{Catalog, ErrorKind, TenantState, WriteTx, servers};

use super::super::world::World;
use super::{Fixture, START, copy, create, new_tenant, open, seed, server};

#[tokio::test]
async fn a_catalog_outlives_its_process() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 2).await;
    let fleet = fixture.catalog.fleet_id();
    fixture.catalog.close().await;
    let again = fixture.other_process().await;
    assert_eq!(again.fleet_id(), fleet);
    let mut tx = again.read().await.unwrap();
    assert!(tenants::get(&mut tx, ids[1]).await.unwrap().is_some());
    let created = create(&fixture.world, &fixture.key()).await.unwrap();
    assert_eq!(created.fleet_id(), fleet, "create opens what is there");
}

#[tokio::test]
async fn another_key_is_refused() {
    let fixture = Fixture::new().await;
    let other = FleetKey::generate();
    for refused in [open(&fixture.world, &other).await, create(&fixture.world, &other).await] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::WrongKey);
    }
    open(&fixture.world, &fixture.key()).await.unwrap();
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let world = World::new();
    let key = FleetKey::generate();
    world.tool("create table notes (x text)").await;
    for refused in [open(&world, &key).await, create(&world, &key).await] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("not a catalog"), "{error}");
    }
}

#[tokio::test]
async fn an_empty_place_is_not_initialised() {
    let world = World::new();
    let key = FleetKey::generate();
    let error = open(&world, &key).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInitialised, "{error}");
    assert!(error.to_string().contains("fleetctl init"), "{error}");
    create(&world, &key).await.unwrap();
    open(&world, &key).await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_a_changed_one_is_corrupt() {
    let fixture = Fixture::new().await;
    fixture.catalog.close().await;
    let cases = [
        ("insert into _catalog_migrations values (999, 'later', 'x', 0)", Some(ErrorKind::SchemaNewer)),
        ("delete from _catalog_migrations where version = 999", None),
        ("update _catalog_migrations set checksum = 'x'", Some(ErrorKind::Corrupt)),
    ];
    for (sql, refused) in cases {
        fixture.world.tool(sql).await;
        match open(&fixture.world, &fixture.key()).await {
            Ok(catalog) => {
                assert_eq!(refused, None, "{sql}");
                catalog.close().await;
            }
            Err(error) => {
                assert_eq!(Some(error.kind()), refused, "{error}");
                assert!(error.kind() != ErrorKind::SchemaNewer || error.to_string().contains("999"), "{error}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_create_at_once() {
    let world = Arc::new(World::new());
    let key = FleetKey::generate();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (world, key) = (world.clone(), copy(&key));
        tasks.spawn(async move { create(&world, &key).await.map(|catalog| catalog.fleet_id()) });
    }
    let fleets: Vec<_> = tasks.join_all().await.into_iter().map(Result::unwrap).collect();
    assert!(fleets.iter().all(|fleet| *fleet == fleets[0]), "{fleets:?}");
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing() {
    let fixture = Fixture::new().await;
    let (server, _) = seed(&fixture.catalog, 1).await;
    for number in 0..20 {
        let mut tx = fixture.catalog.write().await.unwrap();
        tenants::insert_many(&mut tx, &[new_tenant(&format!("lost{number}"), server)]).await.unwrap();
        drop(tx);
        drop(fixture.catalog.read().await.unwrap());
    }
    let other = fixture.other_process().await;
    for catalog in [&fixture.catalog, &other] {
        let mut tx = catalog.write().await.unwrap();
        assert_eq!(tenants::count_tenants(&mut tx, &TenantCriteria::default()).await.unwrap(), 1);
        tx.commit().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_work_leaves_nothing_and_nobody_stuck() {
    let fixture = Fixture::new().await;
    let (local, _) = seed(&fixture.catalog, 1).await;
    // Each is cut off at another moment: while it waits, begins, writes or commits.
    for micros in (0..16_000).step_by(160) {
        let (catalog, name) = (fixture.catalog.clone(), format!("half{micros}"));
        let work = async move {
            let mut tx = catalog.write().await.unwrap();
            let pair = [new_tenant(&format!("{name}-a"), local), new_tenant(&format!("{name}-b"), local)];
            tenants::insert_many(&mut tx, &pair[..1]).await.unwrap();
            tenants::insert_many(&mut tx, &pair[1..]).await.unwrap();
            tx.commit().await.unwrap();
        };
        let _ = tokio::time::timeout(Duration::from_micros(micros), work).await;
    }
    let mut tx = fixture.catalog.write().await.unwrap();
    let found = tenants::list_tenants(&mut tx, &TenantCriteria::default(), None, 10_000).await.unwrap();
    tx.commit().await.unwrap();
    let halves = found.iter().filter(|tenant| tenant.name.ends_with("-a")).count();
    assert_eq!(halves, found.iter().filter(|tenant| tenant.name.ends_with("-b")).count());
    assert_eq!(found.len(), 1 + 2 * halves);
}

#[tokio::test]
async fn what_is_refused_before_it_is_written_leaves_the_transaction_as_it_was() {
    let fixture = Fixture::new().await;
    let (local, ids) = seed(&fixture.catalog, 1).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    tenants::insert_many(&mut tx, &[new_tenant("x", local)]).await.unwrap();
    let taken = tenants::insert_many(&mut tx, &[new_tenant("t0", local)]).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    let free = catalog::names::taken_names(&mut tx, &[catalog::TenantName::parse_slug("x").unwrap()]).await.unwrap();
    assert_eq!((free.len(), ids.len()), (1, 1));
    tx.commit().await.unwrap();
    let mut tx = fixture.catalog.read().await.unwrap();
    assert_eq!(tenants::count_tenants(&mut tx, &TenantCriteria::default()).await.unwrap(), 2);
}

#[tokio::test]
async fn what_a_constraint_refuses_is_never_half_done() {
    let fixture = Fixture::new().await;
    let (local, _) = seed(&fixture.catalog, 1).await;
    for _ in 0..3 {
        let mut tx = fixture.catalog.write().await.unwrap();
        let missing = new_tenant("x", catalog::ServerId::generate());
        assert_eq!(tenants::insert_many(&mut tx, &[missing]).await.unwrap_err().kind(), ErrorKind::NotFound);
        drop(tx);
        // Whatever became of that transaction, the next one begins clean.
        let mut tx = fixture.catalog.write().await.unwrap();
        assert_eq!(tenants::count_tenants(&mut tx, &TenantCriteria::default()).await.unwrap(), 1);
    }
    let mut tx = fixture.catalog.write().await.unwrap();
    tenants::insert_many(&mut tx, &[new_tenant("y", local)]).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_read_sees_one_moment() {
    let fixture = Fixture::new().await;
    let (local, _) = seed(&fixture.catalog, 1).await;
    let mut read = fixture.catalog.read().await.unwrap();
    assert_eq!(tenants::count_tenants(&mut read, &TenantCriteria::default()).await.unwrap(), 1);
    let mut tx = fixture.catalog.write().await.unwrap();
    tenants::insert_many(&mut tx, &[new_tenant("late", local)]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(tenants::count_tenants(&mut read, &TenantCriteria::default()).await.unwrap(), 1);
    drop(read);
    let mut read = fixture.catalog.read().await.unwrap();
    assert_eq!(tenants::count_tenants(&mut read, &TenantCriteria::default()).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_take_turns() {
    let fixture = Fixture::new().await;
    let other = fixture.other_process().await;
    let (local, _) = seed(&fixture.catalog, 0).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40 {
        let catalog = if number % 2 == 0 { fixture.catalog.clone() } else { other.clone() };
        tasks.spawn(async move {
            let mut tx = catalog.write().await.unwrap();
            // Check, then act: safe because nobody else writes meanwhile.
            let found = tenants::count_tenants(&mut tx, &TenantCriteria::default()).await.unwrap();
            tenants::insert_many(&mut tx, &[new_tenant(&format!("n{found}"), local)]).await.unwrap();
            tx.commit().await.unwrap();
        });
    }
    tasks.join_all().await;
    let mut tx = other.read().await.unwrap();
    assert_eq!(tenants::count_by_state(&mut tx).await.unwrap(), [(TenantState::Provisioning, 40)]);
}

/// What a write gets while another one goes on for longer than it waits.
pub(crate) async fn refused_while_busy(catalog: &Catalog, holder: &mut WriteTx) -> catalog::Error {
    let mut waiting = std::pin::pin!(catalog.write());
    loop {
        tokio::select! {
            done = &mut waiting => return done.expect_err("the lock is held"),
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                tenants::count_tenants(holder, &TenantCriteria::default()).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_lock_held_for_too_long_is_reported_and_then_forgotten() {
    let fixture = Fixture::new().await;
    let other = fixture.other_process().await;
    let mut holder = other.write().await.unwrap();
    let error = refused_while_busy(&fixture.catalog, &mut holder).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("another process"), "{error}");
    fixture.catalog.read().await.unwrap();
    drop(holder);
    fixture.catalog.write().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_is_a_catalog_of_its_own() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 30).await;
    let target = fixture.world.directory.path().join("copy of.db");
    fixture.catalog.snapshot_to(&target).await.unwrap();
    assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    let error = fixture.catalog.snapshot_to(&target).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let world = fixture.world.restored(&target);
    let restored = open(&world, &fixture.key()).await.unwrap();
    assert_eq!(restored.fleet_id(), fixture.catalog.fleet_id());
    let mut tx = restored.read().await.unwrap();
    assert!(tenants::get(&mut tx, ids[29]).await.unwrap().is_some());
    let nowhere = fixture.world.directory.path().join("no/such/dir.db");
    assert_eq!(fixture.catalog.snapshot_to(&nowhere).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn time_is_read_once_per_transaction() {
    let fixture = Fixture::new().await;
    let tx = fixture.catalog.write().await.unwrap();
    fixture.advance(9);
    assert_eq!((tx.now(), fixture.catalog.now()), (START, START + 9));
}

#[tokio::test]
async fn a_closed_catalog_says_so() {
    let fixture = Fixture::new().await;
    fixture.catalog.close().await;
    assert_eq!(fixture.catalog.read().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(fixture.catalog.write().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn servers_are_named_once() {
    let fixture = Fixture::new().await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let first = server(&mut tx, "local", Path::new("/srv/a")).await;
    for (name, refused) in [("local", ErrorKind::AlreadyExists), ("", ErrorKind::Invalid), ("a b", ErrorKind::Invalid)]
    {
        assert_eq!(
            servers::insert_server(&mut tx, NewServer::in_directory(name, "/srv/b")).await.unwrap_err().kind(),
            refused
        );
    }
    assert_eq!(servers::by_name(&mut tx, "local").await.unwrap().unwrap().id, first);
}

#[tokio::test]
async fn a_servers_secret_is_sealed_and_comes_back() {
    use secrecy::{ExposeSecret as _, SecretString};
    let fixture = Fixture::new().await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let dsn = SecretString::from("postgres://maintenance:hunter2@db:5432/postgres".to_owned());
    let id = Some("7300000000000000001");
    let engine = tenant_engine::EngineKind::Postgres;
    let new = NewServer { engine, secret: Some(&dsn), system_id: id, ..NewServer::in_directory("pg1", "db:5432") };
    let added = servers::insert_server(&mut tx, new).await.unwrap();
    assert_eq!(servers::get(&mut tx, added.id).await.unwrap().as_ref(), Some(&added));
    assert!(!format!("{added:?}").contains("hunter2"));
    let secret = servers::server_secret(&mut tx, added.id).await.unwrap().unwrap();
    assert_eq!(secret.expose_secret(), dsn.expose_secret());
    let twin =
        servers::insert_server(&mut tx, NewServer { name: "pg2", base: "10.0.0.7:5432", ..new }).await.unwrap_err();
    assert_eq!(twin.kind(), ErrorKind::AlreadyExists);
    assert!(twin.to_string().contains("'pg1'"), "{twin}");
    servers::set_state(&mut tx, added.id, catalog::ServerState::Removed).await.unwrap();
    let again = servers::insert_server(&mut tx, NewServer { name: "pg2", secret: None, ..new }).await.unwrap();
    assert!(servers::server_secret(&mut tx, again.id).await.unwrap().is_none());
    assert!(servers::server_secret(&mut tx, catalog::ServerId::generate()).await.unwrap().is_none());
}
