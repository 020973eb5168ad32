//! `scrub` by the command line: what it finds, what it says, and what it puts aside on a real PostgreSQL server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Output, Stdio};

use fleet_tests::Fleet;
use fleet_tests::postgres::PostgresFleet;
use serde_json::{Value, json};

/// A tenant of the summer of 2024 that no catalog knows.
const STRANGER: &str = "t_01907000000070008000000000000001_g1_1";

fn exit(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    (output.status.code(), text)
}

fn report(fleet: &Fleet) -> Value {
    let (code, text) = exit(&fleet.run(&["scrub", "--out", "report.json", "-o", "name"]));
    assert!(matches!(code, Some(0 | 4)), "{text}");
    let report: Value = serde_json::from_slice(&std::fs::read(fleet.dir().join("report.json")).unwrap()).unwrap();
    assert_eq!(code == Some(0), report["findings"] == json!([]), "{report}");
    report
}

fn found(report: &Value) -> Vec<(String, String)> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    report["findings"].as_array().unwrap().iter().map(|f| (text(f, "kind"), text(f, "name"))).collect()
}

fn edit(fleet: &Fleet, change: impl FnOnce(&mut Value)) {
    let file = fleet.dir().join("report.json");
    let mut report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    change(&mut report);
    std::fs::write(file, report.to_string()).unwrap();
}

fn put_aside(fleet: &Fleet, flags: &[&str]) -> (Option<i32>, String) {
    exit(&fleet.run(&[&["scrub", "--quarantine", "report.json"], flags].concat()))
}

/// A database of `pg`'s own maintenance role that looks like a tenant's, a copy of a real one, and a login without one.
fn plant(pg: &PostgresFleet, name: &str, like: &str) {
    pg.cluster.psql("postgres", &format!("create database {name} template {like} owner fleet"));
}

fn plant_login(pg: &PostgresFleet, name: &str) {
    pg.cluster.psql("postgres", &format!("create role {name} login"));
    pg.cluster.psql("postgres", &format!("grant {name} to fleet with admin option"));
}

/// Somebody's session in a database, until dropped.
struct Session(Child);

