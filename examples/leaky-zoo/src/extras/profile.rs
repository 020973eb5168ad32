//! The profile: a handle of each organisation. Two organisations may have the same one.

use axum::extract::State;
use axum::{Json, Router, routing};
use serde::{Deserialize, Serialize};
use tasks::error::Result;
use tasks::input::{JsonBody, checked_line};
use tenant_router::{Read, Tenant, Write};

use crate::zoo::{UNPOISONED, Zoo};

/// Maximum length of a handle in characters.
const HANDLE_MAX: usize = 40;

pub(crate) fn routes() -> Router<Zoo> {
    Router::new().route("/profile", routing::get(show_profile).put(put_profile))
}

/// A handle to set.
#[derive(Debug, Deserialize)]
pub struct NewHandle {
    /// One line.
    pub handle: String,
}

/// What an organisation says of itself.
#[derive(Debug, Serialize)]
pub struct Profile {
    /// Null before it is set.
    pub handle: Option<String>,
}

async fn put_profile(
    State(zoo): State<Zoo>,
    tenant: Tenant<Write>,
    JsonBody(new): JsonBody<NewHandle>,
) -> Result<Json<Profile>> {
    let handle = checked_line("handle", &new.handle, HANDLE_MAX)?;
    let mut handles = zoo.memory.handles.lock().expect(UNPOISONED);
    handles.insert(tenant.id(), handle.clone());
    Ok(Json(Profile { handle: Some(handle) }))
}

async fn show_profile(State(zoo): State<Zoo>, tenant: Tenant<Read>) -> Json<Profile> {
    let handles = zoo.memory.handles.lock().expect(UNPOISONED);
    Json(Profile { handle: handles.get(&tenant.id()).cloned() })
}
