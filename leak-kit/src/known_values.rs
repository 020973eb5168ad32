//! Keys of rows that the answers have shown, for the parameters of paths.

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;

use crate::route::Route;
use crate::world::Side;

/// Maximum number of keys that are kept for one parameter and tenant.
const KEYS_MAX: usize = 200;

/// The keys of both tenants' rows, by the template of a path up to the parameter.
#[derive(Debug, Default)]
pub(crate) struct KnownValues {
    keys: BTreeMap<(Side, String), Vec<String>>,
}

impl KnownValues {
    /// Learns keys from an answer: `GET /tasks` shows values of `{task}` in `/tasks/{task}`.
    pub(crate) fn learn(&mut self, routes: &[Route], route: &Route, side: Side, body: &Value) {
        let collection = route.collection();
        let items = items_of(body);
        for other in routes {
            for parameter in other.path_parameters() {
                let prefix = other.prefix_of(&parameter.name);
                if prefix == format!("{collection}{{{}}}", parameter.name) {
                    let keys: Vec<_> = items.iter().filter_map(|item| key_of(item, &parameter.name)).collect();
                    // A list says which rows are left.
                    if route.method == Method::GET && !keys.is_empty() {
                        self.keys.remove(&(side, prefix.to_owned()));
                    }
                    keys.into_iter().for_each(|key| self.add(side, prefix, key));
                }
            }
        }
    }

    fn add(&mut self, side: Side, prefix: &str, key: String) {
        let keys = self.keys.entry((side, prefix.to_owned())).or_default();
        if !keys.contains(&key) && keys.len() < KEYS_MAX {
            keys.push(key);
        }
    }

    /// The keys of a tenant's rows for a parameter of the route, in the order in which they were seen.
    pub(crate) fn of(&self, side: Side, route: &Route, parameter: &str) -> &[String] {
        self.keys.get(&(side, route.prefix_of(parameter).to_owned())).map_or(&[], Vec::as_slice)
    }

    /// Forgets a key whose row was deleted.
    pub(crate) fn forget(&mut self, side: Side, route: &Route, parameter: &str, key: &str) {
        if let Some(keys) = self.keys.get_mut(&(side, route.prefix_of(parameter).to_owned())) {
            keys.retain(|known| known != key);
        }
    }
}

/// The rows of an answer: the elements of its array, or the answer itself.
fn items_of(body: &Value) -> Vec<&Value> {
    match body {
        Value::Array(items) => items.iter().collect(),
        Value::Object(object) => match object.values().find_map(Value::as_array) {
            Some(items) if !object.contains_key("id") => items.iter().collect(),
            _ => vec![body],
        },
        _ => Vec::new(),
    }
}

/// The key of a row: its `id`, or the field that has the parameter's name.
fn key_of(item: &Value, parameter: &str) -> Option<String> {
    let named = [parameter.to_owned(), "id".to_owned(), format!("{parameter}_id"), "key".to_owned(), "name".to_owned()];
    let key = named.iter().find_map(|name| item.get(name).filter(|value| !value.is_null()))?;
    match key {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::RouteInventory;
    use serde_json::json;

    #[test]
    fn keys_are_learnt_from_lists_and_from_new_rows() {
        let parameter = |name: &str| json!({ "name": name, "in": "path", "schema": { "type": "string" } });
        let document = json!({ "openapi": "3.1.0", "paths": {
            "/t/{tenant}/tasks": { "get": {}, "post": {} },
            "/t/{tenant}/tasks/{task}": { "parameters": [parameter("tenant"), parameter("task")], "get": {} },
            "/t/{tenant}/tasks/{task}/comments/{comment}": {
                "parameters": [parameter("tenant"), parameter("task"), parameter("comment")], "get": {} } } });
        let inventory = RouteInventory::from_openapi(&document.to_string(), "tenant").unwrap();
        let routes = inventory.routes();
        let mut known = KnownValues::default();
        known.learn(routes, &routes[0], Side::First, &json!({ "items": [{ "id": 1 }, { "id": 2 }], "next": null }));
        known.learn(routes, &routes[1], Side::First, &json!({ "id": 3, "tags": ["x"] }));
        known.learn(routes, &routes[1], Side::Second, &json!({ "task": "b-1" }));
        assert_eq!(known.of(Side::First, &routes[3], "task"), ["1", "2", "3"]);
        assert_eq!(known.of(Side::Second, &routes[2], "task"), ["b-1"]);
        assert!(known.of(Side::First, &routes[3], "comment").is_empty());
        known.forget(Side::First, &routes[2], "task", "2");
        assert_eq!(known.of(Side::First, &routes[2], "task"), ["1", "3"]);
    }
}
