//! How many tasks are open and done: a cached value of each organisation.
//!
//! A change of tasks forgets the value after its commit. Another process of the application sees the change when the value's
//! age ends.

use std::time::Duration;

use axum::{Json, Router, routing};
use serde::{Deserialize, Serialize};
use tenant_router::{AccessLevel, CacheNamespace, Read, Tenant};

use crate::Application;
use crate::error::{RequestError, Result};

/// Numbers of tasks.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct TaskCounts {
    open: i64,
    done: i64,
}

const COUNTS: CacheNamespace<TaskCounts> = CacheNamespace::new("task-counts", Duration::from_secs(60));

pub(crate) fn routes() -> Router<Application> {
    Router::new().route("/counts", routing::get(show_counts))
}

async fn show_counts(tenant: Tenant<Read>) -> Result<Json<TaskCounts>> {
    let counts = tenant.cache(&COUNTS).get_or_load(&[], || async {
        let sql = "select count(*) filter (where not done) as open, count(*) filter (where done) as done from tasks";
        let counts: TaskCounts = tenant.query_as(sql, ()).fetch_one().await?;
        Ok::<_, RequestError>(counts)
    });
    Ok(Json(*counts.await?))
}

/// Forgets the counts of this organisation. Called after the commit of a change.
pub fn forget_counts<A: AccessLevel>(tenant: &Tenant<A>) {
    tenant.cache(&COUNTS).forget(&[]);
}
