//! A full disk and a read-only one: clear errors, nothing half-made, and everything works again afterwards.

use tenant_engine::*;

use crate::child;
use crate::kit::{BASE, Kit, base_and, set};

const GROWTH: &str = "create table big(b); insert into big values(zeroblob(400000));";

#[tokio::test]
async fn a_full_disk_leaves_nothing_half_made() {
    let Some(directory) = child::directory() else {
        let directory = tempfile::tempdir().unwrap();
        let mount = "mount -t tmpfs -o size=1m tmpfs \"$0\"";
        return child::succeeds(child::mounted(
            mount,
            "storage::a_full_disk_leaves_nothing_half_made",
            directory.path(),
        ));
    };
    let kit = Kit::at(&directory);
    let (base, head) = (set(&BASE), base_and(&[("0003_big.sql", GROWTH)]));
    let tenant = kit.provisioned(&base).await;
    let image = kit.engine.snapshot(&tenant.at, &tenant.expected()).await.unwrap().image;

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
    let template = kit.engine.template(&kit.server(), &base).await.unwrap();
    let error = kit.engine.provision(&refused.at, &template, &refused.identity).await.unwrap_err();
    assert_eq!((error.kind(), error.kind().is_transient()), (ErrorKind::DiskFull, true), "{error}");
    assert!(!refused.path().parent().unwrap().exists());
    let error = kit.engine.restore(&refused.at, image, tenant.identity.tenant, &refused.identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    assert!(!refused.path().parent().unwrap().exists());
    let error = kit.migrate(&tenant, &head).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");

    std::fs::remove_file(&filler).unwrap();
    let seen = kit.engine.inspect(&tenant.at, Some(&tenant.expected()), Depth::Full).await.unwrap();
    assert_eq!((seen.schema_version(), seen.problems.len()), (Some(2), 0));
    assert_eq!(kit.migrate(&tenant, &head).await.unwrap().applied, [3]);
    kit.engine.provision(&refused.at, &template, &refused.identity).await.unwrap();
}

fn rustix_fallocate(file: &std::fs::File, offset: u64, bytes: u64) -> std::io::Result<()> {
    Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), offset, bytes)?)
}

#[tokio::test]
async fn a_read_only_disk_is_named() {
    const NAME: &str = "storage::a_read_only_disk_is_named";
    let Some(directory) = child::directory() else {
        let directory = tempfile::tempdir().unwrap();
        let kit = Kit::at(directory.path());
        kit.provisioned(&set(&BASE)).await;
        let mount = "mount --bind \"$0\" \"$0\"; mount -o remount,bind,ro \"$0\"";
        return child::succeeds(child::mounted(mount, NAME, directory.path()));
    };
    let kit = Kit::at(&directory);
    let tenant = kit.tenant();
    let template = kit.engine.template(&kit.server(), &set(&BASE)).await.unwrap();
    let error = kit.engine.provision(&tenant.at, &template, &tenant.identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnlyStorage, "{error}");

    let existing = kit.any().unwrap();
    let error = kit.migrate(&existing, &base_and(&[("0003_big.sql", GROWTH)])).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ReadOnlyStorage | ErrorKind::Io), "{:?} {error}", error.kind());
    let error = kit.engine.drop_database(&existing.at, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnlyStorage, "{error}");
}
