//! Imports: a task that is added once for each idempotency key of an organisation.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Json, Router, routing};
use serde::Deserialize;
use serde_json::{Value, json};
use tasks::counts::forget_counts;
use tasks::error::Result;
use tasks::input::{JsonBody, checked_line};
use tasks::live::{PageChange, announce_change};
use tenant_router::{Tenant, Write};

use crate::zoo::Zoo;

/// Maximum length of a title in characters, as in `tasks`.
pub const TITLE_MAX: usize = 200;
/// The name of the header.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

pub(crate) fn routes() -> Router<Zoo> {
    Router::new().route("/imports", routing::post(import_task))
}

/// A task to add.
#[derive(Debug, Deserialize)]
pub struct NewTitle {
    /// The title of the task.
    pub title: String,
}

async fn import_task(
    State(zoo): State<Zoo>,
    tenant: Tenant<Write>,
    headers: HeaderMap,
    JsonBody(new): JsonBody<NewTitle>,
) -> Result<(StatusCode, Json<Value>)> {
    let Some(key) = idempotency_key(&headers) else {
        return Ok((StatusCode::CREATED, Json(add_title(&tenant, &new.title).await?)));
    };
    // Held until the answer is known: a second request with the key waits for it.
    let mut imports = zoo.memory.imports.lock().await;
    if let Some(answer) = imports.get(&(tenant.id(), key.clone())) {
        return Ok((StatusCode::CREATED, Json(answer.clone())));
    }
    let answer = add_title(&tenant, &new.title).await?;
    imports.insert((tenant.id(), key), answer.clone());
    Ok((StatusCode::CREATED, Json(answer)))
}

/// The key that the client has chosen.
pub fn idempotency_key(headers: &HeaderMap) -> Option<String> {
    Some(headers.get(IDEMPOTENCY_KEY)?.to_str().ok()?.to_owned())
}

/// Adds a task with this title, and returns it.
///
/// # Errors
/// A refusal of the title; those of the router.
pub async fn add_title(tenant: &Tenant<Write>, title: &str) -> Result<Value> {
    let title = checked_line("title", title, TITLE_MAX)?;
    let sql = "insert into tasks (title, notes) values ($1, '') returning id";
    let id: i64 = tenant.execute_as(sql, [&*title]).fetch_one().await?;
    forget_counts(tenant);
    announce_change(tenant, PageChange::Task(id)).await;
    Ok(json!({ "id": id, "title": title }))
}
