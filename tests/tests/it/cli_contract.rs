//! Every example of the command line's contract, embedded and against a running server: the same script, both ways.

use std::path::Path;

use fleet_tests::Served;
use serde_json::{Value, json};

use crate::shell::Shell;

const FIRST: &str = include_str!("../../../migrations/example/sqlite/0001_tasks.sql");
const SECOND: &str = "alter table tasks add column due_at text;\ncreate index tasks_due on tasks (due_at);\n";

#[test]
fn every_example_works_embedded() {
    let shell = Shell::init();
    script(&shell);
}

#[test]
fn every_example_works_against_a_server_by_url() {
    let mut shell = Shell::init();
    let served = Served::start(shell.path());
    shell.set("FLEET_URL", served.admin_url.clone());
    shell.set("FLEET_TOKEN", served.operator_token());
    // The data directory is out of reach: everything must come over the network.
    shell.set("FLEET_DATA_DIR", "/nonexistent");
    script(&shell);
}

#[test]
fn every_example_works_beside_a_server_on_the_same_directory() {
    let shell = Shell::init();
    let _served = Served::start(shell.path());
    script(&shell);
}

/// The contract's examples, in its order.
fn script(shell: &Shell) {
    let acme = shell.json("tenant create acme")["items"][0].take();
    assert_eq!((&acme["name"], &acme["state"], &acme["engine"]), (&json!("acme"), &json!("active"), &json!("sqlite")));
    assert!(acme["id"].as_str().unwrap().starts_with("tnt_"));
    assert!(acme.get("schema_version").is_some() && acme["generation"].is_i64(), "{acme}");

    let names: String = (0..200).map(|n| format!("t{n:03}\n")).collect();
    shell.write("names.txt", &names);
    shell.ok("tenant create --from-file names.txt");
    let listed = shell.ok("tenant list -o name");
    assert_eq!(listed.lines().count(), 201);
    assert!(names.lines().all(|n| listed.lines().any(|l| l == n)));

    migrations(shell);
    backups(shell);
    restores(shell);
    tokens_and_queries(shell);
}

fn migrations(shell: &Shell) {
    shell.write("migrations/app/0001_tasks.sql", FIRST);
    shell.ok("migrate run ./migrations/app --all");
    let status = shell.json("migrate status");
    assert_eq!(
        (&status["total"], &status["up_to_date"], &status["pending"]),
        (&json!(201), &json!(201), &json!(0)),
        "{status}"
    );
    assert_eq!(status["head"]["head_version"], json!(1));

    shell.write("migrations/app/0002_due.sql", SECOND);
    let plan = shell.json("migrate plan ./migrations/app");
    assert_eq!(plan["pending"], json!(201), "{plan}");
    shell.refused("migrate plan ./migrations/app --check", 4);
    let some = shell.json("migrate run ./migrations/app acme t000");
    assert_eq!((&some["state"], &some["progress"]["done"]), (&json!("succeeded"), &json!(2)), "{some}");
    let rest = shell.json("migrate run ./migrations/app --all");
    assert_eq!((&rest["progress"]["done"], &rest["progress"]["skipped"]), (&json!(199), &json!(2)), "{rest}");
    shell.ok("migrate status --check");
}

fn backups(shell: &Shell) {
    shell.ok("backup run --all");
    let backups = shell.json("backup list acme");
    let newest = &backups["items"][0];
    assert_eq!((&newest["tenant"], &newest["schema_version"]), (&json!("acme"), &json!(2)), "{backups}");
    assert_eq!(backups["next_cursor"], Value::Null);
    let id = newest["id"].as_str().unwrap();
    assert_eq!(shell.json(&format!("backup get {id}"))["id"], newest["id"]);
    shell.ok(&format!("backup verify {id}"));
    assert_eq!(shell.ok("backup list -o name").lines().count(), 201);
}

