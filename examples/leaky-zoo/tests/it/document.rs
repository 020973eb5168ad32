//! The document, the list of leaks, the features and the README say the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use leaky_zoo::document::merged;
use leaky_zoo::leak::LEAKS;
use reqwest::Method;
use serde_json::Value;

use crate::stage::{Founder, TestedFleet};

const METHODS: [&str; 3] = ["get", "post", "put"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn document() -> Value {
    serde_json::from_str(&merged()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_zoo_serves_the_merged_document_and_each_extra_is_in_it() {
    let fleet = TestedFleet::open(None).await;
    let stage = fleet.stage("document", None).await;
    let served = reqwest::get(format!("{}/openapi.json", stage.a.url)).await.unwrap();
    assert_eq!(served.json::<Value>().await.unwrap(), document());
    let mut routes = 0;
    for entry in fs::read_dir(folder().join("src/extras")).unwrap() {
        for rest in fs::read_to_string(entry.unwrap().path()).unwrap().split(".route(\"").skip(1) {
            let path = rest.split('"').next().unwrap();
            let absolute = if path == "/metrics" || path.starts_with("/admin") { "" } else { "/orgs/{tenant}/api" };
            assert!(document()["paths"].get(format!("{absolute}{path}")).is_some(), "{path} is not in the document");
            routes += 1;
        }
    }
    assert_eq!(routes, 9);
    for (path, item) in document()["paths"].as_object().unwrap() {
        for method in METHODS.into_iter().filter(|method| item.get(*method).is_some()) {
            require_route(&stage.a, method, path).await;
        }
    }
    fleet.close().await;
}

/// Refuses an operation that no route answers.
async fn require_route(founder: &Founder, method: &str, path: &str) {
    let filled = path.replace("{tenant}", &founder.name).replace("{task}", "1").replace("{export}", "1");
    let method: Method = method.to_uppercase().parse().unwrap();
    let request = founder.request(method, &filled.replace(['{', '}'], "")).header("content-type", "application/json");
    let answer = request.body("{}").send().await.unwrap();
    let status = answer.status().as_u16();
    // The body of an answer that is not a refusal may not end.
    let problem: Value = if status < 400 { Value::Null } else { answer.json().await.unwrap_or_default() };
    assert!(status != 405 && problem["title"] != "This address does not exist", "{path}: {status} {problem}");
}

#[test]
fn every_reference_of_the_merged_document_leads_somewhere() {
    let (text, document) = (merged(), document());
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[test]
fn each_leak_has_a_feature_a_row_in_the_readme_and_routes_of_the_document() {
    let (manifest, readme) = (folder().join("Cargo.toml"), folder().join("README.md"));
    let (manifest, readme) = (fs::read_to_string(manifest).unwrap(), fs::read_to_string(readme).unwrap());
    let features: BTreeSet<_> = manifest.lines().filter_map(|line| line.strip_suffix(" = []")).collect();
    let names: BTreeSet<_> = LEAKS.iter().map(|leak| leak.name).collect();
    assert_eq!(names.len(), LEAKS.len(), "two leaks have one name");
    assert!(names.is_subset(&features), "{names:?}");
    let is_whole = features.len() == names.len();
    assert!(is_whole || names.len() < 24, "every leak is listed when all are compiled in");
    for leak in LEAKS {
        let file = format!("src/leaks/{}.rs", leak.name.replace('-', "_"));
        let row = format!("| [{}]({file}) | {} | {} |", leak.name, leak.class, leak.probes.join(", "));
        assert!(readme.contains(&row), "the README lacks {row}");
        assert!(!leak.probes.is_empty() && !leak.routes.is_empty(), "{}", leak.name);
        for route in leak.routes {
            let (method, path) = route.split_once(' ').unwrap();
            assert!(document()["paths"][path].get(method.to_lowercase()).is_some(), "{}: {route}", leak.name);
        }
    }
}
