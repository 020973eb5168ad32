//! Snapshots, and what becomes of them.

use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use tenant_engine::*;

use super::kit::{BASE, Kit, Tenant, set};

async fn filled(kit: &Kit) -> Tenant {
    let tenant = kit.provisioned(&set(&BASE)).await;
    tenant
        .open()
        .execute_batch("insert into projects values(1, 'p'); insert into tasks(title, project_id) values('t', 1)")
        .unwrap();
    tenant
}

async fn image_of(kit: &Kit, tenant: &Tenant) -> Bytes {
    let taken = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
    let SnapshotImage::Memory(bytes) = taken.image else { panic!("small images stay in memory") };
    bytes
}

/// Where a restore of `tenant` goes, and what it is stamped with.
fn next(kit: &Kit, tenant: &Tenant) -> Tenant {
    let identity = Identity { generation: Generation(2), state: IdentityState::Building, ..tenant.identity.clone() };
    let at = Placement::new_sqlite(kit.root.path(), identity.tenant, identity.generation, 7);
    Tenant { at, identity }
}

async fn restore(kit: &Kit, to: &Tenant, image: &[u8], source: TenantId) -> Result<RestoreOutcome> {
    kit.engine
        .restore_database(&to.at, SnapshotImage::Memory(Bytes::copy_from_slice(image)), source, &to.identity)
        .await
}

#[tokio::test]
async fn a_snapshot_says_what_it_is_and_leaves_the_file_alone() {
    let kit = Kit::new();
    let tenant = filled(&kit).await;
    let app = tenant.open();
    app.execute_batch("insert into projects values(2, 'in the log only')").unwrap();
    let look = || {
        let main = std::fs::metadata(tenant.path()).unwrap();
        let log = std::fs::metadata(tenant.path().with_extension("db-wal")).unwrap();
        (main.ino(), main.len(), main.mtime_nsec(), main.ctime_nsec(), log.len(), log.mtime_nsec())
    };
    let before = look();
    let taken = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
    assert_eq!(look(), before, "nothing was checkpointed or written");
    assert_eq!(taken.info.identity, tenant.identity);
    assert_eq!((taken.info.schema_version, taken.info.foreign_key_violations), (Some(2), 0));
    assert!(taken.info.engine_version.starts_with("sqlite 3."));
    let SnapshotImage::Memory(bytes) = &taken.image else { panic!("small images stay in memory") };
    assert_eq!(bytes.len() as u64, taken.info.size_bytes);
    drop(app);

    let cold = kit.provisioned(&set(&BASE)).await;
    kit.engine.take_snapshot(&cold.at, &cold.expected()).await.unwrap();
    assert_eq!(cold.files(), ["g1-1.db"], "a snapshot of an idle database leaves no companions");
}

#[tokio::test]
async fn a_restore_brings_everything_back_at_a_new_placement() {
    let kit = Kit::new();
    let tenant = filled(&kit).await;
    tenant.open().execute_batch("pragma foreign_keys=off; insert into tasks(project_id) values(9)").unwrap();
    let frozen = Identity { state: IdentityState::Frozen, ..tenant.identity.clone() };
    kit.engine.freeze_database(&tenant.at, &tenant.expected(), &frozen).await.unwrap();
    let tenant = Tenant { identity: frozen, ..tenant };
    let image = image_of(&kit, &tenant).await;

    let to = next(&kit, &tenant);
    for _ in 0..2 {
        let done = restore(&kit, &to, &image, tenant.identity.tenant).await.unwrap();
        assert_eq!((done.schema_version, done.foreign_key_violations), (Some(2), 1));
        assert_eq!(done.size_bytes, image.len() as u64);
    }
    assert_eq!(to.files(), ["g1-1.db", "g1-1.db-shm", "g1-1.db-wal", "g2-7.db"], "the new one has no companions");
    let seen = kit.engine.inspect_database(&to.at, Some(&to.expected()), InspectionDepth::Full).await.unwrap();
    assert_eq!((seen.identity, seen.foreign_key_violations), (to.identity.clone(), 1));
    to.open().execute_batch("insert into projects values(3, 'writable again')").unwrap();
    assert_eq!(to.number("select count(*) from tasks"), 2);
}

