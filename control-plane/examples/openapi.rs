//! Prints the OpenAPI document: `cargo run -p control-plane --example openapi > docs/openapi.json`.

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(control_plane::http::openapi::document_json().as_bytes())
}
