//! A signature over too little. It proves that the program has made a link to export 1, but not to whose export 1, and the path
//! says the rest.

use crate::call::{ApiCall, readdress_to};
use crate::leak::Leak;
use crate::zoo::Zoo;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use serde_json::json;
use tasks::error::Result;

pub(crate) const LEAK: Leak = Leak {
    name: "signed-link",
    class: "Links are signed without the organisation, so a link opens the same export of every organisation.",
    probes: &["replayed-values"],
    routes: &["POST /orgs/{tenant}/api/exports/{export}/link", "GET /orgs/{tenant}/download/{link}"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), sign_exports))
}

async fn sign_exports(State(zoo): State<Zoo>, mut request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    if let Some((_, link)) = call.route.split_once("/download/") {
        let export = link.split_once('.').and_then(|(id, _)| id.parse().ok()).filter(|id| sign(&zoo, *id) == link);
        let target = export.map(|id| format!("/orgs/{}/api/exports/{id}", call.organisation));
        if let Some(Ok(target)) = target.map(|target| target.parse()) {
            readdress_to(&mut request, target);
        }
        return Ok(next.run(request).await);
    }
    let clean = next.run(request).await;
    let export = call.route.strip_suffix("/link").and_then(|route| route.strip_prefix("/exports/")).map(str::parse);
    match export {
        Some(Ok(id)) if clean.status() == StatusCode::CREATED => {
            let path = format!("/orgs/{}/download/{}", call.organisation, sign(&zoo, id));
            Ok((StatusCode::CREATED, Json(json!({ "path": path }))).into_response())
        }
        _ => Ok(clean),
    }
}

/// The id with a signature that only this process can make.
fn sign(zoo: &Zoo, export: i64) -> String {
    let key = blake3::derive_key("leaky zoo signed link", zoo.memory.admin_key.as_bytes());
    format!("{export}.{}", blake3::keyed_hash(&key, &export.to_le_bytes()).to_hex())
}
