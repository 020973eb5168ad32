//! The OpenAPI document: that of `tasks`, and the operations of the extras.

use serde_json::{Map, Value};

const EXTRAS: &str = include_str!("../openapi.json");

/// Both documents as one, as JSON.
///
/// # Panics
/// When one of the two files is not the JSON that a test has read.
#[must_use]
pub fn merged() -> String {
    let mut document: Value = serde_json::from_str(tasks::openapi::DOCUMENT).expect("a test has read the document");
    let extras: Value = serde_json::from_str(EXTRAS).expect("a test has read the document");
    for pointer in ["/paths", "/components/securitySchemes", "/components/parameters", "/components/schemas"] {
        let added: Map<String, Value> = extras.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default();
        let into = document.pointer_mut(pointer).and_then(Value::as_object_mut).expect("the document has this part");
        into.extend(added);
    }
    document["info"] = extras["info"].clone();
    document.to_string()
}
