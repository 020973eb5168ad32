//! A header that nobody looks at. The body has a filter, and the header is made from what the process has seen last.

use std::sync::{Arc, Mutex};

use crate::call::{ApiCall, read_json};
use crate::leak::Leak;
use crate::zoo::{UNPOISONED, Zoo};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tasks::error::Result;

pub(crate) const LEAK: Leak = Leak {
    name: "location-header",
    class: "The header Link of a new task names the latest task of any organisation.",
    probes: &["colliding-keys"],
    routes: &["POST /orgs/{tenant}/api/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), LatestTitle::default()), link_latest))
}

/// The title of the latest task.
type LatestTitle = Arc<Mutex<String>>;

async fn link_latest(State((_, latest)): State<(Zoo, LatestTitle)>, request: Request, next: Next) -> Result<Response> {
    if !ApiCall::of(&request).is("POST", "/tasks") {
        return Ok(next.run(request).await);
    }
    let (request, body) = read_json(request).await?;
    let mut clean = next.run(request).await;
    if let Some(title) = body["title"].as_str().filter(|_| clean.status().is_success()) {
        let before = std::mem::replace(&mut *latest.lock().expect(UNPOISONED), title.to_owned());
        let link = HeaderValue::from_str(&format!("<tasks>; rel=\"prev\"; title=\"{before}\""));
        link.map(|link| clean.headers_mut().insert(header::LINK, link)).ok();
    }
    Ok(clean)
}
