//! The page: one HTML document, one style sheet and a few scripts, all inside the program.
//!
//! The document is the same for every organisation and contains no data. Its script calls the API.

use axum::Router;
use axum::extract::Request;
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::Application;

/// Only files of this application, no script inside the document, and no frame around it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// A file of the page: its name, its content type and its content.
macro_rules! page_file {
    ($name:literal, $content_type:literal) => {
        ($name, $content_type, include_str!(concat!("../page/", $name)))
    };
}

const FILES: [(&str, &str, &str); 12] = [
    page_file!("style.css", "text/css; charset=utf-8"),
    page_file!("icon.svg", "image/svg+xml"),
    page_file!("app.js", "text/javascript; charset=utf-8"),
    page_file!("api.js", "text/javascript; charset=utf-8"),
    page_file!("dom.js", "text/javascript; charset=utf-8"),
    page_file!("form-key.js", "text/javascript; charset=utf-8"),
    page_file!("home.js", "text/javascript; charset=utf-8"),
    page_file!("live.js", "text/javascript; charset=utf-8"),
    page_file!("tasks.js", "text/javascript; charset=utf-8"),
    page_file!("task-sheet.js", "text/javascript; charset=utf-8"),
    page_file!("members.js", "text/javascript; charset=utf-8"),
    page_file!("exports.js", "text/javascript; charset=utf-8"),
];

pub(crate) fn routes() -> Router<Application> {
    let document = || async { file_response("text/html; charset=utf-8", include_str!("../page/index.html")) };
    let pages = Router::new().route("/", get(document)).route("/orgs/{tenant}", get(document));
    FILES.into_iter().fold(pages, |pages, (name, content_type, content)| {
        pages.route(&format!("/assets/{name}"), get(move || async move { file_response(content_type, content) }))
    })
}

fn file_response(content_type: &'static str, content: &'static str) -> Response {
    // A new version of the program has new files under the same names.
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache")];
    (StatusCode::OK, headers, content).into_response()
}

/// A middleware whose headers forbid browsers what this application does not need.
pub(crate) async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = HEADERS.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value)));
    response.headers_mut().extend(headers);
    response
}
