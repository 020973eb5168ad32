//! Adds to each operation the responses that all operations share: the media type of errors, the statuses of admission
//! and of temporary failures, and the plan of a dry run. PURE.

use serde_json::{Map, Value, json};

/// The schema of every error.
const PROBLEM: &str = "#/components/schemas/ProblemBody";
/// The schema of the answer to a dry run.
const PLANNED: &str = "#/components/schemas/Planned";
/// Schemas whose answers show by themselves that nothing was done.
const PLANS: [&str; 3] = [PLANNED, "#/components/schemas/MigrationPlan", "#/components/schemas/QuarantineReport"];

/// Responses of every operation that needs a credential.
const GUARDED: [(&str, &str); 6] = [
    ("401", "The credential is missing or not valid"),
    ("403", "The caller's role does not permit this request"),
    ("4XX", "The request was refused; nothing was done"),
    ("500", "Internal error; the log of the process has details under the request_id"),
    ("503", "Temporarily unavailable; repeat the request after the time in Retry-After"),
    ("507", "A disk is full; nothing was done"),
];

/// Completes the responses of every operation of the document.
pub(super) fn complete_responses(document: &mut Value) {
    let schemas = document["components"]["schemas"].clone();
    let items = document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    let operations = items.filter_map(Value::as_object_mut).flat_map(Map::values_mut);
    operations.filter_map(Value::as_object_mut).for_each(|operation| complete_one(operation, &schemas));
}

fn complete_one(operation: &mut Map<String, Value>, schemas: &Value) {
    let (dry_run, guarded) = (has_dry_run(operation, schemas), !operation.contains_key("security"));
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    if guarded {
        for (status, description) in GUARDED {
            responses.entry(status).or_insert_with(|| problem_response(description));
        }
        responses.sort_keys();
    }
    if dry_run {
        add_plan(responses);
    }
    responses.values_mut().for_each(name_problem);
}

fn problem_response(description: &str) -> Value {
    json!({ "description": description, "content": { "application/json": { "schema": { "$ref": PROBLEM } } } })
}

/// Gives errors their own media type.
fn name_problem(response: &mut Value) {
    let Some(content) = response.get_mut("content").and_then(Value::as_object_mut) else { return };
    let is_problem = content.get("application/json").is_some_and(|json| json["schema"]["$ref"] == PROBLEM);
    let schema = if is_problem { content.remove("application/json") } else { None };
    content.extend(schema.map(|schema| ("application/problem+json".to_owned(), schema)));
}

/// Whether the operation accepts a dry run, in its body or its query.
fn has_dry_run(operation: &Map<String, Value>, schemas: &Value) -> bool {
    let body = operation.get("requestBody").map(|body| &body["content"]["application/json"]["schema"]["$ref"]);
    let schema = body.and_then(Value::as_str).and_then(|to| schemas.get(to.rsplit('/').next()?));
    let in_body = schema.is_some_and(|schema| schema.to_string().contains("\"dry_run\""));
    let parameters = operation.get("parameters").and_then(Value::as_array);
    in_body || parameters.into_iter().flatten().any(|parameter| parameter["name"] == "dry_run")
}

/// Adds the plan of a dry run. If it has the status of a real change, the answer is one of both.
fn add_plan(responses: &mut Map<String, Value>) {
    let answer = responses.entry("200").or_insert_with(|| json!({ "description": "The plan of a dry run" }));
    let schema = &mut answer["content"]["application/json"]["schema"];
    match schema["$ref"].as_str().map(str::to_owned) {
        Some(to) if PLANS.contains(&to.as_str()) => {}
        Some(to) => *schema = json!({ "oneOf": [{ "$ref": to }, { "$ref": PLANNED }] }),
        None => *schema = json!({ "$ref": PLANNED }),
    }
}
