//! Mass assignment: the body is read into the whole row, and the row has a column for the tenant. The caller was checked for the
//! organisation of the path.

use crate::call::{ApiCall, read_json, readdress};
use crate::leak::Leak;
use crate::zoo::Zoo;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tasks::error::Result;
use tenant_router::Write;

pub(crate) const LEAK: Leak = Leak {
    name: "body-names-tenant",
    class: "The field tenant in the body of a new task decides where the task goes.",
    probes: &["tenant-override"],
    routes: &["POST /orgs/{tenant}/api/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), add_task))
}

async fn add_task(State(zoo): State<Zoo>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    if !call.is("POST", "/tasks") {
        return Ok(next.run(request).await);
    }
    let (mut request, body) = read_json(request).await?;
    if let Some(organisation) = body["tenant"].as_str() {
        call.open::<Write>(&zoo).await?;
        readdress(&mut request, organisation);
    }
    Ok(next.run(request).await)
}
