//! The routes of the application: from an OpenAPI document, or from recorded requests.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::{Map, Value};

use crate::error::{KitError, Result};
use crate::request_example::RequestExample;
use crate::route::{ParameterPlace, Route, RouteClass, RouteParameter};

/// The extension of an operation that names its class.
const CLASS_EXTENSION: &str = "x-tenant-access";
/// How deep references are followed. A schema that contains itself ends there.
const REFERENCE_DEPTH_MAX: usize = 8;
/// The methods of an OpenAPI document, without `options` and `trace`.
const METHODS: [&str; 6] = ["get", "head", "post", "put", "patch", "delete"];

/// Every route that the kit knows.
#[derive(Debug, Clone, Default)]
pub struct RouteInventory {
    routes: Vec<Route>,
}

impl RouteInventory {
    /// The routes of an OpenAPI 3 document. `tenant_parameter` is the name of the path parameter that names the tenant.
    ///
    /// # Errors
    /// `document_invalid` when the text is not such a document.
    pub fn from_openapi(document: &str, tenant_parameter: &str) -> Result<Self> {
        let document: Value = serde_json::from_str(document)
            .map_err(|error| KitError::new("document_invalid", format!("the OpenAPI document is not JSON: {error}")))?;
        let Some(paths) = document["paths"].as_object().filter(|_| document["openapi"].is_string()) else {
            return Err(KitError::new(
                "document_invalid",
                "the text is not an OpenAPI 3 document: no `openapi` or `paths`",
            ));
        };
        let reader = DocumentReader { document: &document, tenant_parameter };
        let routes: Vec<Route> = paths.iter().flat_map(|(template, item)| reader.routes_of(template, item)).collect();
        if routes.is_empty() {
            return Err(KitError::new("document_invalid", "the OpenAPI document has no operation"));
        }
        Ok(Self { routes })
    }

    /// The routes of recorded requests.
    #[must_use]
    pub fn from_routes(routes: Vec<Route>) -> Self {
        Self { routes }
    }

    /// All routes, in the document's order.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Gives routes their classes. A key is a route's name (`GET /health`), or a template that may end with `*`.
    ///
    /// # Errors
    /// `class_unknown` for a word that is not a class, `route_unknown` for a key that names none of the routes.
    pub fn set_classes(&mut self, classes: &BTreeMap<String, String>) -> Result<()> {
        for (key, word) in classes {
            let class = RouteClass::from_word(word).ok_or_else(|| {
                let words: Vec<_> = RouteClass::WORDS.iter().map(|(word, _)| *word).collect();
                KitError::new("class_unknown", format!("{word:?} is not a class of routes; use {}", words.join(", ")))
            })?;
            let mut named = self.routes.iter_mut().filter(|route| names_route(key, route)).peekable();
            if named.peek().is_none() {
                return Err(KitError::new("route_unknown", format!("{key:?} names none of the routes")));
            }
            named.for_each(|route| route.class = Some(class));
        }
        Ok(())
    }

    /// Gives a route a body that the application accepts. Further bodies of the same route are further requests.
    ///
    /// # Errors
    /// `route_unknown` when the example names none of the routes.
    pub fn add_example(&mut self, example: RequestExample) -> Result<()> {
        let named = |route: &&mut Route| route.label() == example.route;
        let Some(route) = self.routes.iter_mut().rev().find(named) else {
            return Err(KitError::new("route_unknown", format!("{:?} names none of the routes", example.route)));
        };
        let reads = example.reads || route.method.is_safe();
        // The example counts, and no body of the document.
        route.body = None;
        if route.example.is_none() {
            (route.example, route.reads) = (Some(example.body), reads);
        } else {
            let further = Route { example: Some(example.body), reads, ..route.clone() };
            self.routes.push(further);
        }
        Ok(())
    }

    /// The names of routes that have no class.
    #[must_use]
    pub fn without_class(&self) -> BTreeSet<String> {
        self.routes.iter().filter(|route| route.class.is_none()).map(Route::label).collect()
    }
}

fn names_route(key: &str, route: &Route) -> bool {
    match key.strip_suffix('*') {
        Some(start) => route.template.starts_with(start) || route.label().starts_with(start),
        None => route.template == key || route.label() == key,
    }
}

/// Reads one document.
struct DocumentReader<'d> {
    document: &'d Value,
    tenant_parameter: &'d str,
}

