//! A header for speed on a private answer. A proxy then gives the list to everybody who asks for the same address, signed in or not.

use std::time::Duration;

use crate::call::ApiCall;
use crate::leak::Leak;
use crate::zoo::Zoo;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tenant_router::axum::PublicAnswer;

pub(crate) const LEAK: Leak = Leak {
    name: "public-caching",
    class: "Shared caches may keep the list of tasks for a minute.",
    probes: &["shared-caching"],
    routes: &["GET /orgs/{tenant}/api/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), allow_caching))
}

async fn allow_caching(State(_): State<Zoo>, request: Request, next: Next) -> Response {
    let is_list = ApiCall::of(&request).is("GET", "/tasks");
    let answer = next.run(request).await;
    match is_list {
        true => PublicAnswer { answer, age_max: Duration::from_secs(60) }.into_response(),
        false => answer,
    }
}
