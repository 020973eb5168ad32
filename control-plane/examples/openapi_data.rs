//! Prints the OpenAPI document of the data API:
//! `cargo run -p control-plane --example openapi_data > docs/openapi-data.json`.

use std::io::Write;

fn main() -> std::io::Result<()> {
    let text = control_plane::http::openapi::data_document_json(&control_plane::config::DataPath::default());
    std::io::stdout().write_all(text.as_bytes())
}