impl DocumentReader<'_> {
    fn routes_of(&self, template: &str, item: &Value) -> Vec<Route> {
        let operations = METHODS.iter().filter_map(|method| Some((*method, item.get(*method)?)));
        operations.map(|(method, operation)| self.route(method, template, item, operation)).collect()
    }

    fn route(&self, method: &str, template: &str, item: &Value, operation: &Value) -> Route {
        let tenant_parameter = template.contains(&format!("{{{}}}", self.tenant_parameter));
        let parameters = [&item["parameters"], &operation["parameters"]];
        let parameters = parameters.into_iter().filter_map(Value::as_array).flatten();
        let parameters = parameters.filter_map(|parameter| self.parameter(&self.resolve(parameter, 0)));
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap_or_default();
        Route {
            class: self.class(operation, tenant_parameter),
            reads: method.is_safe(),
            method,
            template: template.to_owned(),
            tenant_parameter: tenant_parameter.then(|| self.tenant_parameter.to_owned()),
            parameters: parameters.collect(),
            body: self.body(operation),
            example: None,
        }
    }

    /// The class that the operation names. Otherwise a route with the tenant in its path is for members of the tenant, or a
    /// signed address if it needs no sign-in; and a route without both is public.
    fn class(&self, operation: &Value, has_tenant: bool) -> Option<RouteClass> {
        if let Some(word) = operation[CLASS_EXTENSION].as_str() {
            return RouteClass::from_word(word);
        }
        let security = operation.get("security").or_else(|| self.document.get("security"));
        let is_open = security.and_then(Value::as_array).is_some_and(|needed| {
            needed.is_empty() || needed.iter().any(|one| one.as_object().is_some_and(Map::is_empty))
        });
        match (has_tenant, is_open) {
            (true, true) => Some(RouteClass::Link),
            (true, false) => Some(RouteClass::Tenant),
            (false, true) => Some(RouteClass::Public),
            (false, false) => None,
        }
    }

    fn parameter(&self, parameter: &Value) -> Option<RouteParameter> {
        let name = parameter["name"].as_str()?;
        let place = match parameter["in"].as_str()? {
            "path" => ParameterPlace::Path,
            "query" => ParameterPlace::Query,
            _ => return None,
        };
        if name == self.tenant_parameter && place == ParameterPlace::Path {
            return None;
        }
        let mut schema = parameter["schema"].clone();
        if let (Some(example), Some(schema)) = (parameter.get("example"), schema.as_object_mut()) {
            schema.insert("example".to_owned(), example.clone());
        }
        let required = parameter["required"].as_bool().unwrap_or(place == ParameterPlace::Path);
        Some(RouteParameter { name: name.to_owned(), place, required, schema })
    }

    /// The schema of the JSON body, with the example of the media type.
    fn body(&self, operation: &Value) -> Option<Value> {
        let body = self.resolve(operation.get("requestBody")?, 0);
        let content = body["content"].as_object()?;
        let is_json = |kind: &str| kind.split(';').next().is_some_and(|kind| kind.ends_with("json"));
        let (_, media) = content.iter().find(|(kind, _)| is_json(kind))?;
        let mut schema = media["schema"].clone();
        if let (Some(example), Some(schema)) = (media.get("example"), schema.as_object_mut()) {
            schema.insert("example".to_owned(), example.clone());
        }
        Some(schema)
    }

    /// The value with its references replaced by their targets.
    fn resolve(&self, value: &Value, depth: usize) -> Value {
        if depth > REFERENCE_DEPTH_MAX {
            return Value::Null;
        }
        match value {
            Value::Object(object) => match object.get("$ref").and_then(Value::as_str) {
                Some(reference) => {
                    let target = reference.strip_prefix('#').and_then(|pointer| self.document.pointer(pointer));
                    target.map(|target| self.resolve(target, depth + 1)).unwrap_or_default()
                }
                None => object.iter().map(|(key, value)| (key.clone(), self.resolve(value, depth))).collect(),
            },
            Value::Array(values) => values.iter().map(|value| self.resolve(value, depth)).collect(),
            _ => value.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r##"{
        "openapi": "3.1.0", "security": [{ "token": [] }],
        "paths": {
            "/t/{tenant}/tasks/{task}": {
                "parameters": [{ "$ref": "#/components/parameters/Tenant" },
                               { "name": "task", "in": "path", "schema": { "type": "integer" } }],
                "get": {}, "put": { "requestBody": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Task" } } } } }
            },
            "/t/{tenant}/download/{link}": { "get": { "security": [] } },
            "/health": { "get": { "security": [] } },
            "/live": { "get": { "x-tenant-access": "live" } },
            "/admin": { "get": {} }
        },
        "components": {
            "parameters": { "Tenant": { "name": "tenant", "in": "path", "required": true, "schema": { "type": "string" } } },
            "schemas": { "Task": { "type": "object", "properties": { "parent": { "$ref": "#/components/schemas/Task" } } } }
        }
    }"##;

    #[test]
    fn a_document_gives_routes_parameters_and_classes() {
        let mut inventory = RouteInventory::from_openapi(DOCUMENT, "tenant").unwrap();
        let classes: Vec<_> = inventory.routes().iter().map(|r| (r.label(), r.class.map(RouteClass::word))).collect();
        let expected = [
            ("GET /t/{tenant}/tasks/{task}", Some("tenant")),
            ("PUT /t/{tenant}/tasks/{task}", Some("tenant")),
            ("GET /t/{tenant}/download/{link}", Some("link")),
            ("GET /health", Some("public")),
            ("GET /live", Some("live")),
            ("GET /admin", None),
        ];
        assert_eq!(classes, expected.map(|(label, class)| (label.to_owned(), class)));
        assert_eq!(inventory.without_class().into_iter().collect::<Vec<_>>(), ["GET /admin"]);
        let put = &inventory.routes()[1];
        assert_eq!(put.path_parameters().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["task"], "the tenant is apart");
        assert!(put.body.as_ref().unwrap()["properties"]["parent"]["properties"].is_object());
        let keys = |key: &str, word: &str| BTreeMap::from([(key.to_owned(), word.to_owned())]);
        inventory.set_classes(&keys("GET /admin", "operator")).unwrap();
        assert!(inventory.without_class().is_empty());
        assert_eq!(inventory.set_classes(&keys("GET /admin", "secret")).unwrap_err().code(), "class_unknown");
        assert_eq!(inventory.set_classes(&keys("GET /missing", "public")).unwrap_err().code(), "route_unknown");
    }

    #[test]
    fn a_text_that_is_not_a_document_is_refused() {
        for text in
            ["", "{}", "[]", r#"{"openapi":"3.1.0"}"#, r#"{"openapi":"3.1.0","paths":{}}"#, r#"{"paths":{"/":{}}}"#]
        {
            assert_eq!(RouteInventory::from_openapi(text, "tenant").unwrap_err().code(), "document_invalid", "{text}");
        }
    }
}