impl Session {
    fn open(pg: &PostgresFleet, database: &str) -> Self {
        let mut psql = Command::new(postgres_fixture::bin("psql"));
        psql.arg(pg.cluster.dsn(database)).args(["-X", "-q", "-A", "-t"]);
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"select 1;\n").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self(child)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn orphans_of_a_postgres_server_are_found_and_put_aside_and_tenants_stay() {
    let pg = PostgresFleet::with_tenants(&["acme", "globex"]);
    let fleet = &pg.fleet;
    assert_eq!(found(&report(fleet)), []);
    let acme = pg.database("acme");
    plant(&pg, STRANGER, &acme);
    let login = "t_01907000000070008000000000000002_g1_1_r";
    plant_login(&pg, login);
    let seen = report(fleet);
    let both = [("orphan_database".to_owned(), STRANGER.to_owned()), ("orphan_role".to_owned(), login.to_owned())];
    assert_eq!(found(&seen), both, "{seen}");
    assert_eq!(seen["findings"][0]["identity"]["tenant_id"], fleet.json(&["tenant", "get", "acme"])["id"]);

    assert_eq!(put_aside(fleet, &[]).0, Some(2), "nobody confirmed it");
    let (code, text) = put_aside(fleet, &["--dry-run", "-o", "json"]);
    assert!(code == Some(0) && text.contains("planned"), "{text}");
    assert_eq!(found(&report(fleet)), both);

    // A human takes the login out of the report, and somebody is still in the database.
    edit(fleet, |report| drop(report["findings"].as_array_mut().unwrap().pop()));
    let session = Session::open(&pg, STRANGER);
    let (code, text) = put_aside(fleet, &["--yes"]);
    assert!(code == Some(7) && text.contains(STRANGER), "{code:?} {text}");
    drop(session);
    let (code, text) = put_aside(fleet, &["--yes", "--reason", "left by a restore by hand"]);
    assert_eq!(code, Some(0), "{text}");
    let names = pg.cluster.psql("postgres", "select datname from pg_database where datname like 'quarantine%'");
    assert!(names.starts_with("quarantine_20") && names.ends_with(STRANGER), "{names}");
    let open = format!("select datallowconn from pg_database where datname = '{names}'");
    assert_eq!(pg.cluster.psql("postgres", &open), "f");
    assert_eq!(found(&report(fleet)), both[1..], "what was taken out of the report is as it was");

    assert_eq!(put_aside(fleet, &["--yes"]).0, Some(0));
    let can_login = format!("select rolcanlogin from pg_roles where rolname = '{login}'");
    assert_eq!(pg.cluster.psql("postgres", &can_login), "f");
    assert_eq!(found(&report(fleet)), []);
    for tenant in ["acme", "globex"] {
        fleet.ok(&["query", "select count(*) from tasks", tenant]);
    }
}

#[test]
fn another_fleets_databases_on_the_same_server_are_left_alone() {
    let pg = PostgresFleet::with_tenants(&["acme"]);
    plant(&pg, STRANGER, &pg.database("acme"));
    let other = "update public._fleet_identity set fleet_id = 'flt_01907000000070008000000000000009'";
    pg.cluster.psql(STRANGER, other);
    let seen = report(&pg.fleet);
    assert_eq!((found(&seen), &seen["foreign"]), (vec![], &json!(1)), "{seen}");
}

#[test]
fn a_tenants_missing_database_is_told_and_its_logins_are_no_orphans() {
    let pg = PostgresFleet::with_tenants(&["acme"]);
    let database = pg.database("acme");
    pg.cluster.psql("postgres", &format!("drop database {database} with (force)"));
    assert_eq!(found(&report(&pg.fleet)), [("missing_database".to_owned(), database)]);
    let (code, text) = exit(&pg.fleet.run(&["doctor", "-o", "jsonl"]));
    assert_eq!(code, Some(4), "{text}");
    let line = text.lines().find(|line| line.contains("\"databases\"")).unwrap();
    assert!(line.contains("fail") && line.contains("1 are missing"), "{line}");
    // Nothing of it can be put aside.
    assert_eq!(put_aside(&pg.fleet, &["--yes"]).0, Some(0));
}

#[test]
fn a_report_is_for_one_fleet_and_one_version() {
    let fleet = Fleet::with_tenants(&["acme", "globex"]);
    let (code, text) = exit(&fleet.run(&["scrub"]));
    assert!(code == Some(0) && text.contains("0 findings"), "{text}");
    assert_eq!(exit(&fleet.run(&["scrub", "--quiet"])), (Some(0), String::new()));
    let tenants = fleet.dir().join("fleet-data/tenants");
    let id = fleet.json(&["tenant", "get", "acme"])["id"].as_str().unwrap().trim_start_matches("tnt_").to_owned();
    let gone = std::fs::read_dir(&tenants).unwrap().map(|entry| entry.unwrap().path());
    let gone = gone.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().replace('-', "") == id);
    std::fs::remove_dir_all(gone.unwrap()).unwrap();
    let seen = report(&fleet);
    assert_eq!(seen["findings"][0]["kind"], "missing_database");
    assert_eq!((&seen["version"], seen["findings"][0]["tenant"].as_str()), (&json!(1), Some("acme")));
    let fake = |report: &mut Value| {
        report["findings"][0]["kind"] = json!("orphan_database");
    };
    edit(&fleet, fake);
    assert_eq!(put_aside(&fleet, &["--yes"]).0, Some(7), "it is not there");
    edit(&fleet, |report| report["version"] = json!(2));
    assert_eq!(put_aside(&fleet, &["--yes"]).0, Some(2));
    edit(&fleet, |report| {
        report["version"] = json!(1);
        report["fleet_id"] = json!("flt_01907000000070008000000000000009");
    });
    assert_eq!(put_aside(&fleet, &["--yes"]).0, Some(2));
    std::fs::write(fleet.dir().join("report.json"), "{}").unwrap();
    assert_eq!(put_aside(&fleet, &["--yes"]).0, Some(2));
    assert_eq!(exit(&fleet.run(&["scrub", "--dry-run"])).0, Some(2));
}
