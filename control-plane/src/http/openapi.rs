//! The OpenAPI 3.1 documents, generated from the handlers. This file has the admin API's, `data.rs` the data API's.
//!
//! The first one is stored in `docs/openapi.json`, so that a review shows changes of the API. `cargo run -p control-plane --example openapi > docs/openapi.json` writes it again.

use axum::response::{IntoResponse, Response};
use fleet_api::problem::{BadLine, ProblemBody};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

mod data;
mod data_refusals;
mod responses;

pub(crate) use data::DataDocument;
pub use data::data_document_json;

/// What the handlers do not say themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Fleet control plane",
        version = "1",
        description = "The admin API of a fleet with one database per tenant. Every error is application/problem+json.",
        license(name = "MIT OR Apache-2.0")
    ),
    components(schemas(ProblemBody, BadLine)),
    security(("operator_token" = [])),
    modifiers(&AddSecurityScheme)
)]
pub(crate) struct OpenApiDocument;

/// Adds the parts that all operations share: the credential and the shape of errors.
struct AddSecurityScheme;

impl Modify for AddSecurityScheme {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An operator's token: ftk_…"));
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("operator_token", SecurityScheme::Http(scheme.build()));
    }
}

/// The document as pretty JSON with a final newline.
#[must_use]
pub fn document_json() -> String {
    let document = super::routes::documented_routes().into_openapi();
    let mut json = serde_json::to_value(document).expect("the document is plain JSON");
    responses::complete_responses(&mut json);
    let mut text = serde_json::to_string_pretty(&json).expect("the document is plain JSON");
    text.push('\n');
    text
}

/// `GET /openapi.json`
pub(crate) async fn serve_document(text: std::sync::Arc<str>) -> Response {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    /// Schemas are merged by name. Two types with one name would silently become one.
    #[test]
    fn no_two_schemas_share_a_name() {
        let mut seen = BTreeSet::new();
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut folders = vec![root.join("src/http"), root.join("../fleet-api/src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                    continue;
                }
                let text = std::fs::read_to_string(&entry).unwrap();
                for part in text.split("ToSchema").skip(1).filter(|part| part.starts_with([')', ','])) {
                    let words = part.split_whitespace().skip_while(|word| !["struct", "enum"].contains(word));
                    let name = words.skip(1).map(|word| word.trim_end_matches(['{', ';'])).next().unwrap_or_default();
                    assert!(name.is_empty() || seen.insert(name.to_owned()), "{name} again in {}", entry.display());
                }
            }
        }
        assert!(seen.len() > 40, "{seen:?}");
    }
}
