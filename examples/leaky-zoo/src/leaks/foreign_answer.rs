//! 403 for what exists and 404 for what does not. So every visitor with an account can find out who else is a customer.

use crate::call::ApiCall;
use crate::leak::Leak;
use crate::shortcuts::open_unchecked;
use crate::zoo::Zoo;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tasks::error::{RequestError, Result};
use tenant_router::Read;

pub(crate) const LEAK: Leak = Leak {
    name: "foreign-answer",
    class: "The answer for an organisation of others differs from the answer for an unknown one.",
    probes: &["foreign-address"],
    routes: &["GET /orgs/{tenant}/api/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), refuse_honestly))
}

async fn refuse_honestly(State(zoo): State<Zoo>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    let is_own = !call.is_api() || call.open::<Read>(&zoo).await.is_ok();
    if is_own || !call.is_signed_in(&zoo).await || open_unchecked::<Read>(&zoo, &call.organisation).await.is_err() {
        return Ok(next.run(request).await);
    }
    let (title, next_step) = ("You are not a member of this organisation", "Ask a manager for a link.");
    Err(RequestError::new(StatusCode::FORBIDDEN, "not_a_member", title, next_step))
}
