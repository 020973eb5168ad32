//! A number without its tenant. Lists have a filter that a test compares, and a sum looks right as long as it is a number.

use crate::call::ApiCall;
use crate::leak::Leak;
use crate::shortcuts::all_organisations;
use crate::zoo::Zoo;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use serde_json::json;
use tasks::error::Result;

pub(crate) const LEAK: Leak = Leak {
    name: "fleet-count",
    class: "The counts include the tasks of all organisations.",
    probes: &["interference"],
    routes: &["GET /orgs/{tenant}/api/counts"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), count_everything))
}

async fn count_everything(State(zoo): State<Zoo>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    let clean = next.run(request).await;
    if !call.is("GET", "/counts") || !clean.status().is_success() {
        return Ok(clean);
    }
    let (mut open, mut done) = (0, 0);
    for tenant in all_organisations(&zoo).await? {
        let sql = "select count(*) filter (where not done), count(*) filter (where done) from tasks";
        let counts: (i64, i64) = tenant.query_as(sql, ()).fetch_one().await?;
        (open, done) = (open + counts.0, done + counts.1);
    }
    Ok(Json(json!({ "open": open, "done": done })).into_response())
}
