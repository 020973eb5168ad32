//! From a request that succeeds and the document: the same request with one input spoilt, in every way.

use serde_json::{Map, Value, json};

use crate::http::refusals::Good;

/// What was spoilt, and the request.
type Spoilt = (String, Good);

/// Every spoilt form of a request.
pub(crate) fn spoilt(document: &Value, operation: &Value, good: &Good) -> Vec<Spoilt> {
    let mut all = queries(operation, good);
    match operation["requestBody"]["content"]["application/json"]["schema"].as_object() {
        Some(_) => all.extend(bodies(document, operation, good)),
        None => all.push(("a body".to_owned(), Good { body: Some(json!({ "dry_run": true })), ..good.clone() })),
    }
    all
}

fn queries(operation: &Value, good: &Good) -> Vec<Spoilt> {
    let with = |name: &str, value: &str| {
        let join = if good.path.contains('?') { '&' } else { '?' };
        let path = format!("{}{join}{name}={}", good.path, escaped(value));
        (format!("the parameter {name}"), Good { path, ..good.clone() })
    };
    let mut all = vec![with("colour", "red"), with("", ""), with("Limit", "1"), with("dry_run ", "true")];
    if operation.get("requestBody").is_some() {
        all.push(with("dry_run", "true"));
    }
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    for parameter in parameters.filter(|parameter| parameter["in"] == "query") {
        let name = parameter["name"].as_str().unwrap();
        for value in bad_texts(name, &parameter["schema"]) {
            all.push(with(name, &value));
        }
        let (what, twice) = with(name, "x");
        all.push((format!("{what} twice"), Good { path: format!("{}&{name}=x", twice.path), ..twice }));
    }
    all
}

/// Texts that no query parameter of this name and schema may have.
fn bad_texts(name: &str, schema: &Value) -> Vec<String> {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    match (type_of(schema), name) {
        ("integer", _) => {
            let mut all: Vec<String> = bad_numbers(name, schema).iter().map(Value::to_string).collect();
            all.extend(texts(&["", "many", "NaN", "inf", "0x10", " 5", "٣", "99999999999999999999999"]));
            all
        }
        ("boolean", _) => texts(&["", "1", "yes", "TRUE", "maybe"]),
        (_, "state" | "kind") => texts(&["", "mgirate", "running,", "RUNNING", "*"]),
        (_, "tenant" | "name" | "server" | "op") => texts(&["", "nobody", "..", "a\0b"]),
        (_, "domain") => texts(&["", "..", "a\0b", "127.0.0.1", "other.example", "x.shop.example", "*.example"]),
        (_, "actor") => texts(&["", "nobody", "tok_1", "tok_01907000000070008000000000000009"]),
        (_, "since" | "until") => texts(&["", "yesterday", "2026-13-01T00:00:00Z", "-1", "2026-11-23"]),
        (_, "order") => texts(&["", "NEWEST", "newest first", "random"]),
        (_, "cursor") => texts(&["", "AAAA", "1"]),
        (_, "labels") => texts(&["", "plan!", "=pro", "plan in", "plan=a,,b=c"]),
        (_, "principal") => vec![String::new(), "a\0b".to_owned(), "x".repeat(1_001)],
        (_, "reason") => vec!["two\nlines".to_owned(), "x".repeat(1_001)],
        (_, name) => panic!("the query parameter {name} is new: say in bad_texts what it refuses"),
    }
}

fn bodies(document: &Value, operation: &Value, good: &Good) -> Vec<Spoilt> {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let body = good.body.clone().unwrap();
    let whole = |value: Value| (format!("the body {value}"), Good { body: Some(value), ..good.clone() });
    let mut all = vec![whole(json!([])), whole(json!(null)), whole(json!("x")), whole(json!([body]))];
    if body.get("sql").is_some() {
        all.extend(["", " "].map(|sql| whole(json!({ "sql": sql, "selection": body["selection"] }))));
    }
    if operation["operationId"] == "patch" {
        all.push(whole(json!({ "reason": "nothing is to be changed" })));
    }
    let mut changed = Vec::new();
    object(document, schema, &body, &mut |what, value| changed.push((what, value)));
    all.extend(changed.into_iter().map(|(what, body)| (what, Good { body: Some(body), ..good.clone() })));
    all
}

