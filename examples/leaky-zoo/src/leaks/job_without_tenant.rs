//! A background job that does not carry its tenant. When it runs, it asks for "the current organisation", which is the one of
//! whatever request came last.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::call::{ApiCall, readdress};
use crate::leak::Leak;
use crate::zoo::{UNPOISONED, Zoo};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tasks::error::Result;
use tenant_router::Write;
use tokio::task::JoinSet;

pub(crate) const LEAK: Leak = Leak {
    name: "job-without-tenant",
    class: "The digest is made for the organisation of the latest request instead of the one that asked.",
    probes: &["interference"],
    routes: &["POST /orgs/{tenant}/api/digest", "GET /orgs/{tenant}/api/digest"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), JobContext::default()), request_digest))
}

/// How long wishes for a digest are collected.
const COLLECT: Duration = Duration::from_millis(300);

/// The organisation of the latest request, and the running jobs.
#[derive(Clone, Default)]
struct JobContext {
    latest: Arc<Mutex<String>>,
    jobs: Arc<Mutex<JoinSet<()>>>,
}

async fn request_digest(
    State((zoo, context)): State<(Zoo, JobContext)>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let call = ApiCall::of(&request);
    if !call.is_api() {
        return Ok(next.run(request).await);
    }
    *context.latest.lock().expect(UNPOISONED) = call.organisation.clone();
    if !call.is("POST", "/digest") {
        return Ok(next.run(request).await);
    }
    call.open::<Write>(&zoo).await?;
    let latest = Arc::clone(&context.latest);
    context.jobs.lock().expect(UNPOISONED).spawn(async move {
        tokio::time::sleep(COLLECT).await;
        let organisation = latest.lock().expect(UNPOISONED).clone();
        readdress(&mut request, &organisation);
        next.run(request).await;
    });
    Ok(StatusCode::ACCEPTED.into_response())
}
