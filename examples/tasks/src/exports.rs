//! Exports: the tasks as CSV. An export is a row in the organisation's own database, so backups and moves include it.
//!
//! A signed link opens one export without a sign-in, for ten minutes. It is bound to the organisation and to the generation
//! of its database.

use std::time::Duration;

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use tenant_router::{LinkPurpose, Read, RequestView, Tenant, Write, params};

use crate::Application;
use crate::error::{RequestError, Result};
use crate::input::RowPath;

/// Links to an export, with its id.
const DOWNLOAD: LinkPurpose<i64> = LinkPurpose::new("export", Duration::from_secs(600));
/// Maximum size of an export. The router's default limit for one value is a little more, 1,000,000 bytes.
const CONTENT_BYTES_MAX: usize = 900_000;
/// The first line of the file.
const HEADINGS: [&str; 7] = ["id", "title", "done", "due_on", "assignee", "notes", "created_at"];
const IN_MEMORY: &str = "the file is written to memory";
/// How many exports are kept; older ones are deleted.
const EXPORTS_MAX: i64 = 20;

pub(crate) fn routes() -> Router<Application> {
    Router::new()
        .route("/exports", routing::get(list_exports).post(create_export))
        .route("/exports/{export}", routing::get(download_export))
        .route("/exports/{export}/link", routing::post(make_link))
}

/// The route of links, which needs no session.
pub(crate) fn link_routes() -> Router<Application> {
    Router::new().route("/orgs/{tenant}/download/{link}", routing::get(follow_link))
}

#[derive(Debug, Deserialize)]
struct ExportPath {
    export: i64,
}

/// An export in the list.
#[derive(Debug, Serialize, Deserialize)]
struct ExportSummary {
    id: i64,
    task_count: i64,
    created_at: Timestamp,
}

/// A signed link: the path of an address.
#[derive(Debug, Serialize)]
struct ExportLink {
    path: String,
}

#[derive(Debug, Deserialize)]
struct LinkPath {
    link: String,
}

/// One line of the file.
#[derive(Debug, Deserialize)]
struct ExportLine {
    id: i64,
    title: String,
    done: bool,
    due_on: Option<Date>,
    assignee: Option<String>,
    notes: String,
    created_at: Timestamp,
}

async fn list_exports(tenant: Tenant<Read>) -> Result<Json<Vec<ExportSummary>>> {
    let sql = "select id, task_count, created_at from exports order by id desc";
    Ok(Json(tenant.query_as(sql, ()).fetch_all().await?))
}

/// Reads the tasks and writes the export in one transaction.
async fn create_export(tenant: Tenant<Write>) -> Result<(StatusCode, Json<ExportSummary>)> {
    let mut tx = tenant.write();
    let sql = "select tasks.id, title, done, due_on, people.name as assignee, notes, tasks.created_at \
               from tasks left join people on people.id = tasks.assignee order by tasks.id";
    let lines: Vec<ExportLine> = tx.query_as(sql, ()).fetch_all().await?;
    let content = csv_content(&lines)?;
    let sql = "insert into exports (task_count, content) values ($1, $2) returning id, task_count, created_at";
    let export = tx.execute_as(sql, params![lines.len(), content]).fetch_one().await?;
    let old = "delete from exports where id not in (select id from exports order by id desc limit $1)";
    tx.execute(old, [EXPORTS_MAX]).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(export)))
}

async fn download_export(tenant: Tenant<Read>, RowPath(path): RowPath<ExportPath>) -> Result<Response> {
    export_file(&tenant, path.export).await
}

async fn make_link(tenant: Tenant<Read>, RowPath(path): RowPath<ExportPath>) -> Result<(StatusCode, Json<ExportLink>)> {
    let sql = "select id from exports where id = $1";
    let found: Option<i64> = tenant.query_as(sql, [path.export]).fetch_optional().await?;
    let export = found.ok_or_else(no_such_export)?;
    let link = tenant.sign_link(&DOWNLOAD, &export)?;
    Ok((StatusCode::CREATED, Json(ExportLink { path: format!("/orgs/{}/download/{link}", tenant.name()) })))
}

