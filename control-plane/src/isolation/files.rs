//! Modes and owners of files: no other user of the machine may read a tenant's data or a key.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use catalog::ServerRecord;
use tenant_engine::EngineKind;

use super::line::{AuditLine, few_names};
use crate::app::App;

const AREA: &str = "files";
/// The bits of a mode that give rights to users other than the owner.
const OTHERS: u32 = 0o077;

/// What a walk through a directory found.
#[derive(Default)]
struct FileWalk {
    seen: usize,
    /// Files and directories that other users may use.
    open: Vec<String>,
    /// Files and directories of another owner.
    foreign: Vec<String>,
    /// Files and directories that could not be looked at.
    unseen: Vec<String>,
}

/// One line for the data directory, and one for each directory of SQLite databases.
pub(super) fn file_lines(app: &App, servers: &[ServerRecord]) -> Vec<AuditLine> {
    let data_dir = &app.config.data_dir;
    let bases = servers.iter().filter(|server| server.engine == EngineKind::Sqlite);
    let bases = bases.map(|server| (format!("server {}", server.name), PathBuf::from(&server.base)));
    let local_store = app.config.backup_url.is_none().then(|| ("backups".to_owned(), data_dir.join("backups")));
    let own = [("data directory".to_owned(), data_dir.clone())].into_iter();
    // The data directory may hold the others. Each is walked once, for its own line.
    let all: Vec<(String, PathBuf)> = own.chain(bases).chain(local_store).collect();
    let owner = rustix::process::geteuid().as_raw();
    all.iter()
        .filter(|(_, path)| path.exists() || path == data_dir)
        .map(|(name, path)| {
            let inner: Vec<&Path> = all
                .iter()
                .map(|(_, other)| &**other)
                .filter(|other| *other != path && other.starts_with(path))
                .collect();
            walk_line(name, &walk(path, owner, &inner))
        })
        .collect()
}

/// Looks at a directory and everything below, without the directories that have lines of their own.
fn walk(root: &Path, owner: u32, leave_out: &[&Path]) -> FileWalk {
    let mut found = FileWalk::default();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let shown = path.display().to_string();
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            // A file may disappear meanwhile, for instance a log that was merged.
            if path.exists() || path == root {
                found.unseen.push(shown);
            }
            continue;
        };
        found.seen += 1;
        if metadata.permissions().mode() & OTHERS != 0 && !metadata.is_symlink() {
            found.open.push(format!("{shown} ({:o})", metadata.permissions().mode() & 0o777));
        }
        if metadata.uid() != owner {
            found.foreign.push(format!("{shown} (user {})", metadata.uid()));
        }
        if metadata.is_dir() {
            match std::fs::read_dir(&path) {
                Ok(entries) => waiting.extend(entries.filter_map(|entry| Some(entry.ok()?.path()))),
                Err(_) => found.unseen.push(shown),
            }
            waiting.retain(|path| !leave_out.contains(&&**path));
        }
    }
    found
}

/// PURE: the line of a walk.
fn walk_line(name: &str, found: &FileWalk) -> AuditLine {
    let seen = found.seen;
    match (found.open.is_empty(), found.foreign.is_empty(), found.unseen.is_empty()) {
        (true, true, true) => {
            let evidence =
                format!("{seen} files and directories: all belong to this user, and no other user may use them");
            AuditLine::pass(AREA, name, evidence)
        }
        (true, true, false) => AuditLine::not_looked(
            AREA,
            name,
            format!("could not look at {}", few_names(&found.unseen)),
            "run the command as the user of the service",
        ),
        _ => {
            let open = (!found.open.is_empty()).then(|| format!("other users may use {}", few_names(&found.open)));
            let foreign =
                (!found.foreign.is_empty()).then(|| format!("another user owns {}", few_names(&found.foreign)));
            let evidence: Vec<String> = open.into_iter().chain(foreign).collect();
            let next = "chmod 600 the files, chmod 700 the directories, chown them; then find out who changed them";
            AuditLine::fail(AREA, name, format!("of {seen}: {}", evidence.join("; ")), next)
        }
    }
}
