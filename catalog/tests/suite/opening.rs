//! Opening, creating, locking, rolling back: what transactions promise.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use catalog::db::Location;
use catalog::seal::FleetKey;
use catalog::servers::NewServer;
use catalog::tenants::{self, Selection};
use catalog::{Catalog, ErrorKind, TenantState, servers};

use super::{Fixture, START, clock, copy, new_tenant, seed, server};

async fn open(path: &Path, key: &FleetKey) -> catalog::Result<Catalog> {
    Catalog::open(&Location::File(path.to_path_buf()), copy(key), clock()).await
}

async fn create(path: &Path, key: &FleetKey) -> catalog::Result<Catalog> {
    Catalog::create(&Location::File(path.to_path_buf()), copy(key), clock()).await
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_catalog_outlives_its_process() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 2).await;
    let fleet = fixture.catalog.fleet_id();
    fixture.catalog.close().await;
    assert!(!fixture.directory.path().join("catalog.db-wal").exists(), "the write-ahead log is folded in");
    let again = fixture.other_process().await;
    assert_eq!(again.fleet_id(), fleet);
    let mut tx = again.read().await.unwrap();
    assert!(tenants::get(&mut tx, ids[1]).await.unwrap().is_some());
    let created = create(&fixture.path(), &fixture.key()).await.unwrap();
    assert_eq!(created.fleet_id(), fleet, "create opens what is there");
}

#[tokio::test]
async fn all_files_are_their_owners_only() {
    let fixture = Fixture::new().await;
    seed(&fixture.catalog, 1).await;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(fixture.directory.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        files.push(path);
    }
    assert_eq!(files.len(), 3, "main file, log and index: {files:?}");
}

#[tokio::test]
async fn paths_may_hold_any_character() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a b%20c?d#é'x/fleet ü.db");
    let key = FleetKey::generate();
    create(&path, &key).await.unwrap().close().await;
    assert!(path.exists());
    open(&path, &key).await.unwrap();
}

#[tokio::test]
async fn nothing_there_is_not_initialised() {
    let directory = tempfile::tempdir().unwrap();
    let key = FleetKey::generate();
    let empty = directory.path().join("empty.db");
    std::fs::write(&empty, "").unwrap();
    for path in [directory.path().join("catalog.db"), directory.path().join("no/catalog.db"), empty] {
        let error = open(&path, &key).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotInitialised, "{error}");
        assert!(error.to_string().contains("fleetctl init"), "{error}");
    }
}

#[tokio::test]
async fn another_key_is_refused() {
    let fixture = Fixture::new().await;
    let other = FleetKey::generate();
    for refused in [open(&fixture.path(), &other).await, create(&fixture.path(), &other).await] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::WrongKey);
    }
    open(&fixture.path(), &fixture.key()).await.unwrap();
}

#[tokio::test]
async fn what_is_not_a_catalog_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let key = FleetKey::generate();
    let text = directory.path().join("text.db");
    std::fs::write(&text, "dear diary, ".repeat(1000)).unwrap();
    for refused in [open(&text, &key).await, create(&text, &key).await] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    assert_eq!(std::fs::read(&text).unwrap().len(), 12_000);
    assert_eq!(open(directory.path(), &key).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let key = FleetKey::generate();
    let path = directory.path().join("theirs.db");
    std::fs::write(&path, "").unwrap();
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}", path.display());
    let mut theirs = <sqlx::AnyConnection as sqlx::Connection>::connect(&url).await.unwrap();
    sqlx::raw_sql("create table notes (x)").execute(&mut theirs).await.unwrap();
    sqlx::Connection::close(theirs).await.unwrap();
    for refused in [open(&path, &key).await, create(&path, &key).await] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("not a catalog"), "{error}");
    }
}

