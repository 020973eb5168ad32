//! A full disk and a read-only one: clear errors, nothing half-made, and everything works again afterwards.

use std::path::PathBuf;
use std::time::Duration;

use tenant_engine::*;

use super::child;
use super::kit::{BASE, Kit, base_and, set};

const GROWTH: &str = "create table big(b); insert into big values(zeroblob(400000));";

#[tokio::test]
async fn a_full_disk_leaves_nothing_half_made() {
    let Some(directory) = child::directory() else {
        let directory = tempfile::tempdir().unwrap();
        let mount = "mount -t tmpfs -o size=1m tmpfs \"$0\"";
        return child::succeeds(child::mounted(
            mount,
            "sqlite::storage::a_full_disk_leaves_nothing_half_made",
            directory.path(),
        ));
    };
    let kit = Kit::at(&directory);
    let (base, head) = (set(&BASE), base_and(&[("0003_big.sql", GROWTH)]));
    let tenant = kit.provisioned(&base).await;
    let image = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap().image;

    // Fill the disk with everything but a few pages.
    let filler = directory.join("filler");
    let mut bytes = 1 << 20;
    while bytes >= 4096 {
        let held = std::fs::metadata(&filler).map_or(0, |m| m.len());
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&filler).unwrap();
        if rustix_fallocate(&file, held, bytes).is_err() {
            bytes /= 2;
        }
    }
    let refused = kit.tenant();
    let template = kit.engine.prepare_template(&kit.server(), &base).await.unwrap();
    let error = kit.engine.provision_database(&refused.at, &template, &refused.identity).await.unwrap_err();
    assert_eq!((error.kind(), error.kind().is_transient()), (ErrorKind::DiskFull, true), "{error}");
    assert!(!refused.path().parent().unwrap().exists());
    let error =
        kit.engine.restore_database(&refused.at, image, tenant.identity.tenant, &refused.identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    assert!(!refused.path().parent().unwrap().exists());
    let error = kit.migrate(&tenant, &head).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");

    std::fs::remove_file(&filler).unwrap();
    let seen = kit.engine.inspect_database(&tenant.at, Some(&tenant.expected()), InspectionDepth::Full).await.unwrap();
    assert_eq!((seen.schema_version(), seen.problems.len()), (Some(2), 0));
    assert_eq!(kit.migrate(&tenant, &head).await.unwrap().applied, [3]);
    kit.engine.provision_database(&refused.at, &template, &refused.identity).await.unwrap();
}

fn rustix_fallocate(file: &std::fs::File, offset: u64, bytes: u64) -> std::io::Result<()> {
    Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), offset, bytes)?)
}

#[tokio::test]
async fn a_read_only_disk_is_named() {
    const NAME: &str = "sqlite::storage::a_read_only_disk_is_named";
    let Some(directory) = child::directory() else {
        let directory = tempfile::tempdir().unwrap();
        let kit = Kit::at(directory.path());
        kit.provisioned(&set(&BASE)).await;
        let mount = "mount --bind \"$0\" \"$0\"; mount -o remount,bind,ro \"$0\"";
        return child::succeeds(child::mounted(mount, NAME, directory.path()));
    };
    let kit = Kit::at(&directory);
    let tenant = kit.tenant();
    let template = kit.engine.prepare_template(&kit.server(), &set(&BASE)).await.unwrap();
    let error = kit.engine.provision_database(&tenant.at, &template, &tenant.identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnlyStorage, "{error}");

    let existing = kit.any().unwrap();
    let error = kit.migrate(&existing, &base_and(&[("0003_big.sql", GROWTH)])).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ReadOnlyStorage | ErrorKind::Io), "{:?} {error}", error.kind());
    let error = kit.engine.drop_database(&existing.at, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnlyStorage, "{error}");
}

/// Leaves `left` bytes on the disk of `directory`.
fn fill_up(directory: &std::path::Path, left: u64) -> PathBuf {
    let filler = directory.join("filler");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&filler).unwrap();
    let held = file.metadata().unwrap().len();
    let free = disk::DiskSpace::at_path(directory).unwrap().free.bytes;
    let _ = rustix_fallocate(&file, held, free.saturating_sub(left).max(1));
    filler
}

async fn write(pool: &Pool, bytes: usize) -> Result<()> {
    let Pool::Sqlite(pool) = pool else { panic!("not SQLite") };
    let sql = "insert into notes (text) values (?1)";
    let text = SqlValue::Text("x".repeat(bytes));
    pool.with_transaction(AccessMode::Write, SessionLimits::default(), move |tx| tx.execute(sql, &[text]).map(drop))
        .await
}

async fn count(pool: &Pool) -> SqlValue {
    let Pool::Sqlite(pool) = pool else { panic!("not SQLite") };
    let read = |tx: &sqlite::SqliteTx<'_>| tx.query("select count(*) from notes", &[]);
    pool.with_transaction(AccessMode::Read, SessionLimits::default(), read).await.unwrap().rows[0][0].clone()
}

/// Whatever a gauge remembered is forgotten by then.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

const NOTES: (&str, &str) = ("0001_notes.sql", "create table notes (id integer primary key, text text not null)");

