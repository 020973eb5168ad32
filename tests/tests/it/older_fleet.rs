//! A whole fleet that the version before `older_fleet.tar.gz` was last renewed made and left: this version opens it,
//! serves it, and takes every way back that the older one had prepared.
//!
//! In it, by the older program: `acme` (migrated, restored from its backup, kept for undo), `globex` (written since its
//! backup), `initech` (suspended), `umbrella` (archived), `hooli` (deleted), one release of two files, a token of `acme`.
//! Kept databases and deleted tenants stay for a century. Databases have what the program left in their logs.

use std::process::Command;

use fleet_tests::{Api, Fleet, Served};
use serde_json::{Value, json};

const SET: &str = "set";

fn opened() -> Fleet {
    let archive = fleet_tests::workspace_root().join("tests/tests/fixtures/older_fleet.tar.gz");
    let fleet = Fleet::nowhere();
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).current_dir(fleet.dir()).status().unwrap();
    assert!(unpacked.success());
    // It was made in another directory.
    let data = fleet.dir().join("fleet-data");
    let catalog = rusqlite::Connection::open(data.join("catalog.db")).unwrap();
    let base = data.join("tenants").canonicalize().unwrap();
    catalog.execute("update servers set base = ?1", [base.to_str().unwrap()]).unwrap();
    fleet
}

/// The texts of each tenant that serves.
fn texts(fleet: &Fleet, name: &str) -> Vec<String> {
    let answer = fleet.json(&["query", "select text from notes order by id", name]);
    let rows = answer["items"][0]["rows"].as_array().unwrap_or_else(|| panic!("{answer}"));
    rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
}

fn tenants(fleet: &Fleet) -> Vec<(String, String, i64)> {
    let listed = fleet.json(&["tenant", "list"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let tenant = |item: &Value| (text(&item["name"]), text(&item["state"]), item["schema_version"].as_i64().unwrap());
    listed["items"].as_array().unwrap().iter().map(tenant).collect()
}

fn succeeds(fleet: &Fleet, args: &[&str]) {
    let output = fleet.run(args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_fleet_opens_serves_and_goes_every_way_back() {
    let fleet = opened();
    let state = |name: &str, state: &str| (name.to_owned(), state.to_owned(), 2);
    let mut found = tenants(&fleet);
    found.sort();
    let states = [
        ("acme", "active"),
        ("globex", "active"),
        ("hooli", "deleted"),
        ("initech", "suspended"),
        ("umbrella", "archived"),
    ];
    assert_eq!(found, states.map(|(name, is)| state(name, is)));
    succeeds(&fleet, &["catalog", "check"]);
    succeeds(&fleet, &["scrub"]);
    assert_eq!(texts(&fleet, "acme"), ["canary of acme", "since the restore"]);

    // Its own backup, of the schema before, and its own kept database.
    succeeds(&fleet, &["backup", "verify", "globex"]);
    succeeds(&fleet, &["restore", "undo", "acme", "--yes"]);
    assert_eq!(texts(&fleet, "acme"), ["canary of acme", "since the backup"]);
    succeeds(&fleet, &["restore", "run", "globex", "--to", "latest", "--yes"]);
    assert_eq!(texts(&fleet, "globex"), ["canary of globex"]);
    succeeds(&fleet, &["restore", "undo", "globex", "--yes"]);
    assert_eq!(texts(&fleet, "globex"), ["canary of globex", "since the backup"]);
    succeeds(&fleet, &["tenant", "resume", "initech"]);
    succeeds(&fleet, &["tenant", "unarchive", "umbrella"]);
    succeeds(&fleet, &["tenant", "undelete", "hooli"]);
    for name in ["initech", "umbrella", "hooli"] {
        assert_eq!(texts(&fleet, name), [format!("canary of {name}")]);
    }

    // And from there on as any other.
    let more = "alter table notes add column more text;";
    std::fs::write(fleet.dir().join(SET).join("0003_more.sql"), more).unwrap();
    succeeds(&fleet, &["migrate", "run", SET, "--all"]);
    assert!(tenants(&fleet).iter().all(|(_, state, version)| state == "active" && *version == 3));
    succeeds(&fleet, &["backup", "run", "--all"]);
    succeeds(&fleet, &["restore", "run", "hooli", "--to", "latest", "--yes"]);
    serves(&fleet).await;
    succeeds(&fleet, &["catalog", "check"]);
    succeeds(&fleet, &["scrub"]);
    succeeds(&fleet, &["doctor"]);
}

/// With the token that the older program gave out.
async fn serves(fleet: &Fleet) {
    let token = std::fs::read_to_string(fleet.dir().join("acme.token")).unwrap();
    let served = Served::start(fleet.dir());
    let data = Api::new(&served.data_url, token.trim());
    let write = json!({"sql": "insert into notes (text, more) values ('served', 'now')"});
    let _ = data.post("/t/acme/query", &write).await.ok();
    let answer = data.post("/t/acme/query", &json!({"sql": "select count(*) from notes"})).await.ok();
    assert_eq!(answer["rows"], json!([[3]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_fleet_is_served_at_once() {
    let fleet = opened();
    let token = std::fs::read_to_string(fleet.dir().join("acme.token")).unwrap();
    let served = Served::start(fleet.dir());
    let read = json!({"sql": "select text from notes order by id"});
    let answer = Api::new(&served.data_url, token.trim()).post("/t/acme/query", &read).await.ok();
    assert_eq!(answer["rows"], json!([["canary of acme"], ["since the restore"]]));
    let listed = served.admin().get("/v1/tenants").await.ok();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(5), "{listed}");
}
