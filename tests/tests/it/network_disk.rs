//! SQLite on a file system of other machines or of user space: refused before anything is made, by whatever command.

use std::path::Path;
use std::process::{Command, Output};

use fleet_tests::{Fleet, Served, SmallDisk, fleetctl};

const CODE: &str = "network_file_system";
const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

fn run(dir: &Path, args: &[&str], accepted: bool) -> Output {
    let mut command = fleetctl(dir);
    if accepted {
        command.env("FLEET_NETWORK_FILE_SYSTEM", "accept-data-loss");
    }
    command.args(args).output().unwrap()
}

fn assert_refused(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(CODE) && said.contains("FUSE"), "{said}");
    assert!(said.contains("accept-data-loss"), "the refusal names the override and its risk: {said}");
}

#[test]
fn sqlite_on_a_network_file_system_is_refused_unless_the_risk_is_accepted() {
    let name = "network_disk::sqlite_on_a_network_file_system_is_refused_unless_the_risk_is_accepted";
    let Some(disk) = SmallDisk::in_user_space(name) else { return };
    let there = disk.path().to_str().unwrap();
    let fleet = Fleet::nowhere();
    for args in [&["init"][..], &["init", "--dry-run"], &["dev"]] {
        let data_dir = disk.path().join("new/fleet");
        assert_refused(&run(fleet.dir(), &[args, &["--data-dir", data_dir.to_str().unwrap()]].concat(), false));
    }
    fleet.ok(&["init"]);
    fleet.ok(&["tenant", "create", "acme"]);
    let add = ["server", "add", "far", "--base", there];
    assert_refused(&run(fleet.dir(), &add, false));
    let accepted = run(fleet.dir(), &[&add[..], &["--dry-run"]].concat(), true);
    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));

    // The disk of a fleet that exists is replaced below it.
    let tenants = fleet.dir().join("fleet-data/tenants");
    assert!(Command::new("mount").arg("--bind").args([disk.path(), &tenants]).status().unwrap().success());
    assert_refused(&run(fleet.dir(), &SERVE, false));
    for (accepted, verdict) in [(false, "fail"), (true, "warn")] {
        let output = run(fleet.dir(), &["doctor", "-o", "jsonl"], accepted);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.contains("file_systems")).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(verdict) && line.contains("FUSE"), "{line}");
    }
    assert!(Command::new("umount").arg(&tenants).status().unwrap().success());
    drop(Served::start(fleet.dir()));
}
