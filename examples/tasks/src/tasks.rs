//! Tasks: list, add, show, edit, mark as done, delete.
//!
//! Each edit names the version of the task that the person has seen. If somebody else was faster, it is refused.

use axum::http::StatusCode;
use axum::{Json, Router, routing};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use tenant_router::{Read, Tenant, Write, WriteTx, params};

use crate::Application;
use crate::counts::forget_counts;
use crate::error::{RequestError, Result};
use crate::input::{JsonBody, RowPath, checked_line, checked_text};
use crate::live::{PageChange, announce_change};

/// Maximum length of a title in characters.
const TITLE_MAX: usize = 200;
/// Maximum length of notes in characters.
const NOTES_MAX: usize = 2_000;
/// Maximum number of tasks of one organisation, because the page shows all of them. On PostgreSQL, tasks that are added at
/// the same moment may exceed it.
const TASKS_MAX: i64 = 1_000;

pub(crate) fn routes() -> Router<Application> {
    Router::new()
        .route("/tasks", routing::get(list_tasks).post(add_task))
        .route("/tasks/{task}", routing::get(show_task).put(edit_task).delete(delete_task))
        .route("/tasks/{task}/done", routing::put(mark_done))
}

/// The part of a path that names a task.
#[derive(Debug, Deserialize)]
pub(crate) struct TaskPath {
    pub(crate) task: i64,
}

/// A task in the list.
#[derive(Debug, Serialize, Deserialize)]
struct TaskSummary {
    id: i64,
    title: String,
    done: bool,
    due_on: Option<Date>,
    assignee: Option<String>,
    version: i64,
    comments: i64,
}

/// A whole task: its row.
#[derive(Debug, Serialize, Deserialize)]
struct TaskDetail {
    id: i64,
    title: String,
    notes: String,
    done: bool,
    due_on: Option<Date>,
    assignee: Option<String>,
    version: i64,
    created_at: Timestamp,
}

/// The fields of a task that people write.
#[derive(Debug, Deserialize)]
struct TaskFields {
    title: String,
    #[serde(default)]
    notes: String,
    due_on: Option<Date>,
    assignee: Option<String>,
}

impl TaskFields {
    fn checked(self) -> Result<Self> {
        let title = checked_line("title", &self.title, TITLE_MAX)?;
        let notes = checked_text("notes", &self.notes, NOTES_MAX)?;
        Ok(Self { title, notes, ..self })
    }
}

/// An edit of a task that the person saw at this version.
#[derive(Debug, Deserialize)]
struct TaskEdit {
    #[serde(flatten)]
    fields: TaskFields,
    version: i64,
}

/// The version of a task that the person saw.
#[derive(Debug, Deserialize)]
struct SeenVersion {
    version: i64,
}

/// Whether a task is done, for a person who saw it at this version.
#[derive(Debug, Deserialize)]
struct DoneMark {
    done: bool,
    version: i64,
}

async fn list_tasks(tenant: Tenant<Read>) -> Result<Json<Vec<TaskSummary>>> {
    let sql = "select id, title, done, due_on, assignee, version, \
               (select count(*) from comments where task_id = tasks.id) as comments \
               from tasks order by done, due_on is null, due_on, id";
    Ok(Json(tenant.query_as(sql, ()).fetch_all().await?))
}

async fn show_task(tenant: Tenant<Read>, RowPath(path): RowPath<TaskPath>) -> Result<Json<TaskDetail>> {
    let task = tenant.query_as("select * from tasks where id = $1", [path.task]).fetch_optional().await?;
    task.map(Json).ok_or_else(no_such_task)
}

async fn add_task(
    tenant: Tenant<Write>,
    JsonBody(fields): JsonBody<TaskFields>,
) -> Result<(StatusCode, Json<TaskDetail>)> {
    let TaskFields { title, notes, due_on, assignee } = fields.checked()?;
    let mut tx = tenant.write();
    require_room(&mut tx).await?;
    require_person(&mut tx, assignee.as_deref()).await?;
    let sql = "insert into tasks (title, notes, due_on, assignee) values ($1, $2, $3, $4) returning *";
    let task: TaskDetail = tx.execute_as(sql, params![title, notes, due_on, assignee]).fetch_one().await?;
    tx.commit().await?;
    forget_counts(&tenant);
    announce_change(&tenant, PageChange::Task(task.id)).await;
    Ok((StatusCode::CREATED, Json(task)))
}