#[tokio::test]
async fn a_truncated_catalog_is_corrupt() {
    let fixture = Fixture::new().await;
    seed(&fixture.catalog, 500).await;
    fixture.catalog.close().await;
    let whole = std::fs::read(fixture.path()).unwrap();
    for length in [whole.len() / 2, 4096, 1000] {
        std::fs::write(fixture.path(), &whole[..length]).unwrap();
        let error = open(&fixture.path(), &fixture.key()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{length}: {error}");
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_a_changed_one_is_corrupt() {
    let fixture = Fixture::new().await;
    fixture.catalog.close().await;
    let url = format!("sqlite://{}", fixture.path().display());
    let cases = [
        ("insert into _catalog_migrations values (999, 'later', 'x', 0)", ErrorKind::SchemaNewer),
        ("delete from _catalog_migrations where version = 999", ErrorKind::NotFound),
        ("update _catalog_migrations set checksum = 'x'", ErrorKind::Corrupt),
    ];
    for (sql, kind) in cases {
        let mut tool = <sqlx::AnyConnection as sqlx::Connection>::connect(&url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut tool).await.unwrap();
        sqlx::Connection::close(tool).await.unwrap();
        match open(&fixture.path(), &fixture.key()).await {
            Ok(catalog) => {
                assert_eq!(kind, ErrorKind::NotFound, "{sql}");
                catalog.close().await;
            }
            Err(error) => {
                assert_eq!(error.kind(), kind, "{error}");
                assert!(kind != ErrorKind::SchemaNewer || error.to_string().contains("999"), "{error}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_create_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let key = FleetKey::generate();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (path, key) = (directory.path().join("new/catalog.db"), copy(&key));
        tasks.spawn(async move { create(&path, &key).await.map(|catalog| catalog.fleet_id()) });
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
        assert_eq!(tenants::count(&mut tx, &Selection::default()).await.unwrap(), 1);
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
    let found = tenants::page(&mut tx, &Selection::default(), None, 10_000).await.unwrap();
    tx.commit().await.unwrap();
    let halves = found.iter().filter(|tenant| tenant.name.ends_with("-a")).count();
    assert_eq!(halves, found.iter().filter(|tenant| tenant.name.ends_with("-b")).count());
    assert_eq!(found.len(), 1 + 2 * halves);
}

#[tokio::test]
async fn a_failed_statement_does_not_undo_the_ones_before_it() {
    let fixture = Fixture::new().await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let local = server(&mut tx, "local", Path::new("/srv/a")).await;
    let missing = new_tenant("x", catalog::ServerId::generate());
    assert_eq!(tenants::insert_many(&mut tx, &[missing]).await.unwrap_err().kind(), ErrorKind::NotFound);
    tenants::insert_many(&mut tx, &[new_tenant("y", local)]).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = fixture.catalog.read().await.unwrap();
    assert_eq!(tenants::count(&mut tx, &Selection::default()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_read_sees_one_moment() {
    let fixture = Fixture::new().await;
    let (local, _) = seed(&fixture.catalog, 1).await;
    let mut read = fixture.catalog.read().await.unwrap();
    assert_eq!(tenants::count(&mut read, &Selection::default()).await.unwrap(), 1);
    let mut tx = fixture.catalog.write().await.unwrap();
    tenants::insert_many(&mut tx, &[new_tenant("late", local)]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(tenants::count(&mut read, &Selection::default()).await.unwrap(), 1);
    drop(read);
    let mut read = fixture.catalog.read().await.unwrap();
    assert_eq!(tenants::count(&mut read, &Selection::default()).await.unwrap(), 2);
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
            let found = tenants::count(&mut tx, &Selection::default()).await.unwrap();
            tenants::insert_many(&mut tx, &[new_tenant(&format!("n{found}"), local)]).await.unwrap();
            tx.commit().await.unwrap();
        });
    }
    tasks.join_all().await;
    let mut tx = other.read().await.unwrap();
    assert_eq!(tenants::count_by_state(&mut tx).await.unwrap(), [(TenantState::Provisioning, 40)]);
}

#[tokio::test]
async fn a_lock_held_for_too_long_is_reported_and_then_forgotten() {
    let fixture = Fixture::new().await;
    let other = fixture.other_process().await;
    let holder = other.write().await.unwrap();
    let error = fixture.catalog.write().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("another process"), "{error}");
    fixture.catalog.read().await.unwrap();
    drop(holder);
    fixture.catalog.write().await.unwrap();
}

#[tokio::test]
async fn a_place_that_cannot_hold_a_catalog_says_why() {
    let fixture = Fixture::new().await;
    // Below a file, and where not even an administrator may write.
    for path in [fixture.path().join("catalog.db"), "/proc/catalog.db".into(), "/proc/fleet/catalog.db".into()] {
        let error = create(&path, &fixture.key()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(std::error::Error::source(&error).is_some(), "the system's own reason is kept");
    }
    assert_eq!(create(Path::new("/"), &fixture.key()).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_snapshot_is_a_catalog_of_its_own() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 30).await;
    let target = fixture.directory.path().join("copy of.db");
    fixture.catalog.snapshot_to(&target).await.unwrap();
    assert_eq!(mode(&target), 0o600);
    let error = fixture.catalog.snapshot_to(&target).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let restored = open(&target, &fixture.key()).await.unwrap();
    assert_eq!(restored.fleet_id(), fixture.catalog.fleet_id());
    let mut tx = restored.read().await.unwrap();
    assert!(tenants::get(&mut tx, ids[29]).await.unwrap().is_some());
    let nowhere = fixture.directory.path().join("no/such/dir.db");
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
        assert_eq!(servers::insert(&mut tx, NewServer::directory(name, "/srv/b")).await.unwrap_err().kind(), refused);
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
    let new = NewServer { secret: Some(&dsn), system_id: id, ..NewServer::directory("pg1", "db:5432") };
    let added = servers::insert(&mut tx, new).await.unwrap();
    assert_eq!(servers::get(&mut tx, added.id).await.unwrap().as_ref(), Some(&added));
    assert!(!format!("{added:?}").contains("hunter2"));
    let secret = servers::secret(&mut tx, added.id).await.unwrap().unwrap();
    assert_eq!(secret.expose_secret(), dsn.expose_secret());
    let twin = servers::insert(&mut tx, NewServer { name: "pg2", base: "10.0.0.7:5432", ..new }).await.unwrap_err();
    assert_eq!(twin.kind(), ErrorKind::AlreadyExists);
    assert!(twin.to_string().contains("'pg1'"), "{twin}");
    servers::set_state(&mut tx, added.id, catalog::ServerState::Removed).await.unwrap();
    let again = servers::insert(&mut tx, NewServer { name: "pg2", secret: None, ..new }).await.unwrap();
    assert!(servers::secret(&mut tx, again.id).await.unwrap().is_none());
    assert!(servers::secret(&mut tx, catalog::ServerId::generate()).await.unwrap().is_none());
}
