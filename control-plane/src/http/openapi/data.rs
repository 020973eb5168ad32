//! The document of the data API. PURE.
//!
//! `docs/openapi-data.json` has it for the default path of tenants, and a listener serves it for its own path.
//! `cargo run -p control-plane --example openapi_data > docs/openapi-data.json` writes it again.

use fleet_api::problem::{BadLine, ProblemBody};
use serde_json::{Map, Value, json};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::data_refusals::{headers_of, refusal_responses};
use crate::config::DataPath;

/// What the handlers do not say themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Fleet data API",
        version = "1",
        description = "SQL on the database of one tenant. A manager also reads the audit log of the tenant. The path, the host, the token or the header X-Tenant names the tenant. Names that disagree are refused. Every error is application/problem+json. Any other path answers 404, and another method 405 (`method_not_allowed`). There are no idempotency keys: after `connection_lost` the change may have been applied.",
        license(name = "MIT OR Apache-2.0")
    ),
    components(schemas(ProblemBody, BadLine)),
    security(("tenant_token" = [])),
    modifiers(&AddTenantToken)
)]
pub(crate) struct DataDocument;

struct AddTenantToken;

impl Modify for AddTenantToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let text = "A token that `fleetctl token create` made (ftk_…), or a JSON Web Token of an accepted issuer";
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(text));
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("tenant_token", SecurityScheme::Http(scheme.build()));
    }
}

/// The document as pretty JSON with a final newline, for a data API with this path of tenants.
#[must_use]
pub fn data_document_json(path: &DataPath) -> String {
    let document = crate::http::routes::data_routes(path).into_openapi();
    let mut json = serde_json::to_value(document).expect("the document is plain JSON");
    complete_operations(&mut json);
    let mut text = serde_json::to_string_pretty(&json).expect("the document is plain JSON");
    text.push('\n');
    text
}

/// Adds the parts that all statements share.
fn complete_operations(document: &mut Value) {
    let refusals = refusal_responses();
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        let names_tenant = path.contains("{tenant}");
        let operations = item.as_object_mut().into_iter().flat_map(Map::values_mut);
        for operation in operations.filter(|operation| operation.get("security").is_none()) {
            complete_one(operation, names_tenant, refusals.keys());
        }
    }
    let named = refusals.into_iter().map(|(status, response)| (refusal_name(status), response));
    document["components"]["responses"] = named.collect::<Map<_, _>>().into();
}

fn complete_one<'a>(operation: &mut Value, names_tenant: bool, statuses: impl Iterator<Item = &'a u16>) {
    let mut own = operation["parameters"].as_array().cloned().unwrap_or_default();
    own.extend(parameters(names_tenant));
    operation["parameters"] = own.into();
    if names_tenant {
        let id = operation["operationId"].as_str().unwrap_or_default();
        operation["operationId"] = format!("{id}_of_path").into();
    }
    operation["responses"]["200"]["headers"] = headers_of(200);
    for status in statuses {
        let reference = json!({ "$ref": format!("#/components/responses/{}", refusal_name(*status)) });
        operation["responses"][status.to_string()] = reference;
    }
}

fn refusal_name(status: u16) -> String {
    format!("Refused{status}")
}

/// The parameters that every operation on a tenant has.
fn parameters(names_tenant: bool) -> Vec<Value> {
    let parameter = |place: &str, name: &str, text: &str, schema: Value| json!({ "in": place, "name": name, "description": text, "required": place == "path", "schema": schema });
    let name = json!({ "type": "string", "maxLength": 63, "pattern": "^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$" });
    let of_service = "Name of the tenant. Only a token made with --service may send it";
    let id = "Id of the request in the log. The server replaces an id that has more than 128 bytes or other characters \
              than letters, digits and -_.:/+=";
    let mut all = vec![
        parameter("header", "X-Tenant", of_service, name.clone()),
        parameter("header", "X-Request-Id", id, json!({ "type": "string" })),
    ];
    if names_tenant {
        all.insert(0, parameter("path", "tenant", "Name of the tenant", name));
    }
    all
}
