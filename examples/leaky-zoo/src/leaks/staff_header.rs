//! A door for support without a lock: the page of the support team sends the header, so the program believes that only the support
//! team does.

use crate::call::{ApiCall, readdress};
use crate::leak::Leak;
use crate::zoo::Zoo;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

pub(crate) const LEAK: Leak = Leak {
    name: "staff-header",
    class: "A header or a parameter for support opens any organisation for any signed-in caller.",
    probes: &["tenant-override"],
    routes: &["GET /orgs/{tenant}/api/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), act_as))
}

async fn act_as(State(zoo): State<Zoo>, mut request: Request, next: Next) -> Response {
    let call = ApiCall::of(&request);
    let header = request.headers().get("x-impersonate").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let wanted = header.or_else(|| call.parameter("as").map(str::to_owned)).filter(|_| call.is_api());
    if let Some(organisation) = wanted
        && call.is_signed_in(&zoo).await
    {
        readdress(&mut request, &organisation);
    }
    next.run(request).await
}
