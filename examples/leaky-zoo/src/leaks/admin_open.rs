//! A route for operators behind the sign-in of customers. It is not linked anywhere, and the check of the role was to come later.

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
    name: "admin-open",
    class: "The operator's route accepts every signed-in caller and lists the titles of all organisations.",
    probes: &["operator-routes"],
    routes: &["GET /admin/organisations"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), list_organisations))
}

async fn list_organisations(State(zoo): State<Zoo>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    if !call.is("GET", "/admin/organisations") || !call.is_signed_in(&zoo).await {
        return Ok(next.run(request).await);
    }
    let mut listed = Vec::new();
    for tenant in all_organisations(&zoo).await? {
        let title: String = tenant.query_as("select title from organisation", ()).fetch_one().await?;
        listed.push(json!({ "name": tenant.name(), "title": title }));
    }
    Ok(Json(listed).into_response())
}
