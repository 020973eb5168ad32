//! A lazily made value that lives as long as the process, but contains something of one request. In a real program this is a
//! client, a repository or a prepared statement in a static.

use std::sync::{Arc, OnceLock};

use crate::call::ApiCall;
use crate::extras::search::{SearchQuery, found_tasks};
use crate::leak::Leak;
use crate::zoo::Zoo;
use axum::extract::Query;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use tasks::error::Result;
use tenant_router::{Read, Tenant};

pub(crate) const LEAK: Leak = Leak {
    name: "captured-tenant",
    class: "The search keeps the database of its first caller and searches there for everybody.",
    probes: &["colliding-keys"],
    routes: &["GET /orgs/{tenant}/api/search"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), FirstTenant::default()), search))
}

/// The database that the search "is connected to".
type FirstTenant = Arc<OnceLock<Tenant<Read>>>;

async fn search(State((zoo, first)): State<(Zoo, FirstTenant)>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    if !call.is("GET", "/search") {
        return Ok(next.run(request).await);
    }
    let Query(query) = Query::<SearchQuery>::try_from_uri(request.uri()).unwrap_or_default();
    let tenant = call.open::<Read>(&zoo).await?;
    Ok(Json(found_tasks(first.get_or_init(|| tenant), &query.q).await?).into_response())
}
