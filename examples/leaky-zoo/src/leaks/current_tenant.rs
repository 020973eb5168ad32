//! A current tenant as a global value. One request after the other works, and two at the same time read each other's rows.

use std::sync::{Arc, Mutex};

use crate::call::{ApiCall, readdress};
use crate::leak::Leak;
use crate::shortcuts::title_of;
use crate::zoo::{UNPOISONED, Zoo};
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tasks::error::Result;
use tenant_router::Read;

pub(crate) const LEAK: Leak = Leak {
    name: "current-tenant",
    class: "The organisation is in a variable of the process, which another request changes meanwhile.",
    probes: &["concurrency"],
    routes: &["GET /orgs/{tenant}/api/tasks", "POST /orgs/{tenant}/api/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), CurrentName::default()), set_current))
}

/// The organisation of "the" request.
type CurrentName = Arc<Mutex<String>>;

async fn set_current(
    State((zoo, current)): State<(Zoo, CurrentName)>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let call = ApiCall::of(&request);
    if !call.is_api() || call.credential.is_none() {
        return Ok(next.run(request).await);
    }
    let own = call.open::<Read>(&zoo).await?;
    *current.lock().expect(UNPOISONED) = own.name().to_owned();
    // A look-up, during which other requests come.
    title_of(&own).await?;
    let name = current.lock().expect(UNPOISONED).clone();
    if name != own.name() {
        readdress(&mut request, &name);
    }
    Ok(next.run(request).await)
}
