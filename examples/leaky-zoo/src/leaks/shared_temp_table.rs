//! A scratch table that is shared. Each search writes its rows there, and removes them too late.

use std::sync::{Arc, Mutex};

use crate::call::ApiCall;
use crate::extras::search::{SearchQuery, found_tasks};
use crate::leak::Leak;
use crate::shortcuts::ToldTask;
use crate::zoo::{UNPOISONED, Zoo};
use axum::extract::Query;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use tasks::error::Result;
use tenant_router::Read;

pub(crate) const LEAK: Leak = Leak {
    name: "shared-temp-table",
    class: "A search also returns what the search before it has found, also one of another organisation.",
    probes: &["colliding-keys"],
    routes: &["GET /orgs/{tenant}/api/search"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), ScratchRows::default()), search))
}

/// The rows of the latest search.
type ScratchRows = Arc<Mutex<Vec<ToldTask>>>;

async fn search(State((zoo, scratch)): State<(Zoo, ScratchRows)>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    if !call.is("GET", "/search") {
        return Ok(next.run(request).await);
    }
    let Query(query) = Query::<SearchQuery>::try_from_uri(request.uri()).unwrap_or_default();
    let found = found_tasks(&call.open::<Read>(&zoo).await?, &query.q).await?;
    let mut scratch = scratch.lock().expect(UNPOISONED);
    let mut answer = found.clone();
    answer.extend(scratch.drain(..).filter(|row| !found.contains(row)));
    *scratch = found;
    Ok(Json(answer).into_response())
}