/// The holder of a link gets the file of the organisation that the path names.
async fn follow_link(
    State(application): State<Application>,
    OriginalUri(uri): OriginalUri,
    RowPath(path): RowPath<LinkPath>,
) -> Result<Response> {
    let request = RequestView { path: uri.path(), ..RequestView::default() };
    let (tenant, export) = application.router.open_link(&request, &DOWNLOAD, &path.link).await?;
    export_file(&tenant, export).await
}

async fn export_file(tenant: &Tenant<Read>, export: i64) -> Result<Response> {
    let sql = "select content from exports where id = $1";
    let content: Option<String> = tenant.query_as(sql, [export]).fetch_optional().await?;
    let content = content.ok_or_else(no_such_export)?;
    // The name of a tenant consists of letters, digits and hyphens.
    let disposition = format!("attachment; filename=\"{}-tasks-{}.csv\"", tenant.name(), export);
    let disposition =
        HeaderValue::from_str(&disposition).unwrap_or(HeaderValue::from_static("attachment; filename=\"tasks.csv\""));
    let content_type = HeaderValue::from_static("text/csv; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, content_type), (header::CONTENT_DISPOSITION, disposition)], content).into_response())
}

fn no_such_export() -> RequestError {
    RequestError::not_found("This export does not exist any more")
}

fn csv_content(lines: &[ExportLine]) -> Result<String> {
    let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    csv.write_record(HEADINGS).expect(IN_MEMORY);
    for line in lines {
        csv.serialize(line.without_formulas()).expect(IN_MEMORY);
    }
    let content = String::from_utf8(csv.into_inner().expect(IN_MEMORY)).expect("text was written");
    match content.len() <= CONTENT_BYTES_MAX {
        true => Ok(content),
        false => Err(RequestError::new(
            StatusCode::CONFLICT,
            "export_too_large",
            format!("An export may have {CONTENT_BYTES_MAX} bytes"),
            "Shorten notes, or delete finished tasks.",
        )),
    }
}

impl ExportLine {
    /// The line with texts that no spreadsheet runs as a formula.
    fn without_formulas(&self) -> (i64, String, bool, Option<Date>, Option<String>, String, Timestamp) {
        let Self { id, title, done, due_on, assignee, notes, created_at } = self;
        let assignee = assignee.as_deref().map(plain_cell);
        (*id, plain_cell(title), *done, *due_on, assignee, plain_cell(notes), *created_at)
    }
}

/// The text as a cell. An apostrophe before `=`, `+`, `-` or `@` makes a spreadsheet show it and not run it.
fn plain_cell(text: &str) -> String {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(title: &str, notes: &str) -> ExportLine {
        ExportLine {
            id: 1,
            title: title.to_owned(),
            done: true,
            due_on: Some(Date::constant(2026, 12, 24)),
            assignee: None,
            notes: notes.to_owned(),
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_text_is_no_formula_and_stays_one_cell() {
        let content = csv_content(&[line("=HYPERLINK(\"http://evil.example\")", "a, \"b\"\nc")]).unwrap();
        let expected = "id,title,done,due_on,assignee,notes,created_at\n\
                        1,\"'=HYPERLINK(\"\"http://evil.example\"\")\",true,2026-12-24,,\"a, \"\"b\"\"\nc\",1970-01-01T00:00:00Z\n";
        assert_eq!(content, expected);
        assert_eq!(["+1", "-1", "@a", "a=b"].map(plain_cell), ["'+1", "'-1", "'@a", "a=b"]);
    }

    #[test]
    fn an_export_has_a_limit() {
        let long = "x".repeat(2_000);
        let lines: Vec<_> = (0..500).map(|_| line("long", &long)).collect();
        assert!(csv_content(&lines[..400]).is_ok());
        assert!(csv_content(&lines).is_err());
    }
}
