//! `fleetctl doctor` as cron runs it: what is wrong, and what it could not look at, ends with exit code 4.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use fleet_tests::{Fleet, Served, fleetctl, invariants};
use serde_json::Value;

const DAY_MS: i64 = 24 * 3_600_000;

/// The exit code, and the check of this name.
fn check(output: &Output, name: &str) -> (Option<i32>, String, String) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let checks = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = checks.into_iter().find(|check| check["name"] == name);
    let found = found.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let word = |key: &str| found[key].as_str().unwrap().to_owned();
    (output.status.code(), word("status"), word("detail"))
}

fn doctor(fleet: &Fleet, name: &str) -> (Option<i32>, String, String) {
    check(&fleet.run(&["doctor", "-o", "jsonl"]), name)
}

fn change_catalog(fleet: &Fleet, sql: &str) {
    invariants::open(&fleet.dir().join("fleet-data/catalog.db")).execute_batch(sql).unwrap();
}

#[test]
fn each_tenants_backups_count() {
    let fleet = Fleet::with_tenants(&["acme", "globex"]);
    fleet.ok(&["backup", "run", "acme"]);
    let (_, status, detail) = doctor(&fleet, "backups");
    assert!(status == "warn" && detail.contains("of 2 tenants, 1 new"), "{status}: {detail}");

    change_catalog(&fleet, &format!("update tenants set created_at = created_at - {}", 2 * DAY_MS));
    let (code, status, detail) = doctor(&fleet, "backups");
    assert!(
        code == Some(4) && status == "fail" && detail.contains("1 without a backup"),
        "{code:?} {status}: {detail}"
    );

    fleet.ok(&["backup", "run", "--all"]);
    assert_eq!(doctor(&fleet, "backups").1, "ok");
    change_catalog(&fleet, &format!("update backups set taken_at = taken_at - {}", 2 * DAY_MS));
    let (code, status, detail) = doctor(&fleet, "backups");
    assert!(code == Some(4) && status == "fail" && detail.contains("2 with none of the last 26 hours"), "{detail}");
    let weekly = fleet.run(&["doctor", "--backup-age-hours", "170", "-o", "jsonl"]);
    assert_eq!(check(&weekly, "backups").1, "ok");

    change_catalog(&fleet, &format!("update backups set taken_at = taken_at + {}", 4 * DAY_MS));
    let (code, status, detail) = doctor(&fleet, "backups");
    assert!(code == Some(4) && status == "fail" && detail.contains("dated in the future"), "{detail}");
}

#[test]
fn a_store_that_was_deleted_is_not_ok() {
    let fleet = Fleet::with_tenants(&["acme"]);
    fleet.ok(&["backup", "run", "--all"]);
    let (_, status, detail) = doctor(&fleet, "backup_store");
    assert!(status == "ok" && detail.contains("written, read and removed"), "{detail}");
    let store = fleet.dir().join("fleet-data/backups");
    let left = std::fs::read_dir(store.join("v1/probes")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "the probe leaves nothing");

    let served = Served::start(fleet.dir());
    std::fs::remove_dir_all(&store).unwrap();
    let (code, status, detail) = doctor(&fleet, "backup_store");
    assert!(code == Some(4) && status == "unknown", "{status}: {detail}");
    assert!(!store.exists(), "a probe does not make it anew");
    drop(served);
    let (code, status, detail) = doctor(&fleet, "backup_store");
    assert!(code == Some(4) && status == "fail" && detail.contains("lacks 1 of the last 1"), "{status}: {detail}");
}

#[test]
fn databases_that_cannot_be_looked_at_are_not_ok() {
    let fleet = Fleet::with_tenants(&["acme", "globex"]);
    let tenants = fleet.dir().join("fleet-data/tenants");
    assert_eq!(doctor(&fleet, "databases").1, "ok");
    std::fs::set_permissions(&tenants, std::fs::Permissions::from_mode(0o000)).unwrap();
    // Even an administrator's process obeys permissions without these two rights.
    let mut command = Command::new("setpriv");
    let program = fleetctl(fleet.dir());
    command.args(["--bounding-set", "-dac_override,-dac_read_search"]).arg(program.get_program());
    command.args(["doctor", "-o", "jsonl"]).current_dir(fleet.dir()).env_clear();
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    std::fs::set_permissions(&tenants, std::fs::Permissions::from_mode(0o700)).unwrap();
    let (code, status, detail) = check(&output, "databases");
    assert!(code == Some(4) && status == "unknown" && detail.contains("could not look"), "{status}: {detail}");
}

/// A fleet of the version before has directories without a marker; another fleet's marker stops a process that serves.
#[test]
fn a_directory_of_databases_is_marked_at_first_use_and_another_fleets_is_refused() {
    let fleet = Fleet::with_tenants(&["acme"]);
    let marker = fleet.dir().join("fleet-data/tenants/.fleet-server.json");
    let text = std::fs::read_to_string(&marker).unwrap();
    std::fs::remove_file(&marker).unwrap();
    fleet.ok(&["tenant", "list"]);
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), text);
    assert_eq!(doctor(&fleet, "server_markers").1, "ok");

    std::fs::write(&marker, r#"{"fleet_id":"flt_01907000000070008000000000000009","server_id":"srv_1"}"#).unwrap();
    let (code, status, detail) = doctor(&fleet, "server_markers");
    assert!(code == Some(4) && status == "fail" && detail.contains("local"), "{status}: {detail}");
    let output = fleet.run(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && stderr.contains("base_in_use"), "{stderr}");
    std::fs::write(&marker, text).unwrap();
    drop(Served::start(fleet.dir()));
}