fn restores(shell: &Shell) {
    let before = shell.json("tenant get acme");
    let preview = shell.json("restore preview acme --to latest");
    assert!(preview["backup"]["id"].as_str().unwrap().starts_with("bkp_"), "{preview}");
    shell.ok("restore run acme --to latest --yes");
    let after = shell.json("tenant get acme");
    assert_eq!((&after["id"], &after["name"], &after["state"]), (&before["id"], &json!("acme"), &json!("active")));
    assert!(after["generation"].as_i64() > before["generation"].as_i64(), "{before} {after}");
    shell.ok("restore undo acme --yes");

    let said = shell.refused("restore run acme --to 2001-01-01T00:00:00Z --as acme-old", 5);
    assert!(said.contains("backup_not_found"), "{said}");
    shell.refused("tenant get acme-old", 5);
    shell.ok("member add acme user-1 --role writer");
    shell.ok("restore run acme --to latest --as acme-copy");
    let copy = shell.json("tenant get acme-copy");
    assert_ne!(copy["id"], before["id"]);
    assert_eq!(shell.ok("member list acme-copy -o name"), "", "a copy has no members");
    assert_eq!(shell.ok("member list acme -o name"), "user-1\n");
    shell.ok("tenant delete acme-copy --yes");
}

fn tokens_and_queries(shell: &Shell) {
    let secret = shell.ok("token create --tenant acme --role writer -o name");
    assert!(secret.starts_with("ftk_") && secret.lines().count() == 1, "{secret}");
    for line in
        ["--service --role reader", "--member user-1", "--operator viewer", "--operator operator", "--operator admin"]
    {
        assert!(shell.ok(&format!("token create {line} -o name")).starts_with("ftk_"), "{line}");
    }
    let id = shell.json("token list --tenant acme")["items"][0]["id"].as_str().unwrap().to_owned();
    shell.ok(&format!("token revoke {id}"));
    assert!(!shell.ok("token list -o jsonl").contains(secret.trim()));

    let rows = shell.ok("query 'select count(*) from tasks' --all -o jsonl");
    assert_eq!(rows.lines().count(), 201);
    assert!(rows.lines().any(|l| l == r#"{"tenant":"acme","count(*)":0}"#), "{}", &rows[..200]);
    let csv = shell.ok("query 'select 1 as a, 2 as b' acme t001 -o csv");
    let mut lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines.remove(0), "tenant,a,b");
    lines.sort_unstable();
    assert_eq!(lines, ["acme,1,2", "t001,1,2"]);
    let ran = shell.run("query 'select no_such from tasks' acme");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert!(ran.stderr.contains("error: acme: sql_invalid: "), "{ran:?}");
    let ran = shell.run("query 'delete from tasks' acme");
    assert_ne!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn every_noun_answers_in_every_format() {
    let shell = Shell::init();
    shell.write("m/0001_tasks.sql", FIRST);
    shell.ok("migrate run m --all");
    shell.ok("tenant create acme -l plan=pro");
    shell.ok("tenant create globex");
    shell.ok("member add acme user-1 --role reader");
    shell.ok("token create --tenant acme --role reader");
    shell.ok("backup run acme");
    for line in [
        "status",
        "doctor",
        "tenant list",
        "tenant get acme",
        "server list",
        "server get local",
        "member list acme",
        "token list",
        "release list",
        "migrate status",
        "migrate plan",
        "backup list",
        "op list",
        "query 'select 1' acme",
    ] {
        for format in ["table", "wide", "json", "jsonl", "csv", "name"] {
            let text = shell.ok(&format!("{line} -o {format}"));
            let lines: Vec<_> = text.lines().collect();
            assert!(!lines.is_empty() || line == "migrate plan", "{line} -o {format} prints nothing");
            match format {
                "json" => assert!(serde_json::from_str::<Value>(&text).is_ok(), "{line}: {text}"),
                "jsonl" => assert!(lines.iter().all(|l| serde_json::from_str::<Value>(l).is_ok()), "{line}: {text}"),
                _ => {}
            }
        }
        let quiet = shell.run(&format!("{line} --quiet"));
        assert_eq!((quiet.code, quiet.stdout, quiet.stderr), (Some(0), String::new(), String::new()), "{line} --quiet");
    }
}

#[test]
fn a_selection_is_names_labels_a_server_a_file_or_all() {
    let shell = Shell::init();
    shell.ok("tenant create acme globex -l plan=pro,region=eu");
    shell.ok("tenant create initech");
    let names = |line: &str| shell.ok(line).lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names("tenant list -l plan=pro -o name"), ["acme", "globex"]);
    assert_eq!(names("tenant list -l plan=pro,region=us -o name").len(), 0);
    shell.ok("tenant label initech globex plan=free region-");
    assert_eq!(names("tenant list -l plan=free -o name"), ["globex", "initech"]);
    assert_eq!(shell.json("tenant get globex")["labels"], json!({"plan": "free"}));
    assert_eq!(names("query 'select 1' --server local -o name").len(), 3);
    let fed = shell.fed("query 'select 1' --from-file - -o name", b"acme\n# not this\n\nglobex\n");
    let mut seen: Vec<_> = fed.stdout.lines().collect();
    seen.sort_unstable();
    assert_eq!((fed.code, seen), (Some(0), vec!["acme", "globex"]));
    assert_eq!(names("tenant list acme initech -o name"), ["acme", "initech"]);
    for line in ["migrate run m", "backup run", "backup verify", "query 'select 1'", "tenant delete", "tenant protect"]
    {
        assert!(shell.refused(line, 2).contains("no tenant is selected") || line == "migrate run m", "{line}");
    }
}

#[test]
fn a_selection_that_matches_nobody_is_an_error_unless_it_may_be_empty() {
    let shell = Shell::init();
    shell.write("m/0001_tasks.sql", FIRST);
    for line in ["backup run --all", "query 'select 1' --all", "tenant suspend --all --reason x"] {
        assert!(shell.refused(line, 5).contains("matches no tenant"), "{line}");
    }
    // There the release is made the current one.
    shell.ok("migrate run m --all");
    shell.ok("tenant create acme -l plan=pro");
    shell.ok("tenant create globex");
    for line in [
        "backup run",
        "backup run --dry-run",
        "backup verify",
        "migrate run m",
        "query 'select 1'",
        "tenant suspend --reason x",
        "tenant read-only",
        "tenant archive --yes",
        "tenant delete --yes",
        "tenant protect",
    ] {
        assert!(shell.refused(&format!("{line} -l plan=typo"), 5).contains("matches no tenant"), "{line}");
    }
    assert!(shell.refused("tenant resume --all", 5).contains("none of them is suspended"));
    shell.ok("backup run -l plan=typo --allow-empty");
    shell.ok("tenant resume --all --allow-empty");
    let names = |selector: &str| shell.ok(&format!("tenant list -o name {selector}"));
    assert_eq!(names("-l plan!=free -l plan"), "acme\n");
    assert_eq!(names("-l '!plan'"), "globex\n");
    assert_eq!(names("-l 'plan notin (pro)'"), "globex\n");
    shell.ok("backup run -l 'plan in (pro,team)'");
    assert!(!shell.ok("backup list acme -o name").is_empty() && shell.ok("backup list globex -o name").is_empty());
}

#[test]
fn a_dry_run_changes_nothing() {
    let shell = Shell::init();
    shell.write("m/0001_tasks.sql", FIRST);
    shell.ok("tenant create acme");
    shell.ok("backup run acme");
    shell.ok("member add acme user-1 --role reader");
    let token = shell.json("token create --tenant acme --role reader")["token"]["id"].as_str().unwrap().to_owned();
    let release = shell.ok("release add m -o name");
    let everything = || {
        let lists =
            ["tenant list", "member list acme", "token list", "server list", "release list", "backup list", "op list"];
        lists.map(|l| without_room(&shell.ok(&format!("{l} -o csv")))).concat()
    };
    std::fs::create_dir(shell.path().join("more")).unwrap();
    let before = everything();
    let operation = shell.ok("op list -o name").lines().next().unwrap().to_owned();
    for line in [
        "tenant create globex".to_owned(),
        "tenant create globex initech".to_owned(),
        "tenant label acme plan=pro".to_owned(),
        "tenant protect acme".to_owned(),
        "tenant delete acme".to_owned(),
        "migrate run m --all".to_owned(),
        "backup run --all".to_owned(),
        "backup verify acme".to_owned(),
        "restore run acme --to latest".to_owned(),
        "restore run acme --to latest --as copy".to_owned(),
        "member add acme user-2 --role writer".to_owned(),
        "member remove acme user-1".to_owned(),
        "token create --service --role reader".to_owned(),
        format!("token revoke {token}"),
        format!("server add more --base {}", shell.path().join("more").display()),
        "server cordon local".to_owned(),
        format!("release activate {}", release.trim()),
        "release add m".to_owned(),
        format!("op retry {operation}"),
        format!("op cancel {operation}"),
        "init".to_owned(),
    ] {
        let ran = shell.run(&format!("{line} --dry-run"));
        assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
        assert!(ran.stderr.contains("dry run: "), "{line}: {ran:?}");
    }
    assert_eq!(everything(), before, "a dry run changed something");
}

/// The free room of a disk changes without anybody's doing.
fn without_room(csv: &str) -> String {
    csv.lines().filter(|l| !l.starts_with("local,")).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_some_tenants_fail_is_partial_and_named_and_can_be_retried() {
    let shell = Shell::init();
    shell.write("m/0001_tasks.sql", FIRST);
    shell.ok("migrate run m --all");
    shell.refused("migrate retry", 7);
    let names: String = (0..30).map(|n| format!("t{n:02}\n")).collect();
    shell.write("names.txt", names);
    shell.ok("tenant create --from-file names.txt");
    for tenant in ["t03", "t17"] {
        occupy(&shell, tenant);
    }
    shell.write("m/0002_clash.sql", "create table clash (id integer primary key);\n");
    let ran = shell.run("migrate run m --all -o json");
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let operation: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&operation["progress"]["done"], &operation["progress"]["failed"]), (&json!(28), &json!(2)));
    for tenant in ["t03", "t17"] {
        assert!(ran.stderr.contains(&format!("cause: {tenant}: migration_failed: ")), "{}", ran.stderr);
    }
    let id = operation["id"].as_str().unwrap();
    assert_eq!(shell.ok(&format!("op get {id} --steps failed -o name")), "t03\nt17\n");
    let again = shell.run("migrate run m --all -o json");
    let progress = serde_json::from_str::<Value>(&again.stdout).unwrap()["progress"].clone();
    assert_eq!((again.code, &progress["failed"], &progress["skipped"]), (Some(3), &json!(2), &json!(28)), "{progress}");
    let retried = shell.run("migrate retry");
    assert_eq!(retried.code, Some(3), "{retried:?}");
}

/// A table that the next migration wants to make, put there behind the fleet's back.
fn occupy(shell: &Shell, tenant: &str) {
    let id = shell.json(&format!("tenant get {tenant}"))["id"].as_str().unwrap().to_owned();
    let uuid = id.trim_start_matches("tnt_").replace('-', "");
    let file = databases(&shell.path().join("fleet-data"))
        .into_iter()
        .find(|p| p.to_string_lossy().replace('-', "").contains(&uuid))
        .expect("the tenant has a file");
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.execute_batch("create table clash (id integer primary key)").unwrap();
}

/// Every file of a database under this directory.
pub(crate) fn databases(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            out.extend(databases(&path));
        } else if path.extension().is_some_and(|e| e == "db") {
            out.push(path);
        }
    }
    out
}
