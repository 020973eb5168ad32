//! The page in a real browser: `tests/browser.mjs` drives it against the real binary.

use std::path::Path;
use std::process::Command;

use postgres_fixture::Cluster;

use crate::processes::TasksProcess;

fn drives_the_page(cluster: Option<&Cluster>) {
    let dir = tempfile::tempdir().unwrap();
    let process = TasksProcess::start(dir.path(), cluster);
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let driver = package.join("../../target/tools/browser/node_modules/playwright-core/index.mjs");
    assert!(driver.exists(), "the browser's driver is not installed: run ./check, which installs it");
    let mut node = Command::new("node");
    node.arg(package.join("tests/browser.mjs")).arg(driver.canonicalize().unwrap()).arg(&process.url).arg(dir.path());
    let output = node.output().expect("node is installed by ./check");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
}

#[test]
fn people_work_with_the_page_on_sqlite() {
    drives_the_page(None);
}

#[test]
fn people_work_with_the_page_on_postgres() {
    drives_the_page(Some(&Cluster::start()));
}
