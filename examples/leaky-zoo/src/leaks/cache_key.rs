//! A cache whose key lacks the tenant. It was written when there was one customer, and every test has one customer.

use std::sync::{Arc, Mutex};

use crate::call::{ApiCall, read_answer};
use crate::leak::Leak;
use crate::zoo::{UNPOISONED, Zoo};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tasks::error::Result;
use tenant_router::Read;

pub(crate) const LEAK: Leak = Leak {
    name: "cache-key",
    class: "The counts are cached without the organisation until anybody changes something.",
    probes: &["interference", "colliding-keys"],
    routes: &["GET /orgs/{tenant}/api/counts"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), CachedCounts::default()), show_counts))
}

/// The only entry of the cache.
type CachedCounts = Arc<Mutex<Option<Bytes>>>;

async fn show_counts(
    State((zoo, cached)): State<(Zoo, CachedCounts)>,
    request: Request,
    next: Next,
) -> Result<Response> {
    let call = ApiCall::of(&request);
    if call.is_change() {
        let clean = next.run(request).await;
        *cached.lock().expect(UNPOISONED) = None;
        return Ok(clean);
    }
    if !call.is("GET", "/counts") {
        return Ok(next.run(request).await);
    }
    call.open::<Read>(&zoo).await?;
    let known = cached.lock().expect(UNPOISONED).clone();
    if let Some(counts) = known {
        return Ok(([(header::CONTENT_TYPE, "application/json")], counts).into_response());
    }
    let (clean, counts) = read_answer(next.run(request).await).await?;
    *cached.lock().expect(UNPOISONED) = clean.status().is_success().then_some(counts);
    Ok(clean)
}
