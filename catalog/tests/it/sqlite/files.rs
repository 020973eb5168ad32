//! What only a file can do wrong: paths, permissions, damage.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use catalog::db::CatalogLocation;
use catalog::seal::FleetKey;
use catalog::{Catalog, ErrorKind};

use super::suite::{Fixture, clock, copy, seed};

async fn open(path: &Path, key: &FleetKey) -> catalog::Result<Catalog> {
    Catalog::open(&CatalogLocation::File(path.to_path_buf()), copy(key), clock()).await
}

async fn create(path: &Path, key: &FleetKey) -> catalog::Result<Catalog> {
    Catalog::create(&CatalogLocation::File(path.to_path_buf()), copy(key), clock()).await
}

pub(crate) fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn all_files_are_their_owners_only() {
    let fixture = Fixture::new().await;
    seed(&fixture.catalog, 1).await;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(fixture.world.directory.path()).unwrap() {
        let path = entry.unwrap().path();
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), wanted, "{}", path.display());
        files.push(path);
    }
    assert_eq!(files.len(), 4, "main file, log, index and the reserve's directory: {files:?}");
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
async fn a_truncated_catalog_is_corrupt() {
    let fixture = Fixture::new().await;
    seed(&fixture.catalog, 500).await;
    fixture.catalog.close().await;
    let whole = std::fs::read(fixture.world.path()).unwrap();
    for length in [whole.len() / 2, 4096, 1000] {
        std::fs::write(fixture.world.path(), &whole[..length]).unwrap();
        let error = open(&fixture.world.path(), &fixture.key()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{length}: {error}");
    }
}

#[tokio::test]
async fn a_place_that_cannot_hold_a_catalog_says_why() {
    let fixture = Fixture::new().await;
    // Below a file, and where not even an administrator may write.
    for path in [fixture.world.path().join("catalog.db"), "/proc/catalog.db".into(), "/proc/fleet/catalog.db".into()] {
        let error = create(&path, &fixture.key()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(std::error::Error::source(&error).is_some(), "the system's own reason is kept");
    }
    assert_eq!(create(Path::new("/"), &fixture.key()).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn closing_folds_the_log_in() {
    let fixture = Fixture::new().await;
    seed(&fixture.catalog, 2).await;
    fixture.catalog.close().await;
    assert!(!fixture.world.directory.path().join("catalog.db-wal").exists());
}
