//! Values for requests, made from JSON schemas. Free texts become canaries.

use serde_json::{Map, Value, json};

use crate::canary::{CANARY_LENGTH, Canaries};
use crate::world::Side;

/// How deep a value may be nested.
const DEPTH_MAX: usize = 6;

/// Which fields of an object are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum BodyShape {
    /// All fields.
    #[default]
    All,
    /// Only the required ones.
    Required,
}

/// Makes the values of one request.
pub(crate) struct ValueMaker<'c> {
    pub(crate) canaries: &'c Canaries,
    /// The tenant whose canaries the texts are.
    pub(crate) side: Side,
    pub(crate) shape: BodyShape,
    /// The name of the route, for the report.
    pub(crate) place: String,
}

impl ValueMaker<'_> {
    /// A value that the schema allows, as far as the kit understands the schema.
    pub(crate) fn make(&self, schema: &Value) -> Value {
        self.make_field(schema, "", 0)
    }

    fn make_field(&self, schema: &Value, field: &str, depth: usize) -> Value {
        let schema = &merged(schema);
        if depth > DEPTH_MAX {
            return Value::Null;
        }
        match type_of(schema) {
            "object" => self.make_object(schema, field, depth),
            _ if fixed_value(schema).is_some() && !is_free_text(schema) => fixed_value(schema).unwrap_or_default(),
            "string" => Value::String(self.make_text(schema, field)),
            "array" => json!([self.make_field(&schema["items"], field, depth + 1)]),
            "integer" => json!(schema["minimum"].as_i64().unwrap_or(1).max(1)),
            "number" => json!(schema["minimum"].as_f64().unwrap_or(1.0).max(1.0)),
            "boolean" => json!(true),
            _ => Value::Null,
        }
    }

    fn make_object(&self, schema: &Value, field: &str, depth: usize) -> Value {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut object = Map::new();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            if self.shape == BodyShape::Required && !required.contains(&name.as_str()) {
                continue;
            }
            let path = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
            let example = schema["example"].get(name).filter(|_| !is_free_text(property));
            let value = example.cloned().unwrap_or_else(|| self.make_field(property, &path, depth + 1));
            object.insert(name.clone(), value);
        }
        Value::Object(object)
    }

    fn make_text(&self, schema: &Value, field: &str) -> String {
        let canary = || self.canaries.issue(self.side, &format!("{}: {field}", self.place));
        match schema["format"].as_str().unwrap_or_default() {
            "date" => "2026-01-15".to_owned(),
            "date-time" => "2026-01-15T10:00:00Z".to_owned(),
            "time" => "10:00:00".to_owned(),
            "uuid" => unique_uuid(&canary()),
            "email" => format!("{}@example.com", canary()),
            "uri" | "url" => format!("https://example.com/{}", canary()),
            "hostname" => format!("{}.example.com", canary()),
            _ if schema["maxLength"].as_u64().is_some_and(|max| max < CANARY_LENGTH as u64) => "x".to_owned(),
            _ => canary(),
        }
    }
}

/// Whether the text may be anything, so that a canary fits.
pub(crate) fn is_free_text(schema: &Value) -> bool {
    let schema = &merged(schema);
    let is_limited = ["enum", "const", "pattern", "format"].iter().any(|key| schema.get(key).is_some());
    type_of(schema) == "string" && !is_limited
}

/// The schema with the parts of `allOf`, and with the first alternative of `oneOf` or `anyOf` that is not null.
fn merged(schema: &Value) -> Value {
    let mut whole = schema.as_object().cloned().unwrap_or_default();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        merge_part(&mut whole, part);
    }
    let alternatives = [&schema["oneOf"], &schema["anyOf"]].into_iter().filter_map(Value::as_array);
    for choice in alternatives.filter_map(|choices| choices.iter().find(|choice| type_of(choice) != "null")) {
        merge_part(&mut whole, choice);
    }
    Value::Object(whole)
}

fn merge_part(whole: &mut Map<String, Value>, part: &Value) {
    for (key, value) in merged(part).as_object().into_iter().flatten() {
        match (whole.get_mut(key), value) {
            (Some(Value::Object(own)), Value::Object(more)) => own.extend(more.clone()),
            (Some(Value::Array(own)), Value::Array(more)) => own.extend(more.clone()),
            _ => drop(whole.insert(key.clone(), value.clone())),
        }
    }
}

/// The type that the schema names or implies.
pub(crate) fn type_of(schema: &Value) -> &str {
    let named = match &schema["type"] {
        Value::String(word) => Some(word.as_str()),
        Value::Array(words) => words.iter().filter_map(Value::as_str).find(|word| *word != "null"),
        _ => None,
    };
    named.unwrap_or(if schema.get("properties").is_some() {
        "object"
    } else if schema.get("enum").is_some() {
        "string"
    } else {
        ""
    })
}

/// The value that the schema itself suggests.
fn fixed_value(schema: &Value) -> Option<Value> {
    let first =
        |key: &str| schema[key].as_array().and_then(|values| values.iter().find(|value| !value.is_null())).cloned();
    let named = |key: &str| schema.get(key).cloned();
    named("const")
        .or_else(|| named("example"))
        .or_else(|| first("examples"))
        .or_else(|| named("default"))
        .or_else(|| first("enum"))
}

/// A UUID that nothing else has.
fn unique_uuid(seed: &str) -> String {
    let hex = blake3::hash(seed.as_bytes()).to_hex();
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(schema: Value, shape: BodyShape) -> Value {
        let canaries = Canaries::new(b"test");
        ValueMaker { canaries: &canaries, side: Side::First, shape, place: "POST /x".to_owned() }.make(&schema)
    }

    #[test]
    fn values_follow_their_schema() {
        let schema = json!({ "type": "object", "required": ["title"], "example": { "due": "2027-02-03", "title": "x" },
            "properties": {
                "title": { "type": "string", "example": "buy milk" },
                "role": { "type": "string", "enum": ["reader", "writer"] },
                "due": { "type": ["string", "null"], "format": "date" },
                "assignee": { "anyOf": [{ "type": "null" }, { "type": "string" }] },
                "count": { "type": "integer", "minimum": 3 },
                "tags": { "type": "array", "items": { "type": "string" } },
                "short": { "type": "string", "maxLength": 3 } } });
        let all = make(schema.clone(), BodyShape::All);
        let is_canary = |value: &Value| value.as_str().is_some_and(|text| text.len() == CANARY_LENGTH);
        assert!(is_canary(&all["title"]) && is_canary(&all["tags"][0]) && is_canary(&all["assignee"]), "{all}");
        assert_eq!((&all["role"], &all["due"], &all["count"]), (&json!("reader"), &json!("2027-02-03"), &json!(3)));
        assert_eq!(all["short"], "x");
        assert_eq!(make(schema, BodyShape::Required).as_object().unwrap().len(), 1);
    }

    #[test]
    fn parts_of_a_schema_are_put_together() {
        let schema = json!({ "allOf": [{ "type": "object", "properties": { "a": { "type": "integer" } } },
                                       { "properties": { "b": { "type": "boolean" } } }] });
        assert_eq!(make(schema, BodyShape::All), json!({ "a": 1, "b": true }));
        let endless = json!({ "type": "array", "items": { "type": "array", "items": { "type": "integer" } } });
        assert_eq!(make(endless, BodyShape::All), json!([[1]]));
    }
}