#[tokio::test]
async fn a_clone_gets_its_own_tenant() {
    let kit = Kit::new();
    let tenant = filled(&kit).await;
    let image = image_of(&kit, &tenant).await;
    let mut copy = kit.tenant();
    copy.identity.state = IdentityState::Building;
    restore(&kit, &copy, &image, tenant.identity.tenant).await.unwrap();
    let seen = kit.engine.inspect_database(&copy.at, Some(&copy.expected()), InspectionDepth::Full).await.unwrap();
    assert_eq!(seen.identity, copy.identity);
}

#[tokio::test]
async fn another_tenants_image_is_refused_and_nothing_is_left() {
    let kit = Kit::new();
    let (a, b) = (filled(&kit).await, filled(&kit).await);
    let to = next(&kit, &b);
    let error = restore(&kit, &to, &image_of(&kit, &a).await, b.identity.tenant).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongTenant);
    assert!(to.files().iter().all(|name| name.starts_with("g1-1.db")), "{:?}", to.files());
}

#[tokio::test]
async fn a_damaged_image_is_refused_and_nothing_is_left() {
    let kit = Kit::new();
    let tenant = filled(&kit).await;
    let image = image_of(&kit, &tenant).await;
    let damaged: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("a few bytes", image[..50].to_vec()),
        ("truncated within a page", image[..image.len() - 100].to_vec()),
        ("a page short", image[..image.len() - 4096].to_vec()),
        ("garbage", vec![0xa5; image.len()]),
        ("garbage appended", [&image[..], &[0; 4096]].concat()),
        ("a page of zeroes", [&image[..4096], &vec![0; 4096][..], &image[8192..]].concat()),
        ("no magic", [b"SQLite format 4\0", &image[16..]].concat()),
        ("a page size of 7", [&image[..16], &[0, 7], &image[18..]].concat()),
    ];
    for (what, bytes) in damaged {
        let to = kit.tenant();
        let error = restore(&kit, &to, &bytes, tenant.identity.tenant).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert!(!to.path().parent().unwrap().exists(), "{what}");
    }
    let unstamped = rusqlite::Connection::open_in_memory().unwrap();
    unstamped.execute_batch("create table theirs(x)").unwrap();
    let bytes = unstamped.serialize("main").unwrap().to_vec();
    let error = restore(&kit, &kit.tenant(), &bytes, tenant.identity.tenant).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongTenant, "somebody's own database");
}

#[tokio::test]
async fn a_taken_placement_is_never_overwritten() {
    let kit = Kit::new();
    let tenant = filled(&kit).await;
    let image = image_of(&kit, &tenant).await;
    let other = filled(&kit).await;
    let error = restore(&kit, &Tenant { at: other.at.clone(), ..next(&kit, &tenant) }, &image, tenant.identity.tenant)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(
        kit.engine.inspect_database(&other.at, None, InspectionDepth::Ledger).await.unwrap().identity,
        other.identity
    );
}

#[tokio::test]
async fn a_large_database_goes_through_a_file() {
    let kit = Kit::new();
    let tenant = filled(&kit).await;
    let app = tenant.open();
    app.execute_batch("create table big(b); insert into big values(zeroblob(9000000))").unwrap();
    let taken = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
    assert!(matches!(&taken.image, SnapshotImage::File(path) if path.exists()));
    let to = next(&kit, &tenant);
    let done = kit.engine.restore_database(&to.at, taken.image, tenant.identity.tenant, &to.identity).await.unwrap();
    assert_eq!(done.size_bytes, taken.info.size_bytes);
    assert_eq!(to.number("select length(b) from big"), 9_000_000);
    assert_eq!(std::fs::read_dir(kit.scratch.path()).unwrap().count(), 0);
}
