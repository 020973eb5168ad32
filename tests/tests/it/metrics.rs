//! `/metrics` of a served fleet: every series that the program describes is there, and says what is so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fleet_tests::postgres::PostgresFleet;
use fleet_tests::{Api, Served};
use serde_json::json;

/// The crates that describe metrics.
const CRATES: [&str; 7] =
    ["tenant-engine", "catalog", "tenant-router", "fleet-api", "control-plane", "fleet-client", "fleetctl"];

/// Every `.rs` file below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

/// The names in calls of `macros`: literals, and constants of the same file.
fn names(macros: &[&str]) -> BTreeSet<String> {
    let mut files = Vec::new();
    CRATES.iter().for_each(|name| sources(&fleet_tests::workspace_root().join(name).join("src"), &mut files));
    let mut names = BTreeSet::new();
    for text in files.iter().map(|file| std::fs::read_to_string(file).unwrap()) {
        for start in macros.iter().map(|name| format!("{name}!(")) {
            for call in text.split(&start).skip(1) {
                let first = call.trim_start().split([',', ')']).next().unwrap().trim();
                let name = match first.strip_prefix('"') {
                    Some(literal) => Some(literal.trim_end_matches('"').to_owned()),
                    None => constant(&text, first),
                };
                names.extend(name.filter(|name| name.starts_with("fleet_")));
            }
        }
    }
    names
}

fn constant(text: &str, name: &str) -> Option<String> {
    let (_, value) = text.split_once(&format!("const {name}: &str = \""))?;
    value.split('"').next().map(str::to_owned)
}

/// The value of the series that begins like this.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{series}: {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_described_series_is_shown_and_true() {
    let pg = PostgresFleet::with_tenants(&["acme"]);
    pg.fleet.ok(&["tenant", "create", "globex", "--server", "local"]);
    let served = Served::start(pg.fleet.dir());
    for tenant in ["acme", "globex"] {
        let api = Api::new(&served.data_url, &pg.fleet.token(tenant, "reader"));
        let answer = api.post(&format!("/t/{tenant}/query"), &json!({ "sql": "select 1" })).await.ok();
        assert_eq!(answer["rows"], json!([[1]]));
    }
    let text = reqwest::get(format!("{}/metrics", served.admin_url)).await.unwrap().text().await.unwrap();
    let described = names(&["describe_counter", "describe_gauge", "describe_histogram"]);
    assert!(described.len() > 20, "{described:?}");
    let shown = |name: &&String| text.lines().any(|line| line.strip_prefix(name.as_str()).is_some_and(is_series_end));
    let absent: Vec<_> = described.iter().filter(|name| !shown(name)).collect();
    assert!(absent.is_empty(), "described and not in /metrics: {absent:?}\n{text}");
    let recorded = names(&["counter", "gauge", "histogram"]);
    assert!(recorded.is_subset(&described), "without a description: {:?}", recorded.difference(&described));

    assert_eq!(value(&text, "fleet_tenants{state=\"active\"}"), 2.0);
    assert_eq!(value(&text, "fleet_tenants{state=\"suspended\"}"), 0.0);
    assert!(value(&text, "fleet_operations{state=\"succeeded\"}") >= 2.0);
    assert_eq!(value(&text, "fleet_backup_age_seconds"), f64::INFINITY, "there is no backup");
    assert!(value(&text, "fleet_disk_free_bytes") <= value(&text, "fleet_disk_size_bytes"));
    assert!(value(&text, "fleet_router_lookups_total") >= 2.0);
    assert_eq!(value(&text, "fleet_build_info{version="), 1.0);
    assert!(!text.contains("acme") && !text.contains("globex"), "no series names a tenant");
}

/// What follows a name in its series, not in that of a longer name.
fn is_series_end(rest: &str) -> bool {
    rest.starts_with(['{', ' ']) || ["_bucket", "_sum", "_count"].iter().any(|end| rest.starts_with(end))
}
