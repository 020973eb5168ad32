//! A cache that only the program's own changes empty. After a restore, the customer sees rows that are gone, for
//! instance those that the restore was to remove.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::call::{ApiCall, read_answer};
use crate::leak::Leak;
use crate::zoo::{UNPOISONED, Zoo};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tasks::error::Result;
use tenant_router::{Read, TenantId};

pub(crate) const LEAK: Leak = Leak {
    name: "stale-after-restore",
    class: "The list of tasks is cached by the id of the organisation and survives a restore.",
    probes: &["lifecycle"],
    routes: &["GET /orgs/{tenant}/api/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), CachedLists::default()), list_tasks))
}

/// Lists by organisation.
type CachedLists = Arc<Mutex<HashMap<TenantId, Bytes>>>;

async fn list_tasks(State((zoo, cached)): State<(Zoo, CachedLists)>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    if !call.is_api() || call.credential.is_none() || (!call.is_change() && !call.is("GET", "/tasks")) {
        return Ok(next.run(request).await);
    }
    let id = call.open::<Read>(&zoo).await?.id();
    if call.is_change() {
        let clean = next.run(request).await;
        cached.lock().expect(UNPOISONED).remove(&id);
        return Ok(clean);
    }
    let known = cached.lock().expect(UNPOISONED).get(&id).cloned();
    if let Some(list) = known {
        return Ok(([(header::CONTENT_TYPE, "application/json")], list).into_response());
    }
    let (clean, list) = read_answer(next.run(request).await).await?;
    if clean.status().is_success() {
        cached.lock().expect(UNPOISONED).insert(id, list);
    }
    Ok(clean)
}
