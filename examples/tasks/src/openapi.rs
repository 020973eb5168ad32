//! The OpenAPI document of every route, except those of the page. It is written by hand, and a test compares it with the routes.

use axum::http::header;
use axum::{Router, routing};

use crate::Application;

/// The document, as JSON.
pub const DOCUMENT: &str = include_str!("../openapi.json");

/// Serves a document to everybody: it contains no data.
pub(crate) fn routes(document: String) -> Router<Application> {
    let show = || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    Router::new().route("/openapi.json", routing::get(show))
}
