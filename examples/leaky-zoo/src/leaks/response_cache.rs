//! A cache of whole answers whose key is the route. The layer sits below the one that removes `/orgs/{name}` from the path, and so
//! the key says which page, but not whose.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::call::{ApiCall, read_answer};
use crate::leak::Leak;
use crate::zoo::{UNPOISONED, Zoo};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tasks::error::Result;
use tenant_router::Read;

pub(crate) const LEAK: Leak = Leak {
    name: "response-cache",
    class: "A layer caches answers by their path without the name of the organisation.",
    probes: &["colliding-keys"],
    routes: &[
        "GET /orgs/{tenant}/api/tasks",
        "GET /orgs/{tenant}/api/tasks/{task}",
        "GET /orgs/{tenant}/api/counts",
        "GET /orgs/{tenant}/api/people",
        "GET /orgs/{tenant}/api/report",
    ],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), CachedAnswers::default()), answer_from_cache))
}

/// Answers by route and query: content type and body.
type CachedAnswers = Arc<Mutex<HashMap<String, (Option<HeaderValue>, Bytes)>>>;

async fn answer_from_cache(
    State((zoo, cached)): State<(Zoo, CachedAnswers)>,
    request: Request,
    next: Next,
) -> Result<Response> {
    let call = ApiCall::of(&request);
    if call.is_change() {
        let clean = next.run(request).await;
        cached.lock().expect(UNPOISONED).clear();
        return Ok(clean);
    }
    // An answer of live messages has no end.
    if !call.is_api() || call.credential.is_none() || call.route == "/live" {
        return Ok(next.run(request).await);
    }
    call.open::<Read>(&zoo).await?;
    let key = format!("{}?{}", call.route, call.query);
    let known = cached.lock().expect(UNPOISONED).get(&key).cloned();
    if let Some((content_type, body)) = known {
        let mut response = body.into_response();
        content_type.map(|value| response.headers_mut().insert(header::CONTENT_TYPE, value));
        return Ok(response);
    }
    let (clean, body) = read_answer(next.run(request).await).await?;
    if clean.status() == StatusCode::OK {
        let content_type = clean.headers().get(header::CONTENT_TYPE).cloned();
        cached.lock().expect(UNPOISONED).insert(key, (content_type, body));
    }
    Ok(clean)
}
