//! Two data directories that were one: which of them may use the servers outside, and how a copy becomes a fleet of its
//! own.

use std::path::Path;
use std::process::{Command, Output};

use fleet_tests::postgres::{PostgresFleet, SERVER};
use fleet_tests::{Fleet, fleetctl};
use rusqlite::Connection;

pub(crate) const COUNT: &str = "select count(*) as tasks from tasks";

pub(crate) fn at(fleet: &Fleet, data_dir: &str, args: &[&str]) -> Output {
    fleetctl(fleet.dir()).args(args).args(["--data-dir", data_dir]).output().unwrap()
}

pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
pub(crate) fn works(fleet: &Fleet, data_dir: &str, args: &[&str]) -> String {
    let output = at(fleet, data_dir, args);
    assert!(output.status.success(), "{data_dir} {args:?}: {}", said(&output));
    said(&output)
}

#[track_caller]
pub(crate) fn refused(fleet: &Fleet, data_dir: &str, args: &[&str]) -> String {
    let output = at(fleet, data_dir, args);
    let said = said(&output);
    assert!(!output.status.success() && said.contains("data_dir_copied"), "{data_dir} {args:?}: {said}");
    said
}

pub(crate) fn shell(fleet: &Fleet, program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).current_dir(fleet.dir()).status().unwrap();
    assert!(status.success(), "{program} {args:?}");
}

