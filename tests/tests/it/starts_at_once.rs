//! Several processes that start at once where a data directory was moved or copied: all of them come to the same answer,
//! and what they leave is one clear state.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Output, Stdio};

use fleet_tests::{Fleet, fleetctl};
use serde_json::Value;

use crate::copies::{COUNT, databases, open, refused, said, shell, two_places, works};

/// Enough that some of them read before, some while and some after the first one writes.
const PROCESSES: usize = 8;

/// Starts them all, then waits for all.
fn at_once(fleet: &Fleet, data_dir: &str) -> Vec<Output> {
    let commands: [&[&str]; 4] =
        [&["query", COUNT, "acme"], &["init"], &["query", COUNT, "globex"], &["tenant", "list"]];
    let start = |args: &&[&str]| {
        let mut command = fleetctl(fleet.dir());
        command.args(*args).args(["--data-dir", data_dir]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let started: Vec<_> = commands.iter().cycle().take(PROCESSES).map(start).collect();
    started.into_iter().map(|process| process.wait_with_output().unwrap()).collect()
}

/// Everything that says where the directory is and whose the servers outside are.
#[derive(Debug, PartialEq)]
struct Place {
    data_dir: String,
    claims: BTreeSet<String>,
    /// In the file beside the catalog.
    file: BTreeSet<String>,
    /// In the marker of the directory outside.
    marker: String,
    bases: Vec<String>,
}

fn list(text: &str) -> BTreeSet<String> {
    serde_json::from_str::<Vec<String>>(text).unwrap().into_iter().collect()
}

fn place(fleet: &Fleet, data_dir: &str) -> Place {
    let root = fleet.dir().join(data_dir);
    let db = open(&root.join("catalog.db"));
    let text = |sql: &str| db.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    let marker: Value =
        serde_json::from_slice(&std::fs::read(fleet.dir().join("disk2/.fleet-server.json")).unwrap()).unwrap();
    let bases = text("select group_concat(base, ' ') from (select base from servers order by base)");
    Place {
        data_dir: text("select data_dir from fleet"),
        claims: list(&text("select claims from fleet")),
        file: list(&std::fs::read_to_string(root.join("fleet.claims")).unwrap()),
        marker: marker["claim"].as_str().unwrap().to_owned(),
        bases: bases.split(' ').map(str::to_owned).collect(),
    }
}

/// All succeeded, and what is recorded belongs together, is not the original's, and stays as it is.
fn settled(fleet: &Fleet, data_dir: &str, before: &Place) {
    for output in at_once(fleet, data_dir) {
        assert!(output.status.success(), "{}", said(&output));
    }
    let after = place(fleet, data_dir);
    let here = fleet.dir().canonicalize().unwrap().join(data_dir);
    assert_eq!(Path::new(&after.data_dir), here);
    assert!(after.claims.is_superset(&before.claims), "{before:?} {after:?}");
    assert_eq!(after.claims.len(), before.claims.len() + 1, "only the first one adds a claim: {before:?} {after:?}");
    assert!(after.claims.is_superset(&after.file) && after.claims.contains(&after.marker), "{after:?}");
    assert!(!before.claims.contains(&after.marker), "the original would still be let in: {after:?}");
    assert_eq!(after.bases, before.bases);
    works(fleet, data_dir, &["query", COUNT, "acme"]);
    let steady = place(fleet, data_dir);
    for output in at_once(fleet, data_dir) {
        assert!(output.status.success(), "{}", said(&output));
    }
    assert_eq!(place(fleet, data_dir), steady, "it does not settle");
    assert_eq!(steady.claims, after.claims);
}

#[test]
fn several_that_start_at_once_in_a_moved_directory_agree() {
    let fleet = two_places();
    let before = place(&fleet, "fleet-data");
    shell(&fleet, "mv", &["fleet-data", "moved"]);
    settled(&fleet, "moved", &before);
}

#[test]
fn several_that_start_at_once_in_a_copy_are_all_refused_beside_its_original_and_agree_without_it() {
    let fleet = two_places();
    let before = place(&fleet, "fleet-data");
    shell(&fleet, "cp", &["-a", "fleet-data", "copy"]);
    let (inside, outside) = (databases(&fleet.dir().join("copy/tenants")), databases(&fleet.dir().join("disk2")));
    for output in at_once(&fleet, "copy") {
        let said = said(&output);
        assert!(!output.status.success() && said.contains("data_dir_copied"), "{said}");
    }
    assert_eq!(place(&fleet, "copy"), before);
    assert_eq!(place(&fleet, "fleet-data"), before);
    assert_eq!(
        (databases(&fleet.dir().join("copy/tenants")), databases(&fleet.dir().join("disk2"))),
        (inside, outside)
    );

    shell(&fleet, "mv", &["fleet-data", "away"]);
    settled(&fleet, "copy", &before);
    shell(&fleet, "mv", &["away", "fleet-data"]);
    for output in at_once(&fleet, "fleet-data").iter().step_by(4) {
        assert!(!output.status.success() && said(output).contains("data_dir_copied"), "{}", said(output));
    }
    refused(&fleet, "fleet-data", &["query", COUNT, "acme"]);
    works(&fleet, "copy", &["query", COUNT, "acme"]);
}
