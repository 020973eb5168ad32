//! `fleetctl leaktest` as a user types it: against this project's own data API on both engines, and against an application
//! in another language that knows nothing of fleets.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fleet_tests::postgres::{PostgresFleet, example_folders};
use fleet_tests::{Fleet, Served, example_migrations, fleetctl, workspace_root};
use serde_json::Value;
use tempfile::TempDir;

/// The data API runs the SQL of its callers, so its requests need bodies.
const DATA_API: &str = r#"
settle_ms = 200

[classes]
"GET /audit" = "tenant"
"POST /batch" = "tenant"
"POST /query" = "tenant"

[[requests]]
route = "POST /t/{tenant}/query"
body = { sql = "insert into tasks (title) values ('{canary}') returning *" }
[[requests]]
route = "POST /t/{tenant}/query"
body = { sql = "select * from tasks order by id" }
reads = true
[[requests]]
route = "POST /t/{tenant}/batch"
body = { statements = [{ sql = "insert into tasks (title) values ('{canary}') returning *" }, { sql = "select count(*) from tasks" }] }
[[requests]]
route = "POST /query"
body = { sql = "select * from tasks order by id" }
reads = true
[[requests]]
route = "POST /batch"
body = { statements = [{ sql = "select title from tasks where id = 1" }, { sql = "select count(*) as number from tasks" }] }
reads = true
"#;

fn data_api_is_clean(dir: &Path, served: &Served) {
    std::fs::write(dir.join("data.toml"), DATA_API).unwrap();
    let document = workspace_root().join("docs/openapi-data.json");
    let ran = fleetctl(dir)
        .args(["leaktest", "--url", &served.data_url, "--config", "data.toml", "-o", "json", "--openapi"])
        .arg(document)
        .output()
        .unwrap();
    let report: Value =
        serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&ran.stderr)));
    assert_eq!((ran.status.code(), &report["clean"]), (Some(0), &Value::Bool(true)), "{report:#}");
    let without_control = |probe: &&Value| probe["controls"] == 0 && probe["skipped"].is_null();
    let probes = report["probes"].as_array().unwrap();
    assert!(probes.len() >= 18 && !probes.iter().any(|probe| without_control(&probe)), "{report:#}");
    let left = fleetctl(dir).args(["tenant", "list", "-o", "name"]).output().unwrap();
    assert_eq!(String::from_utf8(left.stdout).unwrap(), "", "the tenants of the test are gone");
}

#[test]
fn the_data_api_on_sqlite_is_clean() {
    let fleet = Fleet::init();
    fleet.ok(&["migrate", "run", &example_migrations(), "--all", "--allow-empty"]);
    let served = Served::start(fleet.dir());
    data_api_is_clean(fleet.dir(), &served);
}

#[test]
fn the_data_api_on_postgres_is_clean() {
    let fleet = PostgresFleet::init();
    fleet.fleet.ok(&["migrate", "run", &example_folders(), "--all", "--allow-empty"]);
    let served = Served::start(fleet.fleet.dir());
    data_api_is_clean(fleet.fleet.dir(), &served);
}

/// An application in Python. It ends with the value.
struct PythonApplication {
    process: Child,
    url: String,
    dir: TempDir,
}

impl Drop for PythonApplication {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const PYTHON_SETTINGS: &str = r#"
openapi = "/openapi.json"
first = { name = "acme", headers = { authorization = "Bearer token-of-acme" } }
second = { name = "globex", headers = { authorization = "Bearer token-of-globex" } }
"#;

impl PythonApplication {
    fn start(leak: &str) -> Self {
        let program = workspace_root().join("tests/tests/it/leaktest_application.py");
        let mut python = Command::new("python3");
        let mut process = python.arg(program).arg(leak).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("leaktest.toml"), format!("settle_ms = 50\n{PYTHON_SETTINGS}")).unwrap();
        Self { process, url: url.trim().to_owned(), dir }
    }

