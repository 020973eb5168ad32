//! A rule of uniqueness over all customers for a value that is private to each. The refusal tells that somebody else has the value,
//! and a list of guesses tells who is a customer.

use crate::call::{ApiCall, read_json};
use crate::leak::Leak;
use crate::zoo::{UNPOISONED, Zoo};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tasks::error::{RequestError, Result};
use tenant_router::{TenantId, Write};

pub(crate) const LEAK: Leak = Leak {
    name: "taken-handle",
    class: "A handle that another organisation has is refused.",
    probes: &["taken-values"],
    routes: &["PUT /orgs/{tenant}/api/profile"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), refuse_taken_handle))
}

async fn refuse_taken_handle(State(zoo): State<Zoo>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    if !call.is("PUT", "/profile") {
        return Ok(next.run(request).await);
    }
    let (request, body) = read_json(request).await?;
    let own = call.open::<Write>(&zoo).await?.id();
    let is_taken = |(id, handle): (&TenantId, &String)| *id != own && body["handle"] == **handle;
    if zoo.memory.handles.lock().expect(UNPOISONED).iter().any(is_taken) {
        let title = "This handle is taken";
        return Err(RequestError::new(StatusCode::CONFLICT, "handle_taken", title, "Choose another handle."));
    }
    Ok(next.run(request).await)
}
