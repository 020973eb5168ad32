//! Where a backup lies, and who may run commands on a data directory.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Output;

use fleet_tests::{Fleet, fleetctl};

/// A user without a name, for whom nothing is set up.
const OTHER_USER: u32 = 54_321;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn with_store(fleet: &Fleet, store: &str, args: &[&str]) -> Output {
    let url = format!("file://{}", fleet.dir().join(store).display());
    fleetctl(fleet.dir()).args(args).env("FLEET_BACKUP_URL", url).output().unwrap()
}

#[track_caller]
fn refused(output: &Output, code: &str, part: &str) {
    let text = said(output);
    assert!(!output.status.success() && text.contains(code) && text.contains(part), "{code}, {part}: {text}");
}

#[test]
fn a_backup_that_lies_in_another_store_is_said_to_lie_there() {
    let fleet = Fleet::with_tenants(&["acme"]);
    assert!(with_store(&fleet, "store-a", &["backup", "run", "--all"]).status.success());
    assert!(with_store(&fleet, "store-b", &["backup", "run", "--all"]).status.success());
    let listed = fleet.json(&["backup", "list", "acme"]);
    let listed = listed["items"].as_array().unwrap_or_else(|| panic!("{listed}"));
    let (newer, older) = (listed[0]["id"].as_str().unwrap(), listed[1]["id"].as_str().unwrap());
    assert!(listed[1]["store"].as_str().unwrap().ends_with("/store-a"), "{listed:?}");

    // From the default store, and from the other one.
    for args in [&["backup", "verify", "acme"][..], &["restore", "run", "acme", "--to", newer, "--yes"]] {
        refused(&fleet.run(args), "backup_elsewhere", "store-b");
        refused(&with_store(&fleet, "store-a", args), "backup_elsewhere", "FLEET_BACKUP_URL=file://");
    }
    refused(
        &with_store(&fleet, "store-b", &["restore", "run", "acme", "--to", older, "--yes"]),
        "backup_elsewhere",
        "store-a",
    );
    assert!(
        fleet.json(&["backup", "list", "acme"])["items"][0]["verify_error"].is_null(),
        "it says nothing about the backup"
    );
    let restored = with_store(&fleet, "store-a", &["restore", "run", "acme", "--to", older, "--yes"]);
    assert!(restored.status.success(), "{}", said(&restored));

    // A store that was copied to another place works there; a backup of an older program is looked for where one looks.
    std::fs::rename(fleet.dir().join("store-b"), fleet.dir().join("store-c")).unwrap();
    let moved = with_store(&fleet, "store-c", &["restore", "run", "acme", "--to", newer, "--yes"]);
    assert!(moved.status.success(), "{}", said(&moved));
    let catalog = fleet_tests::invariants::open(&fleet.dir().join("fleet-data/catalog.db"));
    catalog.execute_batch("update backups set store = null").unwrap();
    refused(
        &with_store(&fleet, "store-a", &["restore", "run", "acme", "--to", newer, "--yes"]),
        "backup_damaged",
        "missing",
    );
}

#[test]
fn the_default_store_moves_with_its_data_directory() {
    let fleet = Fleet::with_tenants(&["acme"]);
    fleet.ok(&["backup", "run", "--all"]);
    assert_eq!(fleet.json(&["backup", "list", "acme"])["items"][0]["store"], "file:backups");
    std::fs::rename(fleet.dir().join("fleet-data"), fleet.dir().join("moved")).unwrap();
    let verified = fleetctl(fleet.dir()).args(["backup", "verify", "acme", "--data-dir", "moved"]).output().unwrap();
    assert!(verified.status.success(), "{}", said(&verified));
    let elsewhere = with_store(&fleet, "other", &["backup", "verify", "acme", "--data-dir", "moved"]);
    refused(&elsewhere, "backup_elsewhere", "unset FLEET_BACKUP_URL");
}

#[test]
fn an_unknown_option_of_the_store_is_refused_by_name_and_other_programs_variables_are_not() {
    let fleet = Fleet::init();
    let status = |variable: &str| {
        let mut command = fleetctl(fleet.dir());
        command.args(["tenant", "list"]).env(variable, "other").output().unwrap()
    };
    for variable in ["AWS_PROFILE", "AWS_PAGER", "AWS_VAULT", "AWS_SDK_LOAD_CONFIG", "AWS_NO_SUCH_THING"] {
        assert!(status(variable).status.success(), "{variable}: {}", said(&status(variable)));
    }
    for option in ["aws_pager", "AWS_PAGER", "regoin"] {
        std::fs::write(fleet.dir().join("fleet.toml"), format!("[backup_options]\n{option} = \"x\"\n")).unwrap();
        refused(&fleet.run(&["tenant", "list"]), "backup_store_unusable", &option.to_lowercase());
    }
}

/// What is below a directory and does not belong to this process's user.
fn foreign(below: &Path) -> Vec<String> {
    let own = rustix_uid();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        if metadata.uid() != own {
            found.push(entry.path().display().to_string());
        }
        if metadata.is_dir() {
            found.extend(foreign(&entry.path()));
        }
    }
    found
}

fn rustix_uid() -> u32 {
    std::fs::metadata("/proc/self").unwrap().uid()
}

#[test]
fn another_users_data_directory_is_refused_before_anything_is_made() {
    // Only root can act as somebody else.
    if rustix_uid() != 0 {
        return;
    }
    let fleet = Fleet::with_tenants(&["acme"]);
    std::fs::set_permissions(fleet.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let data = fleet.dir().join("fleet-data");
    std::process::Command::new("chmod").args(["-R", "a+rwX"]).arg(&data).status().unwrap();
    let commands: [&[&str]; 6] = [
        &["tenant", "list"],
        &["tenant", "create", "new"],
        &["doctor"],
        &["init"],
        &["catalog", "check"],
        &["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"],
    ];
    for args in commands {
        let other = fleetctl(fleet.dir()).args(args).uid(OTHER_USER).output().unwrap();
        refused(&other, "wrong_user", "sudo -u root");
    }
    assert_eq!(foreign(&data), Vec::<String>::new());

    // The other way round: root on the directory of a user.
    std::process::Command::new("chown").args(["-R", &OTHER_USER.to_string()]).arg(&data).status().unwrap();
    for args in commands {
        refused(&fleet.run(args), "wrong_user", &format!("sudo -u '#{OTHER_USER}'"));
    }
    assert!(fleetctl(fleet.dir()).args(["tenant", "list"]).uid(OTHER_USER).output().unwrap().status.success());
    // An empty directory that was made for a user.
    let empty = fleet.dir().join("empty");
    std::fs::create_dir(&empty).unwrap();
    std::os::unix::fs::chown(&empty, Some(OTHER_USER), None).unwrap();
    refused(&fleet.run(&["init", "--data-dir", "empty"]), "wrong_user", "belongs to the user");
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
}
