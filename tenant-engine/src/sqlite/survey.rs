//! The verb `survey`: the disk under a server's directory.

use std::path::Path;

use super::SqliteEngine;
use crate::error::{Error, ErrorKind, Result};
use crate::server::{Server, Survey};

/// See [`crate::Engine::survey`].
pub(super) async fn survey(engine: &SqliteEngine, server: &Server) -> Result<Survey> {
    let Server::Sqlite { root } = server else {
        return Err(Error::new(ErrorKind::Internal, "this server is another engine's"));
    };
    let root = root.clone();
    engine.blocking(move || look(&root)).await
}

fn look(root: &Path) -> Result<Survey> {
    let failed = |error: std::io::Error, what: &str| {
        let message = format!("{what} {}: {error}", root.display());
        Error::new(ErrorKind::ServerUnreachable, message).with_source(error)
    };
    let disk = rustix::fs::statvfs(root).map_err(|error| failed(error.into(), "cannot look at the disk under"))?;
    let may_write = rustix::fs::access(root, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
    Ok(Survey {
        version: format!("SQLite {}", rusqlite::version()),
        lacks: may_write.err().map(|_| format!("the right to write to {}", root.display())).into_iter().collect(),
        disk_free_bytes: Some(disk.f_bavail * disk.f_frsize),
        disk_total_bytes: Some(disk.f_blocks * disk.f_frsize),
        ..Survey::default()
    })
}
