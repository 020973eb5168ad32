//! A data directory in another place: moved, copied, or with a directory of databases that was moved.

use std::path::Path;
use std::process::{Command, Output};

use fleet_tests::{Fleet, fleetctl};

const COUNT: &str = "select count(*) as tasks from tasks";

fn at(fleet: &Fleet, data_dir: &str, args: &[&str]) -> Output {
    fleetctl(fleet.dir()).args(args).args(["--data-dir", data_dir]).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn shell(fleet: &Fleet, program: &str, args: &[&str]) {
    assert!(
        Command::new(program).args(args).current_dir(fleet.dir()).status().unwrap().success(),
        "{program} {args:?}"
    );
}

fn stored_bases(data_dir: &Path) -> Vec<String> {
    let catalog = fleet_tests::invariants::open(&data_dir.join("catalog.db"));
    let mut query = catalog.prepare("select base from servers order by name").unwrap();
    query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_moved_data_directory_works_and_a_copy_beside_its_original_is_refused() {
    let fleet = Fleet::with_tenants(&["acme"]);
    assert_eq!(stored_bases(&fleet.dir().join("fleet-data")), ["tenants"]);
    shell(&fleet, "cp", &["-a", "fleet-data", "staging"]);
    let before = std::fs::read_dir(fleet.dir().join("fleet-data/tenants")).unwrap().count();
    for args in [&["tenant", "list"][..], &["doctor"], &["init"], &["tenant", "delete", "acme", "--yes", "--no-backup"]]
    {
        let output = at(&fleet, "staging", args);
        assert!(!output.status.success() && said(&output).contains("data_dir_copied"), "{args:?}: {}", said(&output));
    }
    let original = fleet.dir().join("fleet-data").canonicalize().unwrap();
    assert!(said(&at(&fleet, "staging", &["tenant", "list"])).contains(original.to_str().unwrap()));
    assert_eq!(std::fs::read_dir(fleet.dir().join("fleet-data/tenants")).unwrap().count(), before);
    fleet.ok(&["query", COUNT, "acme"]);

    // By another name of the same directory nothing changes; moved away, its copy is what there is.
    std::os::unix::fs::symlink("fleet-data", fleet.dir().join("link")).unwrap();
    assert!(at(&fleet, "link", &["query", COUNT, "acme"]).status.success());
    shell(&fleet, "mv", &["fleet-data", "moved"]);
    let output = at(&fleet, "moved", &["query", COUNT, "acme"]);
    assert!(output.status.success(), "{}", said(&output));
    let output = at(&fleet, "staging", &["tenant", "list"]);
    assert!(output.status.success(), "its original is not where it was: {}", said(&output));
    for data_dir in ["moved", "staging"] {
        assert_eq!(stored_bases(&fleet.dir().join(data_dir)), ["tenants"]);
    }
}

/// A version that did not record the directory named its tenants by their absolute path.
#[test]
fn a_directory_of_the_version_before_is_moved_or_found_to_be_a_copy() {
    let fleet = Fleet::with_tenants(&["acme"]);
    let root = fleet.dir().join("fleet-data").canonicalize().unwrap();
    let sql = format!("update fleet set data_dir = null; update servers set base = '{}/tenants'", root.display());
    fleet_tests::invariants::open(&root.join("catalog.db")).execute_batch(&sql).unwrap();
    shell(&fleet, "cp", &["-a", "fleet-data", "staging"]);
    let output = at(&fleet, "staging", &["tenant", "list"]);
    assert!(!output.status.success() && said(&output).contains("data_dir_copied"), "{}", said(&output));
    shell(&fleet, "mv", &["fleet-data", "moved"]);
    let output = at(&fleet, "moved", &["query", COUNT, "acme"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(stored_bases(&fleet.dir().join("moved")), ["tenants"]);
}

#[test]
fn a_directory_of_databases_that_was_moved_is_found_at_its_new_place() {
    let fleet = Fleet::with_tenants(&["acme"]);
    fleet.add_directory("disk2");
    fleet.ok(&["tenant", "move", "acme", "--to", "disk2"]);
    let base = fleet.json(&["server", "get", "disk2"])["base"].as_str().unwrap().to_owned();
    let new = fleet.dir().join("new-disk").canonicalize().unwrap_or_else(|_| fleet.dir().join("new-disk"));
    let set = ["server", "set", "disk2", "--base", new.to_str().unwrap()];

    shell(&fleet, "cp", &["-a", &base, new.to_str().unwrap()]);
    let output = fleet.run(&set);
    assert!(!output.status.success() && said(&output).contains("still there"), "{}", said(&output));
    std::fs::remove_dir_all(&new).unwrap();
    let local = fleet.dir().join("fleet-data/tenants");
    let output = fleet.run(&["server", "set", "disk2", "--base", local.to_str().unwrap()]);
    assert!(!output.status.success(), "another server's directory: {}", said(&output));

    shell(&fleet, "mv", &[&base, new.to_str().unwrap()]);
    fleet.ok(&set);
    fleet.ok(&["query", COUNT, "acme"]);
    fleet.ok(&["scrub"]);
}
