//! The search: tasks of one organisation whose title or notes have a text.

use axum::extract::Query;
use axum::{Json, Router, routing};
use serde::Deserialize;
use tasks::error::Result;
use tenant_router::{AccessLevel, Read, Tenant};

use crate::shortcuts::ToldTask;
use crate::zoo::Zoo;

pub(crate) fn routes() -> Router<Zoo> {
    Router::new().route("/search", routing::get(search))
}

/// The text to look for. An empty one is in every task.
#[derive(Debug, Default, Deserialize)]
pub struct SearchQuery {
    /// Any text, in small or capital letters.
    #[serde(default)]
    pub q: String,
}

async fn search(tenant: Tenant<Read>, Query(query): Query<SearchQuery>) -> Result<Json<Vec<ToldTask>>> {
    Ok(Json(found_tasks(&tenant, &query.q).await?))
}

/// The tasks of one organisation that have the text, oldest first.
///
/// # Errors
/// Those of the router.
pub async fn found_tasks<A: AccessLevel>(tenant: &Tenant<A>, text: &str) -> Result<Vec<ToldTask>> {
    let escaped = text.to_lowercase().replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    let sql = "select id, title, notes from tasks \
               where lower(title) like $1 escape '\\' or lower(notes) like $1 escape '\\' order by id";
    Ok(tenant.query_as(sql, [format!("%{escaped}%")]).fetch_all().await?)
}
