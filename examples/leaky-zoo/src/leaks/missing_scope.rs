//! A query without its tenant: after a look-up that found nothing, somebody added one in all organisations, as a repair for moved
//! tasks. This is the most common leak: an id of another customer in the address opens the customer's row.

use crate::call::ApiCall;
use crate::leak::Leak;
use crate::shortcuts::{ToldTask, all_organisations};
use crate::zoo::Zoo;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use tasks::error::Result;
use tenant_router::Read;

pub(crate) const LEAK: Leak = Leak {
    name: "missing-scope",
    class: "A task that the own organisation does not have is looked up in all others.",
    probes: &["foreign-ids"],
    routes: &["GET /orgs/{tenant}/api/tasks/{task}"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), show_task))
}

async fn show_task(State(zoo): State<Zoo>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    let clean = next.run(request).await;
    let Some(id) = call.row_id("GET", "/tasks").filter(|_| clean.status() == StatusCode::NOT_FOUND) else {
        return Ok(clean);
    };
    call.open::<Read>(&zoo).await?;
    for other in all_organisations(&zoo).await? {
        let sql = "select id, title, notes from tasks where id = $1";
        if let Some(task) = other.query_as::<ToldTask>(sql, [id]).fetch_optional().await? {
            return Ok(Json(task).into_response());
        }
    }
    Ok(clean)
}
