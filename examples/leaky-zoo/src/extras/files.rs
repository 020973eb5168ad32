//! Small text files in one directory for all organisations. The key of a file begins with the id of its organisation.

use std::io::ErrorKind;
use std::path::Path;

use axum::http::StatusCode;
use axum::{Json, Router, extract::State, routing};
use serde::{Deserialize, Serialize};
use tasks::error::{RequestError, Result};
use tasks::input::{JsonBody, RowPath, checked_line, checked_text};
use tenant_router::{Read, Tenant, Write};
use tokio::fs;

use crate::zoo::Zoo;

/// Maximum length of a file in characters.
const CONTENT_MAX: usize = 10_000;
/// Maximum length of a file's name: with every character encoded, it is still a name that a disk accepts.
const NAME_MAX: usize = 40;

pub(crate) fn routes() -> Router<Zoo> {
    Router::new().route("/files/{name}", routing::get(show_file).put(put_file))
}

/// The part of a path that names a file.
#[derive(Debug, Deserialize)]
pub struct FilePath {
    /// Any text.
    pub name: String,
}

/// The content of a file.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileContent {
    /// A text.
    pub content: String,
}

async fn put_file(
    State(zoo): State<Zoo>,
    tenant: Tenant<Write>,
    RowPath(path): RowPath<FilePath>,
    JsonBody(file): JsonBody<FileContent>,
) -> Result<Json<FileContent>> {
    let key = tenant.object_key(&["files", &checked_line("name", &path.name, NAME_MAX)?]);
    write_file(&zoo.memory.files.path().join(key.as_str()), &file).await
}

async fn show_file(
    State(zoo): State<Zoo>,
    tenant: Tenant<Read>,
    RowPath(path): RowPath<FilePath>,
) -> Result<Json<FileContent>> {
    let key = tenant.object_key(&["files", &path.name]);
    read_file(&zoo.memory.files.path().join(key.as_str())).await
}

/// Writes a file, and the directories above it.
///
/// # Errors
/// A refusal of the content, or of the disk.
pub async fn write_file(path: &Path, file: &FileContent) -> Result<Json<FileContent>> {
    let content = checked_text("content", &file.content, CONTENT_MAX)?;
    let written = async {
        fs::create_dir_all(path.parent().unwrap_or(path)).await?;
        fs::write(path, &content).await
    };
    written.await.map_err(|_| file_refusal(StatusCode::INSUFFICIENT_STORAGE))?;
    Ok(Json(FileContent { content }))
}

/// Reads a file.
///
/// # Errors
/// `not_found`, or a refusal of the disk.
pub async fn read_file(path: &Path) -> Result<Json<FileContent>> {
    match fs::read_to_string(path).await {
        Ok(content) => Ok(Json(FileContent { content })),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(RequestError::not_found("This file does not exist")),
        Err(_) => Err(file_refusal(StatusCode::INTERNAL_SERVER_ERROR)),
    }
}

fn file_refusal(status: StatusCode) -> RequestError {
    RequestError::new(status, "file_refused", "The disk refuses the file", "Send the request again later.")
}
