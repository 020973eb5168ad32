//! Outputs of the application that are not answers: logs, metrics, files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{KitError, Result};

/// Maximum size of a file that is searched. A larger one is an error, because it could not be searched.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Maximum number of files below a directory.
const FILES_MAX: usize = 100_000;

/// An output that must not contain data of tenants.
#[derive(Clone)]
pub struct WatchedOutput {
    /// The name in reports, for instance `log`.
    pub name: String,
    source: OutputSource,
}

#[derive(Clone)]
enum OutputSource {
    /// A file, or every file below a directory.
    Path(PathBuf),
    /// A text in this process, such as a captured log.
    Text(Arc<dyn Fn() -> Vec<u8> + Send + Sync>),
}

impl std::fmt::Debug for WatchedOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchedOutput").field("name", &self.name).finish_non_exhaustive()
    }
}

impl WatchedOutput {
    /// A file, for instance of the log, or all files below a directory of temporary files.
    #[must_use]
    pub fn at_path(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { name: path.display().to_string(), source: OutputSource::Path(path) }
    }

    /// A text of this process. `read` returns all of it.
    #[must_use]
    pub fn of_text(name: &str, read: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self { name: name.to_owned(), source: OutputSource::Text(Arc::new(read)) }
    }

    /// The parts of the output with their names.
    pub(crate) fn read(&self) -> Result<Vec<(String, Vec<u8>)>> {
        match &self.source {
            OutputSource::Text(read) => Ok(vec![(self.name.clone(), read())]),
            OutputSource::Path(path) => {
                let files = files_below(path)?;
                files.into_iter().map(|file| Ok((file.display().to_string(), read_file(&file)?))).collect()
            }
        }
    }
}

fn unreadable(path: &Path, cause: &dyn std::fmt::Display) -> KitError {
    KitError::new("output_unreadable", format!("cannot search {}: {cause}", path.display()))
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(path, &format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    std::fs::read(path).map_err(|error| unreadable(path, &error))
}

fn files_below(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut directories, mut files) = (vec![path.to_owned()], Vec::new());
    while let Some(directory) = directories.pop() {
        let entries = std::fs::read_dir(&directory).map_err(|error| unreadable(&directory, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(&directory, &error))?;
            let kind = entry.file_type().map_err(|error| unreadable(&entry.path(), &error))?;
            match (kind.is_dir(), kind.is_file()) {
                (true, _) => directories.push(entry.path()),
                (_, true) => files.push(entry.path()),
                _ => {}
            }
        }
        if files.len() > FILES_MAX {
            return Err(unreadable(path, &format!("it has more than {FILES_MAX} files")));
        }
    }
    Ok(files)
}
