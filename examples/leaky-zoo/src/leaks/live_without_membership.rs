//! A WebSocket beside the usual routes. It has its own server or its own handler, and the layer that checks the membership is only
//! around the others.

use crate::call::{ApiCall, readdress};
use crate::leak::Leak;
use crate::zoo::Zoo;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

pub(crate) const LEAK: Leak = Leak {
    name: "live-without-membership",
    class: "The route of live messages checks nothing.",
    probes: &["foreign-address"],
    routes: &["GET /orgs/{tenant}/api/live"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), follow_anything))
}

async fn follow_anything(State(_): State<Zoo>, mut request: Request, next: Next) -> Response {
    let call = ApiCall::of(&request);
    if call.is("GET", "/live") {
        readdress(&mut request, &call.organisation);
    }
    next.run(request).await
}
