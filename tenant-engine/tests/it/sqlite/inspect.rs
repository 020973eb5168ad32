//! Looking, and dropping.

use tenant_engine::*;

use super::kit::{BASE, Kit, set};

#[tokio::test]
async fn damage_is_listed_and_a_quick_look_does_not_search_for_it() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let filler = "insert into projects(name) with recursive n(i) as (select 1 union all select i + 1 from n where i < 9000)
                  select hex(randomblob(20)) from n; create index by_name on projects(name); pragma wal_checkpoint(truncate)";
    tenant.open().execute_batch(filler).unwrap();
    let mut bytes = std::fs::read(tenant.path()).unwrap();
    let pages = bytes.len() / 4096;
    for page in (pages / 2..pages).step_by(3) {
        bytes[page * 4096..page * 4096 + 200].fill(0xee);
    }
    std::fs::write(tenant.path(), &bytes).unwrap();
    let look = |depth| kit.engine.inspect_database(&tenant.at, None, depth);
    assert!(look(InspectionDepth::Ledger).await.unwrap().problems.is_empty());
    let seen = look(InspectionDepth::Full).await.unwrap();
    assert!((1..=100).contains(&seen.problems.len()), "{:?}", seen.problems);
    assert_eq!(seen.identity, tenant.identity);

    std::fs::write(tenant.path(), vec![0x55; 8192]).unwrap();
    assert_eq!(look(InspectionDepth::Ledger).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn the_size_counts_the_log() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let before = kit.engine.inspect_database(&tenant.at, None, InspectionDepth::Ledger).await.unwrap().size_bytes;
    let app = tenant.open();
    app.execute_batch("insert into projects(name) values('x')").unwrap();
    assert!(kit.engine.inspect_database(&tenant.at, None, InspectionDepth::Ledger).await.unwrap().size_bytes > before);
}

#[tokio::test]
async fn dropping_takes_everything_that_stands_beside_it_and_no_more() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    kit.migrate(&tenant, &super::kit::base_and(&[("3_x.sql", "create table x(a);")])).await.unwrap();
    let directory = tenant.path().parent().unwrap().to_path_buf();
    std::fs::write(directory.join("g1-1.db.part"), "left").unwrap();
    std::fs::write(directory.join("g2-9.db"), "another generation").unwrap();
    kit.engine.drop_database(&tenant.at, Some(&tenant.expected())).await.unwrap();
    assert_eq!(tenant.files(), ["g2-9.db"]);
}

#[tokio::test]
async fn dropping_never_leaves_the_servers_directory() {
    let kit = Kit::new();
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("g1-1.db"), "precious").unwrap();
    let linked = kit.tenant();
    std::os::unix::fs::symlink(elsewhere.path(), linked.path().parent().unwrap()).unwrap();
    assert_eq!(kit.engine.drop_database(&linked.at, None).await.unwrap_err().kind(), ErrorKind::Io);

    let tenant = kit.tenant();
    std::fs::create_dir(tenant.path().parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("g1-1.db"), tenant.path()).unwrap();
    let error = kit.engine.drop_database(&tenant.at, Some(&tenant.expected())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "a link is not opened");
    kit.engine.drop_database(&tenant.at, None).await.unwrap();
    assert!(!tenant.path().parent().unwrap().exists(), "the link itself goes");
    assert_eq!(std::fs::read(elsewhere.path().join("g1-1.db")).unwrap(), b"precious");
}

#[tokio::test]
async fn a_corrupt_database_is_dropped_only_without_expectation() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    std::fs::write(tenant.path(), vec![9; 5000]).unwrap();
    let error = kit.engine.drop_database(&tenant.at, Some(&tenant.expected())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    kit.engine.drop_database(&tenant.at, None).await.unwrap();
    assert!(!tenant.path().exists());
}
