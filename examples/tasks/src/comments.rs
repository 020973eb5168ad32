//! Comments on a task: list, add.

use axum::http::StatusCode;
use axum::{Json, Router, routing};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tenant_router::{Read, Tenant, Write, WriteTx, params};

use crate::Application;
use crate::error::{RequestError, Result};
use crate::input::{JsonBody, RowPath, checked_text};
use crate::live::{PageChange, announce_change};
use crate::tasks::{TaskPath, no_such_task, require_task};

/// Maximum length of a comment in characters.
const TEXT_MAX: usize = 2_000;
/// Maximum number of comments on one task, because the page shows all of them. On PostgreSQL, comments that are added at the
/// same moment may exceed it.
const COMMENTS_MAX: i64 = 200;

pub(crate) fn routes() -> Router<Application> {
    Router::new().route("/tasks/{task}/comments", routing::get(list_comments).post(add_comment))
}

/// A comment. The author is null after the person was removed.
#[derive(Debug, Serialize, Deserialize)]
struct CommentView {
    id: i64,
    author: Option<String>,
    text: String,
    created_at: Timestamp,
}

#[derive(Debug, Deserialize)]
struct NewComment {
    text: String,
}

async fn list_comments(tenant: Tenant<Read>, RowPath(path): RowPath<TaskPath>) -> Result<Json<Vec<CommentView>>> {
    let found: Option<i64> =
        tenant.query_as("select id from tasks where id = $1", [path.task]).fetch_optional().await?;
    found.ok_or_else(no_such_task)?;
    let sql = "select id, author, text, created_at from comments where task_id = $1 order by id";
    Ok(Json(tenant.query_as(sql, [path.task]).fetch_all().await?))
}

async fn add_comment(
    tenant: Tenant<Write>,
    RowPath(path): RowPath<TaskPath>,
    JsonBody(new): JsonBody<NewComment>,
) -> Result<(StatusCode, Json<CommentView>)> {
    let text = checked_text("comment", &new.text, TEXT_MAX)?;
    if text.is_empty() {
        return Err(RequestError::invalid("The comment is empty"));
    }
    let mut tx = tenant.write();
    require_task(&mut tx, path.task).await?;
    require_room(&mut tx, path.task).await?;
    // A caller without a name here, such as a program with a token, is no author.
    let sql = "insert into comments (task_id, author, text) values ($1, (select id from people where id = $2), $3) \
               returning id, author, text, created_at";
    let comment: CommentView =
        tx.execute_as(sql, params![path.task, tenant.principal().name(), text]).fetch_one().await?;
    tx.commit().await?;
    announce_change(&tenant, PageChange::Task(path.task)).await;
    Ok((StatusCode::CREATED, Json(comment)))
}

async fn require_room(tx: &mut WriteTx<'_, Write>, task: i64) -> Result<()> {
    let sql = "select count(*) from comments where task_id = $1";
    let count: i64 = tx.query_as(sql, [task]).fetch_one().await?;
    if count < COMMENTS_MAX {
        return Ok(());
    }
    let title = format!("A task may have {COMMENTS_MAX} comments");
    Err(RequestError::new(StatusCode::CONFLICT, "too_many_comments", title, "Continue in a new task."))
}
