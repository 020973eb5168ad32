//! An edited old migration file, as an operator meets it: refused by every command; and a fleet that an earlier version
//! let be split is told, with its tenants and files. And what a migration reached whose process was killed.

use std::path::Path;
use std::process::Stdio;

use fleet_tests::invariants;
use serde_json::json;

use crate::shell::Shell;

const FIRST: &str = "create table tasks (id integer primary key, title text);\n";
const EDITED: &str = "create table tasks (id integer primary key, title text, edited text);\n";
const SECOND: &str = "create table later (id integer primary key);\n";

/// Three tenants at version 1; the directory `old` has its text, `new` an edited one.
fn three() -> Shell {
    let shell = Shell::init();
    shell.write("old/0001_tasks.sql", FIRST);
    shell.write("new/0001_tasks.sql", EDITED);
    shell.ok("migrate run old --all");
    shell.ok("tenant create acme globex initech");
    shell
}

fn catalog(shell: &Shell) -> rusqlite::Connection {
    invariants::open(&shell.path().join("fleet-data/catalog.db"))
}

fn release(shell: &Shell, directory: &str) -> String {
    shell.json(&format!("release add {directory}"))["id"].as_str().unwrap().to_owned()
}

#[test]
fn an_edited_old_file_is_refused_by_every_command() {
    let shell = three();
    let edited = release(&shell, "new");
    for line in [
        "migrate run new --all",
        "migrate run new --all --dry-run",
        "migrate run new globex",
        "migrate run new globex --dry-run",
        "migrate plan new",
        &format!("migrate run {edited} --all"),
        &format!("migrate plan {edited}"),
        &format!("release activate {edited}"),
        &format!("release activate {edited} --dry-run"),
    ] {
        let said = shell.refused(line, 7);
        assert!(said.contains("the file of version 1 was changed") && said.contains("globex"), "{line}: {said}");
        assert!(said.contains("put the old text of the file back") && said.contains("migration_changed"), "{said}");
    }
    // The stored release changed nothing: new tenants start from the old one, and all is well.
    shell.ok("tenant create hooli");
    shell.ok("migrate status --check");
    assert_eq!(ledgers(&shell), ("ok".to_owned(), "tenants agree; 4 databases were read".to_owned()));
}

/// The doctor's verdict.
fn ledgers(shell: &Shell) -> (String, String) {
    let ran = shell.run("doctor -o jsonl");
    let checks = ran.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let found = checks.into_iter().find(|check| check["name"] == "ledgers").unwrap();
    assert!(found["status"] == "ok" || ran.code == Some(4), "{ran:?}");
    (found["status"].as_str().unwrap().to_owned(), found["detail"].as_str().unwrap().to_owned())
}

/// As the version before left it: the edited release is current although it failed everywhere, and a tenant has come since.
#[test]
fn a_fleet_that_is_split_already_is_told_with_its_tenants_and_file() {
    let shell = three();
    let edited = release(&shell, "new");
    catalog(&shell).execute("update fleet set current_release_id = ?1", [&edited]).unwrap();
    shell.ok("tenant create hooli");
    // With and without what that version did not record.
    for sql in ["update tenants set ledger_release_id = release_id", "update tenants set ledger_release_id = null"] {
        catalog(&shell).execute_batch(sql).unwrap();
        for line in ["migrate status --check", "migrate status --check --verify"] {
            let said = shell.refused(line, 4);
            let told = ["split: version 1 (1_tasks.sql) on sqlite", "3 tenants (", "1 tenant (hooli)", "acme", "try:"];
            assert!(told.iter().all(|part| said.contains(part)), "{line}: {said}");
        }
        let (status, detail) = ledgers(&shell);
        assert!(status == "fail" && detail.contains("hooli") && detail.contains("1_tasks.sql"), "{detail}");
        assert!(shell.refused("migrate run new --all", 7).contains("acme"));
        assert!(shell.refused("migrate run old --all --dry-run", 7).contains("hooli"));
    }
    // The way out: each text for the tenants that have it.
    for directory in ["old", "new"] {
        shell.write(&format!("{directory}/0002_later.sql"), SECOND);
    }
    shell.ok("migrate run old acme globex initech");
    shell.ok("migrate run new hooli");
    let versions: Vec<_> =
        shell.json("tenant list")["items"].as_array().unwrap().iter().map(|t| t["schema_version"].clone()).collect();
    assert_eq!(versions, [json!(2), json!(2), json!(2), json!(2)]);
    assert!(shell.refused("migrate status --check", 4).contains("split: version 1"));
}

#[test]
fn a_cancelled_operation_of_a_killed_process_leaves_true_versions() {
    let shell = three();
    shell.write("old/0002_later.sql", SECOND);
    let endless = "create table n (n integer);\ninsert into n with recursive c(n) as (select 1 union all select n + 1 \
                   from c where n < 9000000000000) select max(n) from c;\n";
    shell.write("old/0003_endless.sql", endless);
    let mut command = shell.command();
    command.args(["migrate", "run", "old", "acme"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let file =
        invariants::tenants(shell.path()).into_iter().find(|tenant| tenant.name == "acme").unwrap().file.unwrap();
    // A connection to the file itself would change how the migration opens it, so this reads a copy.
    while version_in_copy(&file) != Some(2) {
        assert!(child.try_wait().unwrap().is_none(), "the migration ended");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let version = || shell.json("tenant get acme")["schema_version"].clone();
    assert_eq!(version(), json!(1), "nobody could say it yet");
    let operation = shell.ok("op list --state running -o name").trim().to_owned();
    shell.ok(&format!("op cancel {operation}"));
    // The dead process's lease runs out.
    catalog(&shell).execute_batch("update steps set lease_until = 0 where state = 'running'").unwrap();
    let listed = shell.json("tenant list acme");
    assert_eq!(listed["items"][0]["schema_version"], json!(2), "{listed}");
    assert_eq!(shell.json(&format!("op get {operation}"))["state"], json!("cancelled"));
    let events = shell.ok(&format!("op events {operation} -o jsonl"));
    assert!(events.contains("tenant.migrated"), "{events}");
}

/// The newest version in a copy of this database; `None` if the copy cannot be read.
fn version_in_copy(file: &Path) -> Option<i64> {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy.db");
    std::fs::copy(file, &copy).unwrap();
    let _ = std::fs::copy(format!("{}-wal", file.display()), format!("{}-wal", copy.display()));
    let db = rusqlite::Connection::open(&copy).unwrap();
    db.query_row("select max(version) from _sqlx_migrations", [], |row| row.get(0)).ok()
}