/// Calls `tell` with every spoilt form of this object.
fn object(document: &Value, schema: &Value, good: &Value, tell: &mut dyn FnMut(String, Value)) {
    let schema = resolved(document, schema);
    let with = |name: &str, value: Value| {
        let mut object = good.clone();
        object[name] = value;
        object
    };
    tell("an unknown field".to_owned(), with("colour", json!("red")));
    for (name, field) in schema["properties"].as_object().unwrap_or(&Map::new()) {
        let field = resolved(document, field);
        for bad in bad_values(name, field) {
            tell(format!("the field {name}"), with(name, bad));
        }
        match good.get(name) {
            Some(inner @ Value::Object(_)) if field.get("properties").is_some() => {
                object(document, field, inner, &mut |what, value| tell(format!("{name}: {what}"), with(name, value)));
            }
            // What is told of a finding is compared with what is there, and answered for each.
            Some(Value::Array(items)) if name == "findings" => {
                for field in ["kind", "severity"] {
                    let mut finding = items[0].clone();
                    finding[field] = json!("mgirate");
                    tell(format!("a finding's {field}"), with(name, json!([finding])));
                }
                let mut finding = items[0].clone();
                finding["colour"] = json!("red");
                tell("an unknown field of a finding".to_owned(), with(name, json!([finding])));
            }
            Some(Value::Array(items)) if items.first().is_some_and(Value::is_object) => {
                object(document, &field["items"], &items[0], &mut |what, value| {
                    tell(format!("{name}[0]: {what}"), with(name, json!([value])));
                });
            }
            _ => {}
        }
    }
}

/// Values that no field of this name and schema may have.
fn bad_values(name: &str, schema: &Value) -> Vec<Value> {
    let mut all = match type_of(schema) {
        "integer" => {
            let mut numbers = bad_numbers(name, schema);
            numbers.extend([json!("8"), json!(true), json!([1])]);
            numbers
        }
        "boolean" => vec![json!("true"), json!(1), json!({})],
        "array" => bad_lists(name),
        "object" if schema.get("properties").is_none() => bad_maps(name),
        "object" => vec![json!("all"), json!(true), json!(["acme"])],
        _ => bad_strings(name, schema),
    };
    if name == "selection" {
        all.extend(bad_selections());
    }
    all
}

fn bad_numbers(name: &str, schema: &Value) -> Vec<Value> {
    let (Some(least), Some(most)) = (schema["minimum"].as_i64(), schema["maximum"].as_i64()) else {
        // Parts of a report, which are compared with what is there, and times whose range the description says.
        let known = ["version", "generation", "size_bytes", "operations_seconds", "events_seconds"];
        assert!(known.contains(&name), "{name} says no range: {schema}");
        return vec![json!(-1), json!(1.5), json!(1e30)];
    };
    let mut all = vec![json!(1.5), json!(1e30), json!(-1), json!(i64::MIN), json!(u64::MAX)];
    all.extend([least.checked_sub(1), most.checked_add(1)].into_iter().flatten().map(|number| json!(number)));
    all
}

fn bad_lists(name: &str) -> Vec<Value> {
    let mut all = vec![json!("acme"), json!({}), json!([7]), json!([null])];
    all.extend(match name {
        "names" => vec![json!(["nobody"]), json!(["acme", "nobody"]), json!([""]), json!(["tnt_1"])],
        "selectors" => vec![json!(["plan!"]), json!([""]), json!(["plan=typo"])],
        "backups" => vec![json!(["bkp_1"]), json!(["latest"])],
        "kinds" => vec![json!(["mgirate"]), json!([""]), json!(["tenant.created", "*"])],
        "tenants" | "files" | "findings" => vec![json!([])],
        // Values of any kind.
        "params" => return vec![json!("acme"), json!({ "a": 1 }), json!([[1]]), json!([{ "$int": "x" }])],
        name => panic!("the list {name} is new: say in bad_lists what it refuses"),
    });
    all
}

