//! The report: the titles of all tasks, with a tag that tells a client whether it has changed. The tag names the organisation.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use serde::Serialize;
use tasks::error::Result;
use tenant_router::{AccessLevel, Read, Tenant};

use crate::zoo::Zoo;

pub(crate) fn routes() -> Router<Zoo> {
    Router::new().route("/report", routing::get(show_report))
}

/// The titles of an organisation's tasks.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The title of the organisation.
    pub title: String,
    /// The titles of its tasks, oldest first.
    pub tasks: Vec<String>,
}

async fn show_report(tenant: Tenant<Read>, headers: HeaderMap) -> Result<Response> {
    let report = report_of(&tenant).await?;
    let tagged = format!("{} {} {:?}", tenant.id(), report.title, report.tasks);
    let tag = format!("\"{}\"", blake3::hash(tagged.as_bytes()).to_hex());
    Ok(tagged_answer(&headers, tag, report))
}

/// The report of an organisation.
///
/// # Errors
/// Those of the router.
pub async fn report_of<A: AccessLevel>(tenant: &Tenant<A>) -> Result<Report> {
    let title = tenant.query_as("select title from organisation", ()).fetch_one().await?;
    let tasks = tenant.query_as("select title from tasks order by id", ()).fetch_all().await?;
    Ok(Report { title, tasks })
}

/// The report with its tag, or 304 for a client that has this tag already.
pub fn tagged_answer(headers: &HeaderMap, tag: String, report: Report) -> Response {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    match known == Some(&*tag) {
        true => (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response(),
        false => ([(header::ETAG, tag)], Json(report)).into_response(),
    }
}
