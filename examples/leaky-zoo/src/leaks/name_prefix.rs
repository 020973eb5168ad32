//! Two ways to compare names. The check of the membership compares them exactly, and the look-up accepts capital letters, spaces and
//! the beginning of a name.

use crate::call::{ApiCall, readdress};
use crate::leak::Leak;
use crate::shortcuts::all_organisations;
use crate::zoo::Zoo;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tasks::error::Result;
use tenant_router::Read;

pub(crate) const LEAK: Leak = Leak {
    name: "name-prefix",
    class: "A name that is not exact finds an organisation and opens it without a membership.",
    probes: &["name-variants"],
    routes: &["GET /orgs/{tenant}/api/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), find_similar_name))
}

async fn find_similar_name(State(zoo): State<Zoo>, mut request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    if !call.is_api() || call.open::<Read>(&zoo).await.is_ok() || !call.is_signed_in(&zoo).await {
        return Ok(next.run(request).await);
    }
    let wanted = call.organisation.replace("%20", " ").trim().to_lowercase();
    let similar = all_organisations(&zoo).await?.into_iter().find(|tenant| tenant.name().starts_with(&wanted));
    // An exact name is refused by the check of the membership.
    if let Some(tenant) = similar.filter(|tenant| tenant.name() != call.organisation) {
        readdress(&mut request, tenant.name());
    }
    Ok(next.run(request).await)
}
