//! Live updates: a change of tasks, a new digest or a payment reaches the open pages of the organisation.
//!
//! A message has only the id of what changed. The page then reads the tasks by its own request, which checks its rights.

use axum::response::Response;
use axum::{Router, routing};
use serde::Serialize;
use tenant_router::axum::RealtimeRequest;
use tenant_router::{CanWrite, Read, Tenant};

use crate::Application;
use crate::error::Result;

/// The topic of each organisation.
const TOPIC: &str = "tasks";

pub(crate) fn routes() -> Router<Application> {
    Router::new().route("/live", routing::get(follow_tasks))
}

/// What has changed.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PageChange {
    /// A task was added, changed, commented or deleted.
    Task(i64),
    /// A job has made the digest.
    Digest,
    /// A payment has changed the plan.
    Plan,
}

/// A WebSocket, or server-sent events, until the person leaves or is not a member any more.
async fn follow_tasks(tenant: Tenant<Read>, request: RealtimeRequest) -> Result<Response> {
    Ok(request.answer(tenant.topic(TOPIC)?).await?)
}

/// Tells the organisation's open pages. Called after the commit of a change, which stays even if nobody can be told.
pub async fn announce_change<A: CanWrite>(tenant: &Tenant<A>, change: PageChange) {
    let told = async { tenant.topic(TOPIC)?.publish(&change).await };
    if let Err(error) = told.await {
        tracing::warn!(code = error.code(), "the open pages were not told of a change");
    }
}
