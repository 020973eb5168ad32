//! Bulk: several new tasks in one transaction, all or none.

use axum::http::StatusCode;
use axum::{Json, Router, routing};
use serde::{Deserialize, Serialize};
use tasks::counts::forget_counts;
use tasks::error::{RequestError, Result};
use tasks::input::{JsonBody, checked_line};
use tasks::live::{PageChange, announce_change};
use tenant_router::{Tenant, Write};

use super::imports::{NewTitle, TITLE_MAX};
use crate::zoo::Zoo;

/// Maximum number of tasks in one request, which one transaction adds.
const OPERATIONS_MAX: usize = 100;

pub(crate) fn routes() -> Router<Zoo> {
    Router::new().route("/bulk", routing::post(add_tasks))
}

/// The tasks to add.
#[derive(Debug, Deserialize)]
pub struct BulkRequest {
    /// In this order.
    pub operations: Vec<NewTitle>,
}

/// The new tasks.
#[derive(Debug, Serialize)]
pub struct BulkAnswer {
    /// Their ids, in the order of the request.
    pub ids: Vec<i64>,
}

async fn add_tasks(
    tenant: Tenant<Write>,
    JsonBody(bulk): JsonBody<BulkRequest>,
) -> Result<(StatusCode, Json<BulkAnswer>)> {
    if bulk.operations.len() > OPERATIONS_MAX {
        return Err(RequestError::invalid(format!("A request may have {OPERATIONS_MAX} operations")));
    }
    let (mut tx, mut ids) = (tenant.write(), Vec::new());
    for new in &bulk.operations {
        let title = checked_line("title", &new.title, TITLE_MAX)?;
        let sql = "insert into tasks (title, notes) values ($1, '') returning id";
        ids.push(tx.execute_as(sql, [title]).fetch_one().await?);
    }
    tx.commit().await?;
    forget_counts(&tenant);
    for id in &ids {
        announce_change(&tenant, PageChange::Task(*id)).await;
    }
    Ok((StatusCode::CREATED, Json(BulkAnswer { ids })))
}