/// Name, length and content of every database below a directory. Logs beside them come and go with who reads.
pub(crate) fn databases(below: &Path) -> Vec<(String, String)> {
    let output = Command::new("find").arg(below).args(["-name", "*.db", "-type", "f"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut found: Vec<_> = text.lines().map(|path| (path.to_owned(), content(Path::new(path)))).collect();
    found.sort();
    assert!(!found.is_empty(), "{}", below.display());
    found
}

fn content(path: &Path) -> String {
    let db = open(path);
    let identity = "select tenant_id || fleet_id || generation || state from _fleet_identity";
    let identity: String = db.query_row(identity, [], |row| row.get(0)).unwrap();
    let rows: String =
        db.query_row("select coalesce(group_concat(id || title, ';'), '') from tasks", [], |row| row.get(0)).unwrap();
    let schema = "select group_concat(sql, ';') from sqlite_schema where sql is not null";
    let schema: String = db.query_row(schema, [], |row| row.get(0)).unwrap();
    format!("{identity} {rows} {schema}")
}

pub(crate) fn open(path: &Path) -> Connection {
    fleet_tests::invariants::open(path)
}

/// A tenant inside the data directory and one outside, with a row each.
pub(crate) fn two_places() -> Fleet {
    let fleet = Fleet::with_tenants(&["acme", "globex"]);
    fleet.add_directory("disk2");
    fleet.ok(&["tenant", "move", "acme", "--to", "disk2"]);
    fleet
}

#[test]
fn an_original_that_comes_back_after_its_copy_was_used_may_not_use_what_is_outside() {
    let fleet = two_places();
    shell(&fleet, "cp", &["-a", "fleet-data", "copy"]);
    shell(&fleet, "mv", &["fleet-data", "away"]);
    works(&fleet, "copy", &["query", COUNT, "acme"]);
    shell(&fleet, "mv", &["away", "fleet-data"]);
    let outside = databases(&fleet.dir().join("disk2"));
    for args in [
        &["query", COUNT, "acme"][..],
        &["tenant", "delete", "acme", "--yes", "--no-backup"],
        &["server", "drain", "disk2", "--to", "local"],
    ] {
        let said = refused(&fleet, "fleet-data", args);
        assert!(["catalog take-over", "explain data_dir_copied"].iter().any(|next| said.contains(next)), "{said}");
    }
    assert_eq!(databases(&fleet.dir().join("disk2")), outside);
    // What is inside is its own.
    works(&fleet, "fleet-data", &["query", COUNT, "globex"]);
    works(&fleet, "fleet-data", &["init"]);
    for command in [&["doctor"][..], &["server", "list"]] {
        let said = said(&at(&fleet, "fleet-data", command));
        assert!(said.contains("data_dir_copied"), "{command:?}: {said}");
    }
    works(&fleet, "copy", &["query", COUNT, "acme"]);

    // Said to be the right one, the original has its servers back, and the copy is refused.
    works(&fleet, "fleet-data", &["catalog", "take-over", "--yes"]);
    works(&fleet, "fleet-data", &["query", COUNT, "acme"]);
    refused(&fleet, "copy", &["query", COUNT, "acme"]);
}

/// What a process leaves that ends between two of the writes of an accepted move.
#[test]
fn a_move_that_is_cut_off_anywhere_is_gone_on_with_and_keeps_the_original_out() {
    let fleet = two_places();
    shell(&fleet, "cp", &["-a", "fleet-data", "copy"]);
    let marker = fleet.dir().join("disk2/.fleet-server.json");
    let before = std::fs::read(&marker).unwrap();
    let claims = std::fs::read(fleet.dir().join("fleet-data/fleet.claims")).unwrap();
    shell(&fleet, "mv", &["fleet-data", "away"]);
    for file_was_written in [true, false] {
        works(&fleet, "copy", &["tenant", "list"]);
        std::fs::write(&marker, &before).unwrap();
        if !file_was_written {
            std::fs::write(fleet.dir().join("copy/fleet.claims"), &claims).unwrap();
        }
        works(&fleet, "copy", &["query", COUNT, "acme"]);
        assert_ne!(std::fs::read(&marker).unwrap(), before);
    }
    // A catalog that was set back to before the move learns from the file beside it.
    let set_back = format!(
        "update fleet set claims = '{}', data_dir = '{}'",
        String::from_utf8(claims).unwrap(),
        fleet.dir().join("fleet-data").display()
    );
    open(&fleet.dir().join("copy/catalog.db")).execute_batch(&set_back).unwrap();
    works(&fleet, "copy", &["query", COUNT, "acme"]);
    shell(&fleet, "mv", &["away", "fleet-data"]);
    refused(&fleet, "fleet-data", &["query", COUNT, "acme"]);
}

#[test]
fn a_copy_becomes_a_fleet_of_its_own_and_does_nothing_to_its_original() {
    let fleet = two_places();
    fleet.ok(&["tenant", "create", "frozen", "--server", "local"]);
    fleet.ok(&["tenant", "suspend", "frozen", "--reason", "test"]);
    fleet.ok(&["tenant", "create", "stored", "--server", "local"]);
    fleet.ok(&["backup", "run", "--all"]);
    fleet.ok(&["tenant", "archive", "stored", "--yes"]);
    shell(&fleet, "cp", &["-a", "fleet-data", "staging"]);
    let said = refused(&fleet, "staging", &["tenant", "list"]);
    assert!(said.contains("catalog new-identity"), "{said}");

    let planned = works(&fleet, "staging", &["catalog", "new-identity", "--dry-run"]);
    for part in ["disk2", "acme, stored", "Databases inside it, which become the new fleet's: 3"] {
        assert!(planned.contains(part), "{part}: {planned}");
    }
    let unconfirmed = at(&fleet, "staging", &["catalog", "new-identity"]);
    assert!(!unconfirmed.status.success() && self::said(&unconfirmed).contains("--yes"));
    let inside = databases(&fleet.dir().join("fleet-data/tenants"));
    let outside = databases(&fleet.dir().join("disk2"));
    works(&fleet, "staging", &["catalog", "new-identity", "--yes"]);

    let original = fleet.json(&["status"])["fleet_id"].clone();
    assert!(!works(&fleet, "staging", &["status", "-o", "json"]).contains(original.as_str().unwrap()));
    works(&fleet, "staging", &["query", COUNT, "globex"]);
    works(&fleet, "staging", &["tenant", "resume", "frozen"]);
    let migrations = fleet.dir().join("app");
    std::fs::create_dir_all(&migrations).unwrap();
    for args in
        [&["tenant", "create", "new"][..], &["backup", "run", "--all"], &["tenant", "move", "globex", "--to", "local"]]
    {
        at(&fleet, "staging", args);
    }
    for args in [
        &["query", COUNT, "acme"][..],
        &["server", "drain", "disk2", "--to", "local"],
        &["tenant", "undelete", "acme"],
        &["tenant", "purge", "acme", "--yes"],
        &["tenant", "unarchive", "stored"],
    ] {
        assert!(!at(&fleet, "staging", args).status.success(), "{args:?}");
    }
    works(&fleet, "staging", &["tenant", "delete", "globex", "--yes", "--no-backup"]);
    works(&fleet, "staging", &["tenant", "purge", "globex", "--yes"]);
    works(&fleet, "staging", &["scrub"]);
    assert_eq!(databases(&fleet.dir().join("fleet-data/tenants")), inside);
    assert_eq!(databases(&fleet.dir().join("disk2")), outside);
    for tenant in ["acme", "globex"] {
        fleet.ok(&["query", COUNT, tenant]);
    }
    fleet.ok(&["tenant", "unarchive", "stored"]);
    fleet.ok(&["scrub"]);
}

/// A version that named directories by their absolute path: what is inside the copy is the copy's nevertheless.
#[test]
fn a_copy_of_the_version_befores_directory_keeps_what_is_inside() {
    let fleet = two_places();
    let root = fleet.dir().join("fleet-data").canonicalize().unwrap();
    let sql = format!(
        "update fleet set data_dir = null, claims = null; update servers set base = '{}/tenants' where name = 'local'",
        root.display()
    );
    open(&root.join("catalog.db")).execute_batch(&sql).unwrap();
    shell(&fleet, "cp", &["-a", "fleet-data", "staging"]);
    let inside = databases(&root.join("tenants"));
    works(&fleet, "staging", &["catalog", "new-identity", "--yes"]);
    works(&fleet, "staging", &["query", COUNT, "globex"]);
    assert!(!at(&fleet, "staging", &["query", COUNT, "acme"]).status.success());
    assert_eq!(databases(&root.join("tenants")), inside);
    fleet.ok(&["query", COUNT, "acme"]);
}

/// A copy of a link leads to the original's databases.
#[test]
fn what_is_behind_a_link_stays_with_the_original() {
    let fleet = Fleet::with_tenants(&["acme"]);
    shell(&fleet, "mv", &["fleet-data/tenants", "disk"]);
    std::os::unix::fs::symlink(fleet.dir().join("disk"), fleet.dir().join("fleet-data/tenants")).unwrap();
    fleet.ok(&["query", COUNT, "acme"]);
    let before = databases(&fleet.dir().join("disk"));
    shell(&fleet, "cp", &["-a", "fleet-data", "staging"]);
    assert!(works(&fleet, "staging", &["catalog", "new-identity", "--yes"]).contains("stay with the original: local"));
    assert_eq!(databases(&fleet.dir().join("disk")), before);
    assert!(!at(&fleet, "staging", &["tenant", "purge", "acme", "--yes"]).status.success());
    fleet.ok(&["query", COUNT, "acme"]);

    shell(&fleet, "cp", &["-a", "fleet-data", "copy"]);
    shell(&fleet, "mv", &["fleet-data", "away"]);
    works(&fleet, "copy", &["query", COUNT, "acme"]);
    shell(&fleet, "mv", &["away", "fleet-data"]);
    refused(&fleet, "fleet-data", &["query", COUNT, "acme"]);
}

/// What a process leaves that ends after it stamped one of two databases.
#[test]
fn a_new_identity_that_is_cut_off_refuses_everything_until_it_is_finished() {
    let fleet = Fleet::with_tenants(&["acme", "globex"]);
    shell(&fleet, "cp", &["-a", "fleet-data", "staging"]);
    let next = format!("flt_{}", "01890000-0000-7000-8000-000000000000");
    let catalog = open(&fleet.dir().join("staging/catalog.db"));
    let old: String = catalog.query_row("select id from fleet", [], |row| row.get(0)).unwrap();
    let next = format!("{}{}", &old[..old.len() - next.len().min(4)], "abcd");
    catalog.execute("update fleet set next_id = ?1, data_dir = null", [&next]).unwrap();
    drop(catalog);
    let (path, _) = &databases(&fleet.dir().join("staging/tenants"))[0];
    open(Path::new(path)).execute("update _fleet_identity set fleet_id = ?1", [&next]).unwrap();
    let output = at(&fleet, "staging", &["tenant", "list"]);
    assert!(!output.status.success() && said(&output).contains("identity_unfinished"), "{}", said(&output));
    works(&fleet, "staging", &["catalog", "new-identity", "--yes"]);
    assert!(works(&fleet, "staging", &["status", "-o", "json"]).contains(&next));
    for tenant in ["acme", "globex"] {
        works(&fleet, "staging", &["query", COUNT, tenant]);
        fleet.ok(&["query", COUNT, tenant]);
    }
}

#[test]
fn a_postgres_server_is_used_by_one_of_two_copies() {
    let pg = PostgresFleet::with_tenants(&["acme"]);
    let fleet = &pg.fleet;
    fleet.ok(&["query", COUNT, "acme"]);
    shell(fleet, "cp", &["-a", "fleet-data", "copy"]);
    shell(fleet, "mv", &["fleet-data", "away"]);
    works(fleet, "copy", &["query", COUNT, "acme"]);
    shell(fleet, "mv", &["away", "fleet-data"]);
    for args in [
        &["query", COUNT, "acme"][..],
        &["tenant", "create", "new", "--server", SERVER],
        &["backup", "run", "acme"],
        &["tenant", "delete", "acme", "--yes", "--no-backup"],
    ] {
        refused(fleet, "fleet-data", args);
    }
    works(fleet, "copy", &["query", COUNT, "acme"]);
    works(fleet, "fleet-data", &["catalog", "take-over", "--yes"]);
    works(fleet, "fleet-data", &["query", COUNT, "acme"]);
    refused(fleet, "copy", &["query", COUNT, "acme"]);

    works(fleet, "copy", &["catalog", "new-identity", "--yes"]);
    let databases = pg.databases();
    assert!(!at(fleet, "copy", &["tenant", "purge", "acme", "--yes"]).status.success());
    works(fleet, "copy", &["tenant", "create", "other", "--server", "local"]);
    works(fleet, "copy", &["scrub"]);
    assert_eq!(pg.databases(), databases);
    fleet.ok(&["query", COUNT, "acme"]);
}
