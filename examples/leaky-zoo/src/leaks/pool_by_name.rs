//! A pool or connection that is remembered by a name that people choose. Names are unique until two customers are called
//! "Test".

use std::collections::HashMap;
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
    name: "pool-by-name",
    class: "Organisations with equal titles share the database of the first one.",
    probes: &["colliding-keys"],
    routes: &["GET /orgs/{tenant}/api/tasks", "POST /orgs/{tenant}/api/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), TitleOwners::default()), find_by_title))
}

/// The organisation whose database belongs to a title.
type TitleOwners = Arc<Mutex<HashMap<String, String>>>;

async fn find_by_title(
    State((zoo, owners)): State<(Zoo, TitleOwners)>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let call = ApiCall::of(&request);
    if !call.is_api() || call.credential.is_none() {
        return Ok(next.run(request).await);
    }
    let tenant = call.open::<Read>(&zoo).await?;
    let title = title_of(&tenant).await?;
    let owner = owners.lock().expect(UNPOISONED).entry(title).or_insert_with(|| tenant.name().to_owned()).clone();
    if owner != tenant.name() {
        readdress(&mut request, &owner);
    }
    Ok(next.run(request).await)
}
