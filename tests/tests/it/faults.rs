//! Full disks, read-only directories, damaged files, migrations that fail on a few: a clear error, nothing half-made,
//! and a way on.

use std::fs::OpenOptions;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fleet_tests::{Fleet, example_migrations, fleetctl, invariants};
use serde_json::json;

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn file_of(fleet: &Fleet, tenant: &str) -> PathBuf {
    invariants::tenants(fleet.dir()).into_iter().find(|t| t.name == tenant).unwrap().file.unwrap()
}

fn count_tasks(fleet: &Fleet, tenant: &str) -> serde_json::Value {
    let line = fleet.ok(&["query", "select count(*) as n from tasks", tenant, "-o", "jsonl"]);
    serde_json::from_str::<serde_json::Value>(&line).unwrap()["n"].clone()
}

/// Overwrites every page but the first half kilobyte with noise, as a dying disk would.
fn damage(file: &Path) {
    let mut open = OpenOptions::new().write(true).open(file).unwrap();
    let length = open.metadata().unwrap().len();
    open.seek(SeekFrom::Start(512)).unwrap();
    open.write_all(&vec![0xA5; usize::try_from(length - 512).unwrap()]).unwrap();
}

#[test]
fn a_damaged_tenant_is_named_the_others_serve_and_a_restore_brings_it_back() {
    let fleet = Fleet::with_tenants(&["acme", "globex"]);
    let acme = file_of(&fleet, "acme");
    invariants::open(&acme).execute("insert into tasks (title) values ('kept')", []).unwrap();
    fleet.ok(&["backup", "run", "--all"]);
    damage(&acme);

    let output = fleet.run(&["query", "select count(*) as n from tasks", "--all", "-o", "jsonl"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("acme") && stderr(&output).contains("database_corrupt"), "{}", stderr(&output));
    assert_eq!(count_tasks(&fleet, "globex"), json!(0));

    fleet.ok(&["restore", "run", "acme", "--to", "latest", "--yes"]);
    assert_eq!(count_tasks(&fleet, "acme"), json!(1));
}

#[test]
fn a_truncated_backup_is_refused_and_the_tenant_goes_on() {
    let fleet = Fleet::with_tenants(&["acme"]);
    invariants::open(&file_of(&fleet, "acme")).execute("insert into tasks (title) values ('kept')", []).unwrap();
    fleet.ok(&["backup", "run", "acme"]);
    let object = objects(&fleet.dir().join("fleet-data/backups"))
        .into_iter()
        .find(|f| f.to_string_lossy().contains(".db"))
        .unwrap();
    let length = object.metadata().unwrap().len();
    OpenOptions::new().write(true).open(&object).unwrap().set_len(length / 2).unwrap();

    let output = fleet.run(&["restore", "run", "acme", "--to", "latest", "--yes"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("backup_damaged"), "{}", stderr(&output));
    assert_eq!(count_tasks(&fleet, "acme"), json!(1));
    let verified = fleet.run(&["backup", "verify", "acme"]);
    assert_ne!(verified.status.code(), Some(0), "a damaged backup must not verify");
    let listed = fleet.json(&["backup", "list", "acme"]);
    assert!(listed["items"][0]["verify_error"].is_string(), "{listed}");
    invariants::check(fleet.dir());
}

/// Every object that belongs to a tenant.
fn objects(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map_while(Result::ok) {
        if entry.path().is_dir() { found.extend(objects(&entry.path())) } else { found.push(entry.path()) }
    }
    found.retain(|f| f.to_string_lossy().contains("/tenants/"));
    found
}

#[test]
fn a_migration_that_fails_on_three_of_a_thousand_does_the_others_and_a_rerun_does_only_the_three() {
    let fleet = Fleet::init();
    fleet.ok(&["migrate", "run", &example_migrations(), "--all"]);
    let names: String = (0..1_000).map(|n| format!("t{n:04}\n")).collect();
    std::fs::write(fleet.dir().join("names.txt"), names).unwrap();
    fleet.ok(&["tenant", "create", "--from-file", "names.txt"]);
    let bad = ["t0003", "t0500", "t0999"];
    for name in bad {
        invariants::open(&file_of(&fleet, name)).execute_batch("create table notes (stray)").unwrap();
    }
    let set = second_release(&fleet);

    let output = fleet.run(&["migrate", "run", &set, "--all"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    for name in bad {
        assert!(stderr(&output).contains(name), "{name} is not named: {}", stderr(&output));
    }
    assert!(stderr(&output).contains("already exists"), "the cause is not told: {}", stderr(&output));
    let status = fleet.json(&["migrate", "status"]);
    assert_eq!((&status["up_to_date"], &status["pending"]), (&json!(997), &json!(3)), "{status}");

    for name in bad {
        invariants::open(&file_of(&fleet, name)).execute_batch("drop table notes").unwrap();
    }
    let planned = fleet.json(&["migrate", "run", &set, "--all", "--dry-run"]);
    assert_eq!(planned["plan"]["tenants"], json!(3), "{planned}");
    fleet.ok(&["migrate", "run", &set, "--all"]);
    assert_eq!(fleet.json(&["migrate", "status"])["up_to_date"], json!(1_000));
    invariants::check(fleet.dir());
}

#[test]
fn a_file_changed_after_it_was_applied_is_told_by_plan_and_by_run_and_nothing_is_applied() {
    let fleet = Fleet::with_tenants(&["acme"]);
    let set = second_release(&fleet);
    let first = oldest_file(&set);
    let text = std::fs::read_to_string(&first).unwrap();
    std::fs::write(&first, format!("{text}\n-- edited\n")).unwrap();
    for verb in ["plan", "run"] {
        let flags: &[&str] = if verb == "run" { &["--all"] } else { &[] };
        let output = fleet.run(&[&["migrate", verb, &set], flags].concat());
        assert_ne!(output.status.code(), Some(0), "{verb}");
        assert!(stderr(&output).contains("migration_changed"), "{verb}: {}", stderr(&output));
    }
    assert_eq!(fleet.json(&["tenant", "get", "acme"])["schema_version"], json!(1));
}

/// The oldest file of a directory of migrations.
fn oldest_file(set: &str) -> PathBuf {
    let mut files: Vec<PathBuf> = std::fs::read_dir(set).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.remove(0)
}

/// The example's files and one more.
fn second_release(fleet: &Fleet) -> String {
    let set = fleet.dir().join("second");
    std::fs::create_dir(&set).unwrap();
    for file in std::fs::read_dir(example_migrations()).unwrap().map_while(Result::ok) {
        std::fs::copy(file.path(), set.join(file.file_name())).unwrap();
    }
    std::fs::write(set.join("0900_notes.sql"), "create table notes (id integer primary key, text text not null);\n")
        .unwrap();
    set.to_string_lossy().into_owned()
}

/// Runs a script in a mount namespace of its own, where `$FLEET` is the program, `$DISK` a small file system and the
/// working directory an ordinary one.
fn with_a_small_disk(size: &str, script: &str) -> Output {
    let (work, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = Command::new("unshare");
    if !may_mount() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--mount", "sh", "-euc"])
        .arg(format!("mount -t tmpfs -o size={size} tmpfs \"$DISK\"; {script}"))
        .current_dir(work.path())
        .env("DISK", disk.path())
        .env("FLEET", fleetctl(work.path()).get_program())
        .env("HOME", work.path())
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

/// True when this process may mount without a user namespace.
fn may_mount() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

#[test]
fn a_full_disk_fails_the_steps_it_hits_and_a_retry_finishes_them() {
    let output = with_a_small_disk(
        "3m",
        r#"
        "$FLEET" init >/dev/null
        "$FLEET" server add small --base "$DISK" >/dev/null
        seq -f 't%04g' 1 400 > names.txt
        code=0; "$FLEET" tenant create --server small --from-file names.txt >/dev/null 2>errors.txt || code=$?
        echo "first $code"; grep -o disk_full errors.txt | head -1
        mount -o remount,size=64m "$DISK"
        op=$("$FLEET" op list -o name | head -1)
        "$FLEET" op retry "$op" >/dev/null 2>&1
        "$FLEET" op wait "$op" >/dev/null 2>&1
        echo "active $("$FLEET" tenant list -o jsonl | grep -c '"state":"active"')"
        "#,
    );
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = out.lines().collect();
    assert!(matches!(lines.first(), Some(&("first 3" | "first 1"))), "{out}\n{}", stderr(&output));
    assert_eq!(&lines[1..], ["disk_full", "active 400"], "{out}\n{}", stderr(&output));
}

#[test]
fn a_catalog_on_a_full_disk_is_told_in_time_and_the_work_goes_on_when_there_is_room() {
    let output = with_a_small_disk(
        "6m",
        r#"
        cd "$DISK"
        "$FLEET" init >/dev/null 2>&1
        seq -f 't%04g' 1 400 > names.txt
        code=0; "$FLEET" tenant create --from-file names.txt >/dev/null 2>"$HOME/errors.txt" || code=$?
        echo "first $code"; grep -c '^error:' "$HOME/errors.txt"
        mount -o remount,size=64m "$DISK"
        op=$("$FLEET" op list -o name | head -1)
        "$FLEET" op retry "$op" >/dev/null 2>&1 || true
        "$FLEET" op wait "$op" >/dev/null 2>&1
        echo "active $("$FLEET" tenant list -o jsonl | grep -c '"state":"active"')"
        "#,
    );
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines.first() == Some(&"first 15"), "{out}\n{}", stderr(&output));
    assert_eq!(&lines[1..], ["1", "active 400"], "{out}\n{}", stderr(&output));
}

#[test]
fn a_move_to_a_full_disk_leaves_the_tenant_where_it_serves() {
    let output = with_a_small_disk(
        "2m",
        r#"
        "$FLEET" init >/dev/null
        mkdir set
        echo 'create table filling (what text not null);' > set/0001_table.sql
        echo 'insert into filling (what) with recursive n(i) as (values (1) union all select i + 1 from n where i < 4000) select hex(randomblob(500)) from n;' > set/0002_fill.sql
        "$FLEET" migrate run set --all >/dev/null 2>&1
        "$FLEET" tenant create acme >/dev/null
        "$FLEET" server add small --base "$DISK" >/dev/null
        code=0; "$FLEET" tenant move acme --to small >/dev/null 2>errors.txt || code=$?
        echo "first $code"; grep -o disk_full errors.txt | head -1
        "$FLEET" tenant get acme -o json | tr -d ' \n' | grep -oE '"(state|server|block_writes)":("[a-z]*"|null)' | sort | tr '\n' ' '; echo
        echo "left $(find "$DISK" -name '*.db*' | wc -l)"
        mount -o remount,size=64m "$DISK"
        "$FLEET" tenant move acme --to small >/dev/null 2>&1
        "$FLEET" query 'select count(*) as n from filling' acme -o jsonl
        "#,
    );
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(&lines[..2], ["first 1", "disk_full"], "{out}\n{}", stderr(&output));
    assert_eq!(lines[2].trim(), r#""block_writes":null "server":"local" "state":"active""#, "{out}");
    assert_eq!(lines[3], "left 0", "{out}");
    assert!(lines[4].contains("4000"), "{out}\n{}", stderr(&output));
}

#[test]
fn a_read_only_directory_is_told_and_nothing_changes() {
    let output = with_a_small_disk(
        "16m",
        r#"
        cd "$DISK"
        "$FLEET" init >/dev/null 2>&1
        "$FLEET" tenant create acme >/dev/null 2>&1
        mount -o remount,ro "$DISK"
        code=0; "$FLEET" tenant create globex || code=$?
        echo "create $code"
        mount -o remount,rw "$DISK"
        "$FLEET" tenant list -o name
        "#,
    );
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(out.contains("create 1\n") && out.ends_with("acme\n"), "{out}\n{}", stderr(&output));
    assert!(stderr(&output).contains("read-only"), "the cause is not told: {}", stderr(&output));
}

#[test]
fn what_init_writes_is_readable_by_its_owner_only() {
    let fleet = Fleet::with_tenants(&["acme"]);
    let data = fleet.dir().join("fleet-data");
    for file in ["fleet.key", "operator.token", "catalog.db"] {
        let mode = data.join(file).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file} is {mode:o}");
    }
    for folder in ["", "tenants", "backups", "scratch"] {
        let mode = data.join(folder).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{folder} is {mode:o}");
    }
    let mode = file_of(&fleet, "acme").metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "a tenant's database is {mode:o}");
}
