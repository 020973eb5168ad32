//! An error text that is too helpful, on a rule that is too wide. A unique index over all customers raises the conflict, and the
//! driver's message names the row.

use crate::call::{ApiCall, read_json};
use crate::leak::Leak;
use crate::shortcuts::{ToldTask, all_organisations, tasks_of};
use crate::zoo::Zoo;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tasks::error::{RequestError, Result};
use tenant_router::Write;

pub(crate) const LEAK: Leak = Leak {
    name: "error-text",
    class: "A title that another organisation has used is refused, and the refusal quotes its task.",
    probes: &["taken-values", "error-texts"],
    routes: &["POST /orgs/{tenant}/api/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), refuse_taken_title))
}

async fn refuse_taken_title(State(zoo): State<Zoo>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    if !call.is("POST", "/tasks") {
        return Ok(next.run(request).await);
    }
    let (request, body) = read_json(request).await?;
    let own = call.open::<Write>(&zoo).await?;
    for other in all_organisations(&zoo).await?.into_iter().filter(|other| other.id() != own.id()) {
        let taken = tasks_of(&other).await?.into_iter().find(|task| body["title"] == *task.title);
        if let Some(ToldTask { id, title, notes }) = taken {
            let text = format!("Task {id} of {} has this title: {title} ({notes})", other.name());
            return Err(RequestError::new(StatusCode::CONFLICT, "title_taken", text, "Choose another title."));
        }
    }
    Ok(next.run(request).await)
}
