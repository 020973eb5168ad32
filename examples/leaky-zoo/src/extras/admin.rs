//! The operator's route: how many organisations there are. The key of the process opens it, and no session does.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Json, Router, routing};
use fleet_client::ApiRequest;
use fleet_client::fleet_api::status::FleetStatus;
use serde::Serialize;
use tasks::error::{RequestError, Result};

use crate::zoo::Zoo;

/// The name of the header.
const ADMIN_KEY: &str = "x-admin-key";

pub(crate) fn routes() -> Router<Zoo> {
    Router::new().route("/admin/organisations", routing::get(count_organisations))
}

/// The size of the fleet.
#[derive(Debug, Serialize)]
pub struct OrganisationCount {
    /// Organisations that serve.
    pub organisations: i64,
}

async fn count_organisations(State(zoo): State<Zoo>, headers: HeaderMap) -> Result<Json<OrganisationCount>> {
    // Equal hashes: the time of the comparison does not tell how much of a key is right.
    let sent = headers.get(ADMIN_KEY).map(|key| blake3::hash(key.as_bytes()));
    if sent != Some(blake3::hash(zoo.memory.admin_key.as_bytes())) {
        let (code, next_step) = ("admin_key_wrong", "Send the key of the process in X-Admin-Key.");
        return Err(RequestError::new(StatusCode::UNAUTHORIZED, code, "The key of the operator is wrong", next_step));
    }
    let status: FleetStatus = zoo.application.fleet.send(&ApiRequest::get("/v1/status")).await?;
    Ok(Json(OrganisationCount { organisations: status.tenants.get("active").copied().unwrap_or_default() }))
}
