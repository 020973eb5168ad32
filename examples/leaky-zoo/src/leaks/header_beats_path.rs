//! Two sources for one fact. The check reads the path and the handler reads the header, which a proxy or an older client sends.

use crate::call::{ApiCall, readdress};
use crate::leak::Leak;
use crate::zoo::Zoo;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tasks::error::Result;
use tenant_router::Read;

pub(crate) const LEAK: Leak = Leak {
    name: "header-beats-path",
    class: "The header X-Tenant wins over the path after the access was checked for the path.",
    probes: &["tenant-override"],
    routes: &["GET /orgs/{tenant}/api/tasks", "POST /orgs/{tenant}/api/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), prefer_header))
}

async fn prefer_header(State(zoo): State<Zoo>, mut request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    let header = request.headers().get("x-tenant").and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(organisation) = header.filter(|_| call.is_api()) {
        call.open::<Read>(&zoo).await?;
        readdress(&mut request, &organisation);
    }
    Ok(next.run(request).await)
}
