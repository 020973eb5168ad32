//! Implements [`crate::Engine::survey_server`]: free and total space of the disk under a server's directory.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::server::{DatabaseServer, ServerSurvey};
use crate::sqlite::SqliteEngine;

/// See [`crate::Engine::survey_server`].
pub(in crate::sqlite) async fn survey_server(engine: &SqliteEngine, server: &DatabaseServer) -> Result<ServerSurvey> {
    let DatabaseServer::Sqlite { root } = server else {
        return Err(Error::new(ErrorKind::Internal, "this server belongs to another engine"));
    };
    let root = root.clone();
    engine.run_blocking(move || survey_directory(&root)).await
}

fn survey_directory(root: &Path) -> Result<ServerSurvey> {
    let failed = |error: std::io::Error, what: &str| {
        let message = format!("{what} {}: {error}", root.display());
        Error::new(ErrorKind::ServerUnreachable, message).with_source(error)
    };
    let disk = rustix::fs::statvfs(root).map_err(|error| failed(error.into(), "cannot query the disk under"))?;
    let may_write = rustix::fs::access(root, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
    Ok(ServerSurvey {
        version: format!("SQLite {}", rusqlite::version()),
        lacks: may_write.err().map(|_| format!("the right to write to {}", root.display())).into_iter().collect(),
        disk_free_bytes: Some(disk.f_bavail * disk.f_frsize),
        disk_total_bytes: Some(disk.f_blocks * disk.f_frsize),
        ..ServerSurvey::default()
    })
}
