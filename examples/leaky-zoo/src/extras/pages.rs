//! The tasks in pages of two. The cursor is signed for the organisation, and no other one accepts it.

use std::time::Duration;

use axum::extract::Query;
use axum::{Json, Router, routing};
use serde::{Deserialize, Serialize};
use tasks::error::Result;
use tenant_router::{AccessLevel, LinkPurpose, Read, Tenant};

use crate::shortcuts::ToldTask;
use crate::zoo::Zoo;

/// Few, so that a test soon has a second page.
const PAGE_TASKS: usize = 2;
/// Cursors with the id of the last task of their page.
const CURSOR: LinkPurpose<i64> = LinkPurpose::new("page-cursor", Duration::from_secs(3_600));

pub(crate) fn routes() -> Router<Zoo> {
    Router::new().route("/pages/tasks", routing::get(show_page))
}

/// Where the page begins.
#[derive(Debug, Default, Deserialize)]
pub struct PageQuery {
    /// The `next` of the page before; the first page without it.
    pub after: Option<String>,
}

/// A page of tasks.
#[derive(Debug, Serialize)]
pub struct TaskPage {
    /// At most two tasks.
    pub tasks: Vec<ToldTask>,
    /// The cursor of the next page; null on the last one.
    pub next: Option<String>,
}

async fn show_page(tenant: Tenant<Read>, Query(query): Query<PageQuery>) -> Result<Json<TaskPage>> {
    let after = query.after.map(|cursor| tenant.link_value(&CURSOR, &cursor)).transpose()?;
    let (tasks, last) = page_after(&tenant, after.unwrap_or_default()).await?;
    let next = last.map(|last| tenant.sign_link(&CURSOR, &last)).transpose()?;
    Ok(Json(TaskPage { tasks, next }))
}

/// The tasks after this id, and the id of the last one if another page follows.
///
/// # Errors
/// Those of the router.
pub async fn page_after<A: AccessLevel>(tenant: &Tenant<A>, after: i64) -> Result<(Vec<ToldTask>, Option<i64>)> {
    let sql = "select id, title, notes from tasks where id > $1 order by id limit $2";
    let mut tasks: Vec<ToldTask> = tenant.query_as(sql, (after, PAGE_TASKS + 1)).fetch_all().await?;
    let has_more = tasks.len() > PAGE_TASKS;
    tasks.truncate(PAGE_TASKS);
    let last = tasks.last().map(|task| task.id).filter(|_| has_more);
    Ok((tasks, last))
}