async fn edit_task(
    tenant: Tenant<Write>,
    RowPath(path): RowPath<TaskPath>,
    JsonBody(edit): JsonBody<TaskEdit>,
) -> Result<Json<TaskDetail>> {
    let TaskFields { title, notes, due_on, assignee } = edit.fields.checked()?;
    let mut tx = tenant.write();
    require_person(&mut tx, assignee.as_deref()).await?;
    let sql = "update tasks set title = $1, notes = $2, due_on = $3, assignee = $4, version = version + 1 \
               where id = $5 and version = $6 returning *";
    let values = params![title, notes, due_on, assignee, path.task, edit.version];
    let task = tx.execute_as(sql, values).fetch_optional().await?;
    let task = finish_change(tx, path.task, task).await?;
    announce_change(&tenant, PageChange::Task(path.task)).await;
    Ok(Json(task))
}

async fn mark_done(
    tenant: Tenant<Write>,
    RowPath(path): RowPath<TaskPath>,
    JsonBody(mark): JsonBody<DoneMark>,
) -> Result<Json<TaskDetail>> {
    let mut tx = tenant.write();
    let sql = "update tasks set done = $1, version = version + 1 where id = $2 and version = $3 returning *";
    let task = tx.execute_as(sql, params![mark.done, path.task, mark.version]).fetch_optional().await?;
    let task = finish_change(tx, path.task, task).await?;
    forget_counts(&tenant);
    announce_change(&tenant, PageChange::Task(path.task)).await;
    Ok(Json(task))
}

async fn delete_task(
    tenant: Tenant<Write>,
    RowPath(path): RowPath<TaskPath>,
    JsonBody(seen): JsonBody<SeenVersion>,
) -> Result<StatusCode> {
    let mut tx = tenant.write();
    // Its comments go with it.
    let sql = "delete from tasks where id = $1 and version = $2 returning *";
    let task = tx.execute_as(sql, [path.task, seen.version]).fetch_optional().await?;
    finish_change(tx, path.task, task).await?;
    forget_counts(&tenant);
    announce_change(&tenant, PageChange::Task(path.task)).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Commits the change of a task. Without a changed row, the same transaction says whether the task has another version.
async fn finish_change(mut tx: WriteTx<'_, Write>, id: i64, changed: Option<TaskDetail>) -> Result<TaskDetail> {
    if let Some(task) = changed {
        tx.commit().await?;
        return Ok(task);
    }
    require_task(&mut tx, id).await?;
    Err(RequestError::new(
        StatusCode::CONFLICT,
        "task_changed",
        "Somebody else has changed this task",
        "Look at the task as it is now, and change it again.",
    ))
}

/// Refuses a task that the organisation does not have.
pub(crate) async fn require_task(tx: &mut WriteTx<'_, Write>, id: i64) -> Result<()> {
    let found: Option<i64> = tx.query_as("select id from tasks where id = $1", [id]).fetch_optional().await?;
    found.map(drop).ok_or_else(no_such_task)
}

pub(crate) fn no_such_task() -> RequestError {
    RequestError::not_found("This task does not exist, or was deleted")
}

async fn require_room(tx: &mut WriteTx<'_, Write>) -> Result<()> {
    let count: i64 = tx.query_as("select count(*) from tasks", ()).fetch_one().await?;
    if count < TASKS_MAX {
        return Ok(());
    }
    let title = format!("An organisation may have {TASKS_MAX} tasks");
    Err(RequestError::new(StatusCode::CONFLICT, "too_many_tasks", title, "Delete finished tasks."))
}

/// Refuses an assignee who is not a person of this organisation.
async fn require_person(tx: &mut WriteTx<'_, Write>, id: Option<&str>) -> Result<()> {
    let Some(id) = id else { return Ok(()) };
    let found: Option<String> = tx.query_as("select id from people where id = $1", [id]).fetch_optional().await?;
    found.map(drop).ok_or_else(|| RequestError::invalid("The assignee is not a member of this organisation"))
}
