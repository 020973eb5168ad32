//! Copies of a data directory that are hard to tell from it: under another user, of an earlier version, under the same
//! path, on the way to a catalog on Postgres. And an original that is taken for a copy.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use fleet_tests::{Fleet, fleetctl};
use postgres_fixture::{Cluster, ROLE};

use crate::copies::{COUNT, at, databases, open, refused, said, shell, two_places, works};

/// A user without a name.
const OTHER_USER: u32 = 54_321;

fn claims(data_dir: &Path) -> Vec<String> {
    serde_json::from_slice(&std::fs::read(data_dir.join("fleet.claims")).unwrap()).unwrap()
}

/// What the version before left: absolute paths, no markers, nothing recorded.
fn make_older(data_dir: &Path) {
    let root = data_dir.canonicalize().unwrap();
    let sql = format!(
        "update fleet set data_dir = null, directory_mark = null, claims = null; \
         update servers set base = '{}/tenants' where name = 'local'",
        root.display()
    );
    open(&root.join("catalog.db")).execute_batch(&sql).unwrap();
    for name in ["tenants/.fleet-server.json", "fleet.claims"] {
        std::fs::remove_file(root.join(name)).unwrap();
    }
}

#[test]
fn a_copy_of_another_user_who_cannot_see_the_original_is_refused() {
    // Only root can act as somebody else.
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return;
    }
    let fleet = two_places();
    std::fs::set_permissions(fleet.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    shell(&fleet, "cp", &["-a", "fleet-data", "copy"]);
    shell(&fleet, "chown", &["-R", &OTHER_USER.to_string(), "copy"]);
    let marker = std::fs::read(fleet.dir().join("disk2/.fleet-server.json")).unwrap();
    let other = |args: &[&str]| {
        let run = fleetctl(fleet.dir()).args(args).args(["--data-dir", "copy"]).uid(OTHER_USER).output();
        let output = run.unwrap();
        (output.status.success(), said(&output))
    };
    for args in [&["tenant", "list"][..], &["init"], &["catalog", "take-over", "--yes"]] {
        let (done, said) = other(args);
        assert!(!done && said.contains("data_dir_copied") && said.contains("--original-is-gone"), "{args:?}: {said}");
    }
    assert_eq!(std::fs::read(fleet.dir().join("disk2/.fleet-server.json")).unwrap(), marker);
    fleet.ok(&["query", COUNT, "acme"]);
    let (done, said) = other(&["catalog", "take-over", "--yes", "--original-is-gone"]);
    assert!(done, "{said}");
    assert!(other(&["tenant", "list"]).0);
}

#[test]
fn a_copy_of_a_fleet_without_markers_does_nothing_to_its_original() {
    let fleet = Fleet::with_tenants(&["acme", "globex"]);
    let original = fleet.dir().join("fleet-data");
    make_older(&original);
    shell(&fleet, "cp", &["-a", "fleet-data", "copy"]);
    let before = databases(&original.join("tenants"));
    for args in [&["tenant", "list"][..], &["tenant", "delete", "acme", "--yes", "--no-backup"], &["init"]] {
        refused(&fleet, "copy", args);
    }
    works(&fleet, "copy", &["catalog", "new-identity", "--dry-run"]);
    refused(&fleet, "copy", &["tenant", "list"]);
    assert!(!original.join("tenants/.fleet-server.json").exists());
    works(&fleet, "copy", &["catalog", "new-identity", "--yes"]);
    works(&fleet, "copy", &["tenant", "delete", "acme", "--yes", "--no-backup"]);
    works(&fleet, "copy", &["tenant", "purge", "acme", "--yes"]);
    works(&fleet, "copy", &["query", COUNT, "globex"]);
    assert_eq!(databases(&original.join("tenants")), before);
    shell(&fleet, "mv", &["fleet-data", "moved"]);
    works(&fleet, "moved", &["query", COUNT, "acme"]);
}

