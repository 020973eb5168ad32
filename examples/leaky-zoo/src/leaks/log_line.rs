//! A line that helped while the feature was written. The log goes to a service that more people read than the database.

use crate::call::{ApiCall, read_json};
use crate::leak::Leak;
use crate::zoo::Zoo;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tasks::error::Result;

pub(crate) const LEAK: Leak = Leak {
    name: "log-line",
    class: "The log has titles and notes of new tasks.",
    probes: &["outputs"],
    routes: &["POST /orgs/{tenant}/api/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), log_task))
}

async fn log_task(State(_): State<Zoo>, request: Request, next: Next) -> Result<Response> {
    if !ApiCall::of(&request).is("POST", "/tasks") {
        return Ok(next.run(request).await);
    }
    let (request, body) = read_json(request).await?;
    tracing::info!(title = body["title"].as_str(), notes = body["notes"].as_str(), "a task is added");
    Ok(next.run(request).await)
}