    /// Exit code, output and messages.
    fn test(&self, flags: &[&str]) -> (i32, String, String) {
        let ran = fleetctl(self.dir.path()).args(["leaktest", "--url", &self.url]).args(flags).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (ran.status.code().unwrap(), text(ran.stdout), text(ran.stderr))
    }
}

#[test]
fn three_lines_test_an_application_in_another_language() {
    let clean = PythonApplication::start("none");
    let (exit, report, said) = clean.test(&["-o", "text"]);
    assert_eq!(exit, 0, "{report}{said}");
    assert!(report.contains("colliding-keys    ok") && report.contains("0 findings, 0 routes not covered"), "{report}");
    for (leak, probe, route) in [
        ("cache", "colliding-keys", "GET /t/{tenant}/notes"),
        ("ids", "foreign-ids", "GET /t/{tenant}/notes/{note}"),
        ("existence", "foreign-address", "GET /t/{tenant}/notes"),
        ("membership", "foreign-address", "GET /t/{tenant}/notes"),
        ("count", "interference", "GET /t/{tenant}/count"),
        ("override", "tenant-override", "GET /t/{tenant}/notes"),
    ] {
        let application = PythonApplication::start(leak);
        let (exit, report, said) = application.test(&["-o", "json"]);
        assert_eq!(exit, 4, "{leak}: {report}{said}");
        let report: Value = serde_json::from_str(&report).unwrap();
        let probes = report["probes"].as_array().unwrap().iter();
        let mut findings = probes.flat_map(|probe| probe["findings"].as_array().unwrap());
        assert!(findings.any(|f| f["probe"] == probe && f["route"] == route), "{leak}: {report:#}");
    }
}

#[test]
fn a_report_for_build_servers_is_xml() {
    let application = PythonApplication::start("ids");
    let (exit, report, _) = application.test(&["-o", "junit", "--probe", "foreign-ids", "--probe", "lifecycle"]);
    assert_eq!(exit, 4);
    let script = "import sys, xml.etree.ElementTree as t; s = t.fromstring(sys.stdin.read()); \
                  print(s.get('tests'), s.get('failures'), s.get('skipped'), [c.get('name') for c in s if c.find('failure') is not None])";
    let mut python =
        Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), report.as_bytes()).unwrap();
    let read = String::from_utf8(python.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(read.trim(), "3 1 1 ['foreign-ids']", "{report}");
}

#[test]
fn a_test_that_would_prove_nothing_is_refused() {
    let application = PythonApplication::start("none");
    let settings = application.dir.path().join("leaktest.toml");
    let set = |text: &str| std::fs::write(&settings, text).unwrap();
    for (text, exit, code) in [
        (PYTHON_SETTINGS.replace("token-of-globex", "token-of-nobody"), 4, "control_failed"),
        (PYTHON_SETTINGS.replace("globex", "acme"), 2, "tenants_equal"),
        (PYTHON_SETTINGS.replace("/openapi.json", "/t/acme/notes"), 2, "document_invalid"),
        (format!("{PYTHON_SETTINGS}[classes]\n\"GET /missing\" = \"public\"\n"), 2, "route_unknown"),
        (format!("typo = 1\n{PYTHON_SETTINGS}"), 2, "settings_invalid"),
    ] {
        set(&text);
        let (met, report, said) = application.test(&[]);
        assert_eq!((met, said.contains(code)), (exit, true), "{text}: {report}{said}");
        assert!(!said.contains("token-of-acme"), "a credential is not printed: {said}");
    }
    set(PYTHON_SETTINGS);
    let (exit, _, said) = application.test(&["--probe", "mind-reading"]);
    assert_eq!((exit, said.contains("probe_unknown")), (2, true), "{said}");
    let unreachable =
        fleetctl(application.dir.path()).args(["leaktest", "--url", "http://127.0.0.1:1"]).output().unwrap();
    assert_eq!(unreachable.status.code(), Some(15));
    let nothing = fleetctl(application.dir.path()).arg("leaktest").output().unwrap();
    assert_eq!(nothing.status.code(), Some(2));
}