/// A server of the catalog that lies in another data directory, however it came to be there.
#[test]
fn a_directory_in_another_data_directory_is_not_used() {
    let fleet = Fleet::with_tenants(&["acme"]);
    shell(&fleet, "cp", &["-a", "fleet-data", "copy"]);
    let [original, copy] = ["fleet-data", "copy"].map(|name| fleet.dir().join(name).canonicalize().unwrap());
    let (root, here) = (original.display(), copy.display());
    let sql = format!(
        "update fleet set data_dir = '{here}', directory_mark = null; update servers set base = '{root}/tenants'"
    );
    open(&copy.join("catalog.db")).execute_batch(&sql).unwrap();
    let before = databases(&original.join("tenants"));
    let marker = std::fs::read(original.join("tenants/.fleet-server.json")).unwrap();
    works(&fleet, "copy", &["tenant", "list"]);
    refused(&fleet, "copy", &["query", COUNT, "acme"]);
    refused(&fleet, "copy", &["tenant", "delete", "acme", "--yes", "--no-backup"]);
    assert_eq!(databases(&original.join("tenants")), before);
    assert_eq!(std::fs::read(original.join("tenants/.fleet-server.json")).unwrap(), marker);
}

#[test]
fn a_copy_under_the_same_path_adds_a_claim_and_keeps_the_original_out() {
    let fleet = two_places();
    let data_dir = fleet.dir().join("fleet-data");
    let first = claims(&data_dir);
    fleet.ok(&["tenant", "list"]);
    assert_eq!(claims(&data_dir), first, "nothing changed");
    shell(&fleet, "cp", &["-a", "fleet-data", "copy"]);
    shell(&fleet, "mv", &["fleet-data", "away"]);
    shell(&fleet, "mv", &["copy", "fleet-data"]);
    fleet.ok(&["query", COUNT, "acme"]);
    assert_eq!(claims(&data_dir).len(), first.len() + 1);
    shell(&fleet, "mv", &["fleet-data", "copy"]);
    shell(&fleet, "mv", &["away", "fleet-data"]);
    refused(&fleet, "fleet-data", &["query", COUNT, "acme"]);
    fleet.ok(&["query", COUNT, "globex"]);

    // A fleet that did not record it is not alarmed.
    shell(&fleet, "mv", &["fleet-data", "away"]);
    shell(&fleet, "mv", &["copy", "fleet-data"]);
    fleet.ok(&["query", COUNT, "acme"]);
    let known = claims(&data_dir);
    open(&data_dir.join("catalog.db")).execute_batch("update fleet set directory_mark = null").unwrap();
    fleet.ok(&["query", COUNT, "acme"]);
    assert_eq!(claims(&data_dir), known);
}

/// A machine that calls the directory something else at each start: the list stays short, and the servers are kept.
#[test]
fn many_starts_on_a_changing_file_system_keep_the_list_short() {
    let fleet = two_places();
    let data_dir = fleet.dir().join("fleet-data");
    let catalog = open(&data_dir.join("catalog.db"));
    let many: Vec<String> = (0..64).map(|number| format!("{number:032x}")).collect();
    let known = [many, claims(&data_dir)].concat();
    let known = serde_json::to_string(&known).unwrap();
    catalog.execute("update fleet set claims = ?1, directory_mark = 'x:1:1'", [known]).unwrap();
    for _ in 0..3 {
        catalog.execute_batch("update fleet set directory_mark = 'x:1:1'").unwrap();
        fleet.ok(&["query", COUNT, "acme"]);
        assert_eq!(claims(&data_dir).len(), 64);
    }
}