fn bad_maps(name: &str) -> Vec<Value> {
    assert_eq!(name, "labels", "the map {name} is new: say in bad_maps what it refuses");
    vec![json!(["plan"]), json!("plan=pro"), json!({ "plan": 7 }), json!({ "": "x" }), json!({ "a b": "x" })]
}

fn bad_strings(name: &str, schema: &Value) -> Vec<Value> {
    let mut all = vec![json!(7), json!({ "a": 1 }), json!(["x"])];
    if schema.get("enum").is_some() {
        all.extend([json!("mgirate"), json!(""), json!("BACKUP")]);
        return all;
    }
    let texts: &[&str] = match name {
        "engine" | "role" | "operator" | "kind" | "severity" => &["mgirate", "", "READER"],
        "tenant" | "server" | "to" | "release" | "plan" => &["nobody", "", ".."],
        "name" | "as" | "principal" => &["", "a\nb", "\0"],
        "member" => &["", "a\nb"],
        "provider" => &["", "Stripe", "a/b"],
        "account" => &["", "a\nb"],
        "secret" => &["short"],
        "job" => &["", "a\0b"],
        "host" => &["", "shop", "127.0.0.1", "[::1]", "*.shop.example", "a b.example", "-a.example"],
        "fleet_id" | "expires_at" => &["", "tomorrow", "-1"],
        "reason" | "label" => &["two\nlines"],
        "base" => &["", "relative", "/nowhere/at/all"],
        "dsn" => &["", "http://x", "postgres://"],
        "url" => &["", "receiver.example", "http://receiver.example/", "https://127.0.0.1/", "https://a:b@c.example/"],
        // A file may hold nothing.
        "sql" => &[],
        // Parts of a report, for a human or compared with what is there.
        "reference" | "what" | "physical" | "tenant_id" | "detail" | "next_step" => &[],
        name => panic!("the field {name} is new: say in bad_strings what it refuses"),
    };
    all.extend(texts.iter().map(|text| json!(text)));
    all
}

/// Selections that select nobody, or cannot be understood.
fn bad_selections() -> Vec<Value> {
    vec![
        json!({}),
        json!([]),
        json!(null),
        json!({ "all": false }),
        json!({ "names": [] }),
        json!({ "allow_empty": true }),
        json!({ "names": ["nobody"] }),
        json!({ "names": ["acme", "nobody"], "allow_empty": true }),
        json!({ "selectors": ["plan=typo"] }),
        json!({ "labels": { "plan": "typo" } }),
        json!({ "all": true, "selectors": ["plan=typo"] }),
        json!({ "selectors": ["plan!"], "allow_empty": true }),
        json!({ "server": "nowhere" }),
        json!({ "server": "nowhere", "allow_empty": true }),
        json!({ "everything": true }),
    ]
}

/// A schema behind its reference; of an optional one, the schema of its value.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(to) = schema["$ref"].as_str() {
        return resolved(document, document.pointer(to.trim_start_matches('#')).unwrap());
    }
    for part in ["oneOf", "allOf"] {
        let parts = schema[part].as_array().into_iter().flatten();
        if let Some(inner) = parts.into_iter().find(|part| part["type"] != "null") {
            return resolved(document, inner);
        }
    }
    schema
}

fn type_of(schema: &Value) -> &str {
    match &schema["type"] {
        Value::Array(types) => types.iter().find_map(|t| t.as_str().filter(|t| *t != "null")).unwrap(),
        one => one.as_str().unwrap_or("string"),
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