#[tokio::test]
async fn a_low_disk_refuses_writes_serves_reads_and_lets_what_frees_room_work() {
    const NAME: &str = "sqlite::storage::a_low_disk_refuses_writes_serves_reads_and_lets_what_frees_room_work";
    let Some(directory) = child::directory() else {
        let directory = tempfile::tempdir().unwrap();
        return child::succeeds(child::mounted("mount -t tmpfs -o size=64m tmpfs \"$0\"", NAME, directory.path()));
    };
    let kit = Kit::at(&directory);
    let (mine, other) = (kit.provisioned(&set(&[NOTES])).await, kit.provisioned(&set(&[NOTES])).await);
    let reserve = disk::DiskReserve::of_base(&directory);
    assert_eq!(reserve.reserve_state(), disk::ReserveState::Kept);
    let pool = kit.engine.open_pool(&mine.at, &mine.expected()).await.unwrap();
    write(&pool, 100).await.unwrap();

    // One transaction that would take all of the disk is stopped, and gives its room back.
    let Pool::Sqlite(sqlite) = &pool else { panic!("not SQLite") };
    let greedy = sqlite.with_transaction(AccessMode::Write, SessionLimits::default(), |tx| {
        loop {
            tx.execute("insert into notes (text) values (?1)", &[SqlValue::Text("y".repeat(900_000))])?;
        }
        #[expect(unreachable_code, reason = "the closure's type")]
        Ok(())
    });
    let error = greedy.await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DiskLow | ErrorKind::DiskFull), "{error}");
    assert!(!disk::DiskSpace::at_path(&directory).unwrap().is_low(), "the log still holds what was rolled back");
    a_moment().await;
    write(&pool, 100).await.unwrap();

    let filler = fill_up(&directory, 3 << 20);
    a_moment().await;
    let error = write(&pool, 100).await.unwrap_err();
    assert_eq!((error.kind(), error.kind().is_transient()), (ErrorKind::DiskLow, true), "{error}");
    assert_eq!(count(&pool).await, SqlValue::Integer(2));
    let refused = kit.tenant();
    let template = kit.engine.prepare_template(&kit.server(), &set(&[NOTES])).await.unwrap();
    let error = kit.engine.provision_database(&refused.at, &template, &refused.identity).await.unwrap_err();
    assert!(error.kind() == ErrorKind::DiskFull && !refused.path().parent().unwrap().exists(), "{error}");

    // Nothing at all is free: the reserve serves first readers, stamps, fences and deletions.
    fill_up(&directory, 0);
    let fresh = Kit::at(&directory);
    let pool_of_other = fresh.engine.open_pool(&other.at, &other.expected()).await.unwrap();
    assert_eq!(count(&pool_of_other).await, SqlValue::Integer(0));
    assert_eq!(reserve.reserve_state(), disk::ReserveState::Missing);
    let frozen = Identity { state: IdentityState::Frozen, ..other.identity.clone() };
    fresh.engine.freeze_database(&other.at, &other.expected(), &frozen).await.unwrap();
    let stamped = Identity { generation: mine.identity.generation.next(), ..mine.identity.clone() };
    kit.engine.stamp_identity(&mine.at, &mine.expected(), &stamped).await.unwrap();
    kit.engine.drop_database(&other.at, None).await.unwrap();

    std::fs::remove_file(&filler).unwrap();
    a_moment().await;
    let expected = ExpectedIdentity { generation: stamped.generation, ..mine.expected() };
    let pool = Kit::at(&directory).engine.open_pool(&mine.at, &expected).await.unwrap();
    assert_eq!(count(&pool).await, SqlValue::Integer(2));
    write(&pool, 100).await.unwrap();
    assert_eq!(reserve.reserve_state(), disk::ReserveState::Kept, "it is made again");
}

#[tokio::test]
async fn a_disk_without_inodes_counts_as_full() {
    const NAME: &str = "sqlite::storage::a_disk_without_inodes_counts_as_full";
    let Some(directory) = child::directory() else {
        let directory = tempfile::tempdir().unwrap();
        let mount = "mount -t tmpfs -o size=64m,nr_inodes=2000 tmpfs \"$0\"";
        return child::succeeds(child::mounted(mount, NAME, directory.path()));
    };
    let kit = Kit::at(&directory);
    let tenant = kit.provisioned(&set(&[NOTES])).await;
    let many = directory.join("many");
    std::fs::create_dir(&many).unwrap();
    let made = (0..).take_while(|n| std::fs::write(many.join(n.to_string()), "").is_ok()).count();
    assert!(made > 1_000);
    let pool = kit.engine.open_pool(&tenant.at, &tenant.expected()).await.unwrap();
    assert_eq!(count(&pool).await, SqlValue::Integer(0));
    let error = write(&pool, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskLow, "{error}");
    let frozen = Identity { state: IdentityState::Frozen, ..tenant.identity.clone() };
    kit.engine.freeze_database(&tenant.at, &tenant.expected(), &frozen).await.unwrap();
    std::fs::remove_dir_all(&many).unwrap();
    a_moment().await;
    kit.engine
        .stamp_identity(
            &tenant.at,
            &ExpectedIdentity { states: vec![IdentityState::Frozen], ..tenant.expected() },
            &tenant.identity,
        )
        .await
        .unwrap();
    let pool = kit.engine.open_pool(&tenant.at, &tenant.expected()).await.unwrap();
    write(&pool, 1).await.unwrap();
}