#[test]
fn new_identity_and_take_over_need_a_reason() {
    let fleet = two_places();
    let alone = at(&fleet, "fleet-data", &["catalog", "new-identity", "--yes"]);
    assert!(!alone.status.success() && said(&alone).contains("--not-a-copy"), "{}", said(&alone));
    fleet.ok(&["query", COUNT, "acme"]);
    shell(&fleet, "cp", &["-a", "fleet-data", "copy"]);
    refused(&fleet, "copy", &["catalog", "take-over", "--yes"]);
    fleet.ok(&["query", COUNT, "acme"]);

    works(&fleet, "fleet-data", &["catalog", "new-identity", "--yes", "--not-a-copy"]);
    let kept = fleet.dir().join("fleet-data/catalog.before-new-identity-1.db");
    assert_eq!(std::fs::metadata(&kept).unwrap().mode() & 0o777, 0o600);
    let states: i64 = open(&kept)
        .query_row("select count(*) from servers where name = 'disk2' and state = 'active'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(states, 1);
}

#[test]
fn a_new_identity_is_not_finished_while_a_database_lacks_it() {
    let fleet = Fleet::with_tenants(&["acme", "globex"]);
    shell(&fleet, "cp", &["-a", "fleet-data", "staging"]);
    let (path, _) = databases(&fleet.dir().join("staging/tenants")).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let spoilt = || std::fs::write(&path, vec![b'x'; whole.len()]).unwrap();
    spoilt();
    let give = |more: &[&str]| {
        let output = at(&fleet, "staging", &[&["catalog", "new-identity", "--yes"], more].concat());
        (output.status.code(), said(&output))
    };
    let (code, cut) = give(&[]);
    assert!(code != Some(0) && cut.contains("--skip-failed"), "{cut}");
    let listed = at(&fleet, "staging", &["tenant", "list"]);
    assert!(said(&listed).contains("identity_unfinished"), "{}", said(&listed));
    std::fs::write(&path, &whole).unwrap();
    let (code, done) = give(&[]);
    assert_eq!(code, Some(0), "{done}");
    for tenant in ["acme", "globex"] {
        works(&fleet, "staging", &["query", COUNT, tenant]);
    }

    shell(&fleet, "rm", &["-r", "staging"]);
    shell(&fleet, "cp", &["-a", "fleet-data", "staging"]);
    spoilt();
    let (_, done) = give(&["--skip-failed"]);
    assert!(done.contains("is the fleet"), "{done}");
    works(&fleet, "staging", &["tenant", "list"]);
}

#[test]
fn a_copy_does_not_become_a_fleet_on_postgres() {
    let cluster = Cluster::start();
    cluster.psql("postgres", &format!("create database catalog owner {ROLE}"));
    let fleet = two_places();
    std::fs::write(fleet.dir().join("dsn"), cluster.dsn("catalog")).unwrap();
    shell(&fleet, "chmod", &["600", "dsn"]);
    shell(&fleet, "cp", &["-a", "fleet-data", "copy"]);
    let copy = ["catalog", "copy", "--to-url-file", "dsn"];
    refused(&fleet, "copy", &copy);
    let half_made = "update fleet set next_id = id, data_dir = null";
    open(&fleet.dir().join("copy/catalog.db")).execute_batch(half_made).unwrap();
    let output = at(&fleet, "copy", &copy);
    assert!(!output.status.success() && said(&output).contains("identity_unfinished"), "{}", said(&output));
    assert!(!fleet.dir().join("copy/catalog.moved").exists());

    // The original goes there, and its catalog is set back later to before there were claims.
    fleet.ok(&["backup", "run", "globex"]);
    fleet.ok(&copy);
    fleet_tests::set_catalog(fleet.dir(), &cluster.dsn("catalog"));
    fleet.ok(&["query", COUNT, "acme"]);
    cluster.psql("catalog", "update fleet set claims = null");
    fleet.ok(&["query", COUNT, "acme"]);
    cluster.psql("catalog", "update fleet set next_id = id");
    assert!(said(&fleet.run(&["tenant", "list"])).contains("identity_unfinished"));
    cluster.psql("catalog", "update fleet set next_id = null, claims = null");
    std::fs::remove_file(fleet.dir().join("fleet-data/fleet.claims")).unwrap();
    refused(&fleet, "fleet-data", &["query", COUNT, "acme"]);
    fleet.ok(&["catalog", "take-over", "--yes"]);
    fleet.ok(&["query", COUNT, "acme"]);
    let output = fleet.run(&["catalog", "new-identity", "--yes"]);
    assert!(!output.status.success() && said(&output).contains("FLEET_CATALOG_URL"), "{}", said(&output));

    // Where its backup is was recorded beside the file.
    shell(&fleet, "rm", &["-r", "fleet-data/backups"]);
    let output = fleet.run(&["restore", "run", "globex", "--to", "latest", "--yes"]);
    assert!(!output.status.success() && !said(&output).contains("backup_elsewhere"), "{}", said(&output));
}

#[test]
fn the_control_planes_own_directories_become_no_servers() {
    let fleet = Fleet::init();
    for name in ["socket", "catalog.reserve"] {
        let base = fleet.dir().join("fleet-data").join(name);
        std::fs::create_dir_all(&base).unwrap();
        let output = fleet.run(&["server", "add", "own", "--base", base.to_str().unwrap()]);
        assert!(!output.status.success(), "{name}: {}", said(&output));
    }
}
