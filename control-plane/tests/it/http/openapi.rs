//! The OpenAPI document is kept in the repository, so that a change of the API is seen in review.

use serde_json::Value;

fn kept() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json")).unwrap_or_default()
}

#[test]
fn the_document_is_the_one_that_is_kept() {
    assert!(
        kept() == control_plane::http::openapi::document_json(),
        "the API changed; look at what changed, then: cargo run -p control-plane --example openapi > docs/openapi.json"
    );
}

#[test]
fn every_operation_says_what_it_does_and_every_reference_leads_somewhere() {
    let data_path = control_plane::config::DataPath::default();
    check_references(&control_plane::http::openapi::document_json());
    check_references(&control_plane::http::openapi::data_document_json(&data_path));
}

fn check_references(document: &str) {
    let document: Value = serde_json::from_str(document).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            assert!(!operation["responses"].as_object().unwrap().is_empty(), "{method} {path} has no responses");
        }
    }
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn errors_have_their_media_type_and_dry_runs_their_plan() {
    let document: Value = serde_json::from_str(&control_plane::http::openapi::document_json()).unwrap();
    let (problem, planned) = ("#/components/schemas/ProblemBody", "#/components/schemas/Planned");
    let mut plans = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            for (status, response) in responses.iter().filter(|_| path.starts_with("/v1/")) {
                let text = response.to_string();
                let is_error = status.starts_with(['4', '5']);
                assert_eq!(text.contains(problem), is_error, "{method} {path} {status}");
                assert_eq!(text.contains("application/problem+json"), is_error, "{method} {path} {status}");
            }
            let is_public = operation["security"] == serde_json::json!([{}]);
            assert_eq!(is_public && path.starts_with("/v1/"), path == "/v1/domains/ask", "{path}");
            if path.starts_with("/v1/") && !is_public {
                assert!(["401", "403", "500", "503"].iter().all(|status| responses.contains_key(*status)), "{path}");
            }
            plans += usize::from(responses.get("200").is_some_and(|ok| ok.to_string().contains(planned)));
        }
    }
    assert!(plans > 30, "{plans} operations say what a dry run answers");
    let patch = &document["paths"]["/v1/tenants/{tenant}"]["patch"]["responses"]["200"];
    assert_eq!(patch["content"]["application/json"]["schema"]["oneOf"][1]["$ref"], planned);
}

fn collect<'a>(json: &'a Value, found: &mut Vec<&'a str>) {
    match json {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str));
            object.values().for_each(|value| collect(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}
