//! `fleetctl audit` as an operator types it: a clean fleet passes, and each planted fault is named.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fleet_tests::postgres::PostgresFleet;
use fleet_tests::{Fleet, fleetctl};
use serde_json::{Value, json};

/// The report of an audit, and its exit code. The application is known to be clean.
fn audit(dir: &Path) -> (i32, Vec<Value>) {
    let names = [
        "name-variants",
        "tenant-override",
        "foreign-address",
        "foreign-ids",
        "foreign-writes",
        "error-texts",
        "taken-values",
        "idempotency-keys",
        "replayed-values",
        "operator-routes",
        "outputs",
        "colliding-keys",
        "shared-caching",
        "lifecycle",
        "interference",
        "concurrency",
        "webhook-payloads",
        "live-messages",
    ];
    let probe = |name: &str| json!({ "probe": name, "findings": [], "skipped": null, "inconclusive": false });
    let probes: Vec<Value> = names.into_iter().map(probe).collect();
    let report = json!({ "clean": true, "probes": probes, "counts": { "routes": 3 }, "uncovered": {} });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), report.to_string()).unwrap();
    let ran = fleetctl(dir).args(["audit", "-o", "json", "--leaktest"]).arg(file.path()).output().unwrap();
    let answer: Value =
        serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&ran.stderr)));
    (ran.status.code().unwrap(), answer["checks"].as_array().unwrap().clone())
}

/// The lines that do not pass, as area, check and verdict.
fn faults(checks: &[Value]) -> Vec<String> {
    let is_good = |check: &&Value| ["pass", "not_applicable"].contains(&check["verdict"].as_str().unwrap());
    let text = |check: &Value| format!("{} {} {}", check["area"], check["check"], check["verdict"]).replace('"', "");
    checks.iter().filter(|check| !is_good(check)).map(text).collect()
}

fn evidence_of(checks: &[Value], area: &str, check: &str) -> String {
    let found = checks.iter().find(|line| line["area"] == area && line["check"] == check).unwrap();
    found["evidence"].as_str().unwrap().to_owned()
}

#[test]
fn a_new_fleet_passes_and_planted_faults_are_named() {
    let fleet = Fleet::with_tenants(&["acme", "globex"]);
    let dir = fleet.dir();
    fleet.ok(&["backup", "run", "--all"]);
    let (exit, checks) = audit(dir);
    assert_eq!((exit, faults(&checks)), (0, Vec::new()), "{checks:#?}");

    let key = dir.join("fleet-data/fleet.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let (exit, checks) = audit(dir);
    assert_eq!((exit, faults(&checks)), (4, vec!["files data directory fail".to_owned()]));
    assert!(evidence_of(&checks, "files", "data directory").contains("fleet.key (644)"), "{checks:#?}");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();

    let database = database_file(dir);
    fs::set_permissions(&database, Permissions::from_mode(0o640)).unwrap();
    let (_, checks) = audit(dir);
    assert_eq!(faults(&checks), ["files server local fail"]);
    assert!(evidence_of(&checks, "files", "server local").contains("(640)"));
    std::os::unix::fs::chown(&database, Some(12_345), None).unwrap();
    fs::set_permissions(&database, Permissions::from_mode(0o600)).unwrap();
    let (_, checks) = audit(dir);
    assert!(evidence_of(&checks, "files", "server local").contains("(user 12345)"), "{checks:#?}");
    std::os::unix::fs::chown(&database, Some(0), None).unwrap();

    let token = fleet.json(&["token", "create", "--operator", "viewer"]);
    let (exit, checks) = audit(dir);
    assert_eq!((exit, faults(&checks)), (4, vec!["tokens expiry fail".to_owned()]));
    let id = token["token"]["id"].as_str().unwrap();
    assert!(evidence_of(&checks, "tokens", "expiry").contains(id));
    fleet.ok(&["token", "revoke", id]);

    fleet.ok(&["tenant", "create", "initech"]);
    let (_, checks) = audit(dir);
    assert_eq!(faults(&checks), ["backups fresh fail"]);
    assert!(evidence_of(&checks, "backups", "fresh").contains("of 3 tenants, 1 have no backup"));
    fleet.ok(&["backup", "run", "initech"]);

    fleet.ok(&["webhook", "add", "http://127.0.0.1:4000/x", "--allow-private"]);
    let (_, checks) = audit(dir);
    assert_eq!(faults(&checks), ["webhooks addresses fail"]);
    let hooks = fleet.json(&["webhook", "list"]);
    fleet.ok(&["webhook", "remove", hooks["items"][0]["id"].as_str().unwrap()]);

    let exposed = faults_with(dir, "FLEET_ADMIN_LISTEN", "0.0.0.0:8081");
    assert!(exposed.contains(&"listeners admin fail".to_owned()), "{exposed:?}");
    assert!(faults_with(dir, "FLEET_LISTEN", "0.0.0.0:8080").contains(&"listeners data fail".to_owned()));
    let (exit, checks) = audit(dir);
    assert_eq!((exit, faults(&checks)), (0, Vec::new()), "every fault is gone");
}

/// The faults that an audit with this setting finds.
fn faults_with(dir: &Path, variable: &str, value: &str) -> Vec<String> {
    let ran = fleetctl(dir).args(["audit", "-o", "json"]).env(variable, value).output().unwrap();
    assert_eq!(ran.status.code(), Some(4));
    let answer: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let checks = faults(answer["checks"].as_array().unwrap());
    // Nobody gave the report of a leak test.
    assert!(checks.contains(&"tests leak test not_looked".to_owned()), "{checks:?}");
    checks
}

/// A tenant's file below the data directory.
fn database_file(dir: &Path) -> std::path::PathBuf {
    fn search(dir: &Path) -> Option<std::path::PathBuf> {
        fs::read_dir(dir).ok()?.flatten().find_map(|entry| match entry.path() {
            path if path.is_dir() => search(&path),
            path => path.extension().is_some_and(|end| end == "db" && !path.ends_with("catalog.db")).then_some(path),
        })
    }
    search(&dir.join("fleet-data")).expect("a tenant has a file")
}

#[test]
fn rights_that_somebody_added_on_postgres_are_named() {
    let fleet = PostgresFleet::with_tenants(&["acme"]);
    let dir = fleet.fleet.dir();
    fleet.fleet.ok(&["backup", "run", "--all"]);
    let (_, checks) = audit(dir);
    let roles =
        |checks: &[Value]| faults(checks).into_iter().filter(|line| line.starts_with("roles")).collect::<Vec<_>>();
    assert_eq!(roles(&checks), Vec::<String>::new(), "{checks:#?}");
    let database = fleet.database("acme");
    fleet.cluster.psql("postgres", &format!("grant connect on database \"{database}\" to public"));
    let (exit, checks) = audit(dir);
    assert_eq!((exit, roles(&checks).len()), (4, 1), "{checks:#?}");
}

#[test]
fn a_file_that_is_not_a_report_is_refused() {
    let fleet = Fleet::init();
    for text in ["", "{}", "[]", "{\"probes\":[]}"] {
        fs::write(fleet.dir().join("report.json"), text).unwrap();
        let ran = fleetctl(fleet.dir()).args(["audit", "--leaktest", "report.json"]).output().unwrap();
        assert_eq!(ran.status.code(), Some(2), "{text}");
    }
}
