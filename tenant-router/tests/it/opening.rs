//! An application opens a fleet with one call, and its process stays as it was.

use std::path::Path;

use catalog::Catalog;
use catalog::db::CatalogLocation;
use catalog::seal::FleetKey;
use secrecy::ExposeSecret as _;
use tenant_router::Fleet;

/// A data directory with an empty catalog and its key.
async fn data_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let key = FleetKey::generate();
    std::fs::write(dir.path().join("fleet.key"), key.secret_text().expose_secret()).unwrap();
    let file = CatalogLocation::File(dir.path().join("catalog.db"));
    Catalog::create(&file, key, crate::world::clock()).await.unwrap().close().await;
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The settings of this process that a library must not touch.
#[expect(clippy::disallowed_methods, reason = "the test compares the environment before and after")]
fn process_settings() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kept = ["Umask", "SigBlk", "SigIgn", "SigCgt"];
    let lines = status.lines().filter(|line| kept.iter().any(|name| line.starts_with(name))).map(str::to_owned);
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let priority = std::fs::read_to_string("/proc/self/stat").unwrap();
    let priority = priority.rsplit(')').next().unwrap().split(' ').nth(17).map(|nice| format!("nice {nice}"));
    let mut variables: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
    variables.sort();
    lines.chain([limits]).chain(priority).chain(variables).collect()
}

#[tokio::test]
async fn a_fleet_is_opened_by_its_directory_and_the_process_keeps_its_settings() {
    let dir = data_dir().await;
    let before = process_settings();
    let router = Fleet::open(text(dir.path())).await.unwrap();
    let error = router.principal(Some("nobody")).await.unwrap_err();
    assert_eq!(error.code(), "unauthenticated");
    router.shutdown().await;
    assert_eq!(process_settings(), before);
}

#[tokio::test]
async fn a_fleet_that_cannot_be_opened_says_what_to_do() {
    let nothing = tempfile::tempdir().unwrap();
    let moved = data_dir().await;
    std::fs::write(moved.path().join("catalog.moved"), "elsewhere").unwrap();
    let no_key = data_dir().await;
    std::fs::remove_file(no_key.path().join("fleet.key")).unwrap();
    let other_key = data_dir().await;
    std::fs::write(other_key.path().join("fleet.key"), FleetKey::generate().secret_text().expose_secret()).unwrap();
    let damaged = data_dir().await;
    std::fs::write(damaged.path().join("catalog.db"), vec![7; 5_000]).unwrap();
    for (dir, code, told) in [
        (&nothing, "not_initialised", "fleetctl init --data-dir"),
        (&moved, "catalog_moved", "catalog_url"),
        (&no_key, "wrong_key", "fleet.key"),
        (&other_key, "wrong_key", "key"),
        (&damaged, "catalog_corrupt", "catalog"),
    ] {
        let error = Fleet::open(text(dir.path())).await.map(drop).unwrap_err();
        assert_eq!((error.code(), error.to_string().contains(told)), (code, true), "{error}");
        assert_eq!(error.detail(), "The server is misconfigured", "a caller of the application learns nothing more");
    }
    assert!(!nothing.path().join("scratch").exists(), "nothing is created where there is no fleet");
    let error = Fleet::open("postgres://nobody@127.0.0.1:1/none").await.map(drop).unwrap_err();
    assert_eq!((error.code(), error.to_string().contains("FLEET_KEY")), ("wrong_key", true), "{error}");
    let key = FleetKey::generate().secret_text();
    let error = Fleet::at("postgres://nobody@127.0.0.1:1/none").key(key).router().await.map(drop).unwrap_err();
    assert_eq!(error.code(), "catalog_unavailable", "{error}");
}
