//! databases and quarantine: what stands under a server's directory, and what is moved out of the way.

use std::path::PathBuf;

use tenant_engine::*;

use super::kit::{BASE, Kit, set};

const DAY: &str = "20260102";

async fn found(kit: &Kit) -> Vec<ListedObject> {
    kit.engine.list_databases(&kit.server(), None).await.unwrap().found
}

async fn named(kit: &Kit, name: &str) -> ListedObject {
    found(kit).await.into_iter().find(|found| found.name == name).unwrap()
}

fn aside(kit: &Kit, name: &str) -> PathBuf {
    kit.root.path().join("quarantine").join(DAY).join(name)
}

#[tokio::test]
async fn a_listing_tells_databases_from_leftovers_and_opens_nothing() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let app = tenant.open();
    app.execute_batch("insert into projects(name) values ('one')").unwrap();
    let folder = tenant.path().parent().unwrap().to_path_buf();
    std::fs::write(folder.join("g9-9.db.part"), "half").unwrap();
    std::fs::write(folder.join("g8-8.db-wal"), "log").unwrap();
    std::fs::write(kit.root.path().join("notes.txt"), "notes").unwrap();
    std::fs::create_dir(kit.root.path().join("quarantine")).unwrap();
    std::fs::write(kit.root.path().join("quarantine/old"), "old").unwrap();
    let mut kinds: Vec<ListedObjectKind> = found(&kit).await.iter().map(|found| found.what).collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [ListedObjectKind::Database, ListedObjectKind::Part, ListedObjectKind::SideFile, ListedObjectKind::Unknown]
    );
    let database = named(&kit, tenant.at.catalog_reference()).await;
    assert_eq!(database.reference.as_deref(), Some(tenant.at.catalog_reference()));
    assert!(database.size_bytes > Some(std::fs::metadata(tenant.path()).unwrap().len()), "with its log");
    // The application's locks are still there: another writer is kept out.
    app.execute_batch("begin immediate").unwrap();
    found(&kit).await;
    let other = tenant.open();
    other.busy_timeout(std::time::Duration::ZERO).unwrap();
    assert!(other.execute_batch("begin immediate").is_err());
}

#[tokio::test]
async fn a_database_goes_with_everything_in_its_log_and_not_while_somebody_has_it_open() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let app = tenant.open();
    app.execute_batch("insert into projects(name) values ('in the log')").unwrap();
    let object = named(&kit, tenant.at.catalog_reference()).await;
    let go = async || kit.engine.quarantine_object(&kit.server(), &object, None, DAY).await;
    let with_identity = async || {
        let expected = tenant.expected();
        kit.engine.quarantine_object(&kit.server(), &object, Some(&expected), DAY).await
    };
    assert_eq!(with_identity().await.unwrap_err().kind(), ErrorKind::Busy, "even a reader");
    // What a killed process leaves: a log that nobody has folded.
    app.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    drop(app);
    assert!(std::fs::metadata(tenant.path().with_extension("db-wal")).unwrap().len() > 0);
    assert_eq!(go().await.unwrap_err().kind(), ErrorKind::Fenced, "it was found without an identity");
    let name = with_identity().await.unwrap();
    assert_eq!(kit.root.path().join(name), aside(&kit, tenant.at.catalog_reference()));
    assert!(!tenant.path().parent().unwrap().exists(), "nothing is left");
    let moved = rusqlite::Connection::open(aside(&kit, tenant.at.catalog_reference())).unwrap();
    let kept: i64 = moved.query_row("select count(*) from projects", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 1);
    assert!(found(&kit).await.is_empty());
}

#[tokio::test]
async fn what_is_another_file_or_has_another_name_stays() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let object = named(&kit, tenant.at.catalog_reference()).await;
    let expected = tenant.expected();
    let go =
        async |object: &ListedObject| kit.engine.quarantine_object(&kit.server(), object, Some(&expected), DAY).await;
    let other = ListedObject { physical: "1:1".to_owned(), ..object.clone() };
    assert_eq!(go(&other).await.unwrap_err().kind(), ErrorKind::Fenced);
    let second = kit.root.path().join("second");
    std::fs::hard_link(tenant.path(), &second).unwrap();
    assert_eq!(go(&object).await.unwrap_err().kind(), ErrorKind::Fenced);
    std::fs::remove_file(second).unwrap();
    for name in ["../x", "quarantine/x", "a/b/c"] {
        let outside = ListedObject { name: name.to_owned(), what: ListedObjectKind::Unknown, ..object.clone() };
        assert_eq!(go(&outside).await.unwrap_err().kind(), ErrorKind::Missing, "{name}");
    }
    assert!(tenant.path().exists());
}

#[tokio::test]
async fn leftovers_go_with_their_companions_and_damage_is_no_obstacle() {
    let kit = Kit::new();
    let tenant = kit.tenant();
    let folder = tenant.path().parent().unwrap().to_path_buf();
    std::fs::create_dir(&folder).unwrap();
    for file in ["g1-1.db.part", "g1-1.db.part-wal", "g2-1.db"] {
        std::fs::write(folder.join(file), "no database at all").unwrap();
    }
    let all = found(&kit).await;
    assert_eq!(all.len(), 2);
    for object in all {
        let moved = kit.engine.quarantine_object(&kit.server(), &object, None, DAY).await.unwrap();
        assert!(kit.root.path().join(moved).exists());
    }
    let uuid = folder.file_name().unwrap().to_str().unwrap();
    assert!(aside(&kit, &format!("{uuid}/g1-1.db.part-wal")).exists());
    assert!(!folder.exists());
}
