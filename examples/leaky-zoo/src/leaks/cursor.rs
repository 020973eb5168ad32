//! A value that went to the client and comes back is read as if the program had kept it. A cursor that says where to go on also
//! says whose rows.

use crate::call::ApiCall;
use crate::extras::pages::{TaskPage, page_after};
use crate::leak::Leak;
use crate::shortcuts::everywhere;
use crate::zoo::Zoo;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use tasks::error::{RequestError, Result};
use tenant_router::Read;

pub(crate) const LEAK: Leak = Leak {
    name: "cursor",
    class: "The cursor of a page names the organisation, and is trusted.",
    probes: &["replayed-values"],
    routes: &["GET /orgs/{tenant}/api/pages/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), show_page))
}

async fn show_page(State(zoo): State<Zoo>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    if !call.is("GET", "/pages/tasks") {
        return Ok(next.run(request).await);
    }
    let own = call.open::<Read>(&zoo).await?;
    let cursor = call.parameter("after").and_then(|cursor| cursor.split_once('.'));
    let (tenant, after) = match cursor.map(|(tenant, after)| (tenant.parse(), after.parse())) {
        Some((Ok(tenant), Ok(after))) => (zoo.router().open_id(everywhere(), tenant).await?, after),
        Some(_) => return Err(RequestError::invalid("The cursor is not one of this route")),
        None => (own, 0),
    };
    let (tasks, last) = page_after::<Read>(&tenant, after).await?;
    let next = last.map(|last| format!("{}.{last}", tenant.id()));
    Ok(Json(TaskPage { tasks, next }).into_response())
}
