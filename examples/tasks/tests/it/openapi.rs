//! The OpenAPI document says what the routes are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use reqwest::Method;
use serde_json::Value;

use crate::running::{Browser, RunningTasks};

const METHODS: [&str; 4] = ["get", "post", "put", "delete"];
/// The files whose routes are not below an organisation's path.
const ABSOLUTE: [&str; 3] = ["/openapi.json", "/api/organisations", "/webhooks/payments/{account}"];

fn document() -> Value {
    serde_json::from_str(tasks::openapi::DOCUMENT).unwrap()
}

/// The method and the path of every operation.
fn operations(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let has = |method: &&str| item.get(*method).is_some();
        METHODS.into_iter().filter(has).map(|method| (method.to_owned(), path.clone())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

/// The method and the path of every route in a source file.
fn routes_of(code: &str) -> Vec<(String, String)> {
    let statements = code.split(".route(\"").skip(1).map(|rest| rest.split(['\n', ';']).next().unwrap());
    let of_statement = |statement: &str| {
        let (path, handlers) = statement.split_once('"').unwrap();
        let is_absolute = ABSOLUTE.contains(&path) || path.starts_with("/orgs/");
        let path = if is_absolute { path.to_owned() } else { format!("/orgs/{{tenant}}/api{path}") };
        let is_handled =
            |method: &&str| [':', '.'].iter().any(|before| handlers.contains(&format!("{before}{method}(")));
        METHODS.into_iter().filter(is_handled).map(|method| (method.to_owned(), path.clone())).collect::<Vec<_>>()
    };
    statements.flat_map(of_statement).collect()
}

#[test]
fn the_document_has_exactly_the_routes_of_the_sources() {
    let mut routes = BTreeSet::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let path = entry.unwrap().path();
        // The files of the page are no part of the API.
        if path.file_name().is_some_and(|name| name != "page.rs") {
            routes.extend(routes_of(&fs::read_to_string(path).unwrap()));
        }
    }
    assert!(routes.len() > 30, "only {} routes were found", routes.len());
    assert_eq!(operations(&document()), routes);
}

/// The path with the ids of rows that exist.
fn filled(path: &str, member: &str) -> String {
    let values =
        [("tenant", "acme"), ("task", "1"), ("export", "1"), ("member", member), ("link", "x"), ("account", "x")];
    values.iter().fold(path.to_owned(), |path, (name, value)| path.replace(&format!("{{{name}}}"), value))
}

/// The status of an answer, and its problem if it is one. The body of another answer may never end.
async fn sent(founder: &Browser, method: &str, path: &str) -> (u16, Value) {
    let method: Method = method.to_uppercase().parse().unwrap();
    let token = founder.cookie.as_deref().unwrap().split_once('=').unwrap().1;
    let request = reqwest::Client::new().request(method, format!("{}{path}", founder.url)).bearer_auth(token);
    let answer = request.header("content-type", "application/json").body("{}").send().await.unwrap();
    let status = answer.status().as_u16();
    (status, if status < 400 { Value::Null } else { answer.json().await.unwrap_or_default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_of_the_document_reaches_a_route() {
    let running = RunningTasks::start(None).await;
    let founder = running.sign_up("acme").await;
    assert_eq!(running.visitor().get("/openapi.json").await.body, document());
    let member = founder.get("/orgs/acme/api/session").await.body["person"].as_str().unwrap().to_owned();
    let unknown = sent(&founder, "get", "/orgs/acme/api/nothing").await;
    assert_eq!((unknown.0, &unknown.1["title"]), (404, &Value::from("This address does not exist")));
    for (method, path) in operations(&document()) {
        let (status, problem) = sent(&founder, &method, &filled(&path, &member)).await;
        assert!(status != 405 && problem["title"] != unknown.1["title"], "{method} {path}: {status} {problem}");
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    let document = document();
    let mut found = 0;
    for reference in tasks::openapi::DOCUMENT.split("\"$ref\": \"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
        found += 1;
    }
    assert!(found > 30, "only {found} references were found");
    let names: Vec<_> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| METHODS.map(|method| &item[method]["operationId"]))
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "two operations have one name");
}
