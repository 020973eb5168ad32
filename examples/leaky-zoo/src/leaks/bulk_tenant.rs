//! The check of a request does not reach its parts. The caller is checked once, for the path, and each operation brings its own
//! target.

use crate::call::{ApiCall, read_json};
use crate::extras::imports::add_title;
use crate::leak::Leak;
use crate::shortcuts::open_unchecked;
use crate::zoo::Zoo;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tasks::error::Result;
use tenant_router::Write;

pub(crate) const LEAK: Leak = Leak {
    name: "bulk-tenant",
    class: "Each operation of a bulk request may name another organisation.",
    probes: &["tenant-override"],
    routes: &["POST /orgs/{tenant}/api/bulk"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), add_tasks))
}

async fn add_tasks(State(zoo): State<Zoo>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    if !call.is("POST", "/bulk") {
        return Ok(next.run(request).await);
    }
    let (request, mut bulk) = read_json(request).await?;
    call.open::<Write>(&zoo).await?;
    let operations = bulk["operations"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let (foreign, own): (Vec<_>, Vec<_>) = operations.into_iter().partition(|one| one["organisation"].is_string());
    for one in &foreign {
        let tenant = open_unchecked(&zoo, one["organisation"].as_str().unwrap_or_default()).await?;
        add_title(&tenant, one["title"].as_str().unwrap_or_default()).await?;
    }
    bulk["operations"] = own.into();
    let (mut parts, _) = request.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(next.run(Request::from_parts(parts, bulk.to_string().into())).await)
}
