//! The command line about a tenant whose restore went back to an older schema.

use fleet_tests::Fleet;
use serde_json::json;

/// A migration directory with these files.
fn write(fleet: &Fleet, files: &[(&str, &str)]) -> String {
    let dir = fleet.dir().join("m");
    std::fs::create_dir_all(&dir).unwrap();
    for (name, sql) in files {
        std::fs::write(dir.join(name), sql).unwrap();
    }
    dir.to_string_lossy().into_owned()
}

#[test]
fn every_command_names_a_pinned_tenant_and_none_calls_it_a_fault() {
    let fleet = Fleet::init();
    let set = write(&fleet, &[("0001_n.sql", "create table n (id integer primary key, b text);")]);
    fleet.ok(&["migrate", "run", &set, "--all"]);
    fleet.ok(&["tenant", "create", "acme", "globex"]);
    fleet.ok(&["backup", "run", "--all"]);
    write(&fleet, &[("0002_oops.sql", "update n set b = null;")]);
    fleet.ok(&["migrate", "run", &set, "--all"]);

    let preview = fleet.json(&["restore", "preview", "acme", "--to", "latest"]);
    let versions = (&preview["backup"]["schema_version"], &preview["current"]["schema_version"]);
    assert_eq!(versions, (&json!(1), &json!(2)));
    assert_eq!((&preview["schema_version"], &preview["pinned"]), (&json!(1), &json!(true)));
    let current = fleet.json(&["restore", "preview", "acme", "--to", "latest", "--schema", "current"]);
    assert_eq!((&current["schema_version"], &current["pinned"]), (&json!(2), &json!(false)));
    assert!(current["will"].as_str().unwrap().contains("migrated to version 2"), "{current}");

    let restored = fleet.run(&["restore", "run", "acme", "--to", "latest", "--yes"]);
    let said = String::from_utf8_lossy(&restored.stderr).into_owned();
    assert!(restored.status.success() && said.contains("acme is pinned at version 1, head 2"), "{said}");

    let tenant = fleet.json(&["tenant", "get", "acme"]);
    assert_eq!((&tenant["pin"]["version"], &tenant["pin"]["head_version"]), (&json!(1), &json!(2)));
    let status = fleet.json(&["migrate", "status"]);
    assert_eq!((&status["up_to_date"], &status["pending"], &status["pinned"]), (&json!(1), &json!(0), &json!(1)));
    assert_eq!(status["pinned_tenants"][0]["tenant"], "acme");
    fleet.ok(&["migrate", "status", "--check"]);
    let doctor = fleet.json(&["doctor"]);
    let schema = doctor["checks"].as_array().unwrap().iter().find(|check| check["name"] == "schema").unwrap().clone();
    assert_eq!(schema["status"], "ok");
    assert!(schema["detail"].as_str().unwrap().contains("acme at 1, head 2"), "{schema}");

    let plan = fleet.json(&["migrate", "plan", &set]);
    assert_eq!((&plan["pending"], &plan["pinned"]), (&json!(0), &json!(1)));
    assert_eq!(fleet.json(&["migrate", "plan", &set, "acme"])["pending"], 1);

    write(&fleet, &[("0003_c.sql", "alter table n add column c text;")]);
    assert!(fleet.ok(&["migrate", "run", &set, "--all", "--dry-run"]).contains("pinned at version 1"));
    let run = fleet.run(&["migrate", "run", &set, "--all"]);
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success() && said.contains("skipped: acme: acme is pinned at version 1"), "{said}");
    // A selection of pinned tenants only does nothing, and says so.
    fleet.ok(&["tenant", "label", "acme", "ring=slow"]);
    let run = fleet.run(&["migrate", "run", &set, "-l", "ring=slow"]);
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(!run.status.success() && said.contains("nothing_done") && said.contains("pinned"), "{said}");
    fleet.ok(&["migrate", "run", &set, "-l", "ring=slow", "--allow-empty"]);
    let refused = fleet.run(&["migrate", "run", &set, "globex", "--target", "1"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("restore run globex --to bkp_"), "{said}");
    fleet.ok(&["migrate", "run", &set, "--all", "--include-pinned"]);
    assert_eq!(fleet.json(&["tenant", "get", "acme"])["pin"], json!(null));
}
