//! Counts the descriptors that the open connections hold, file by file.
//!
//! A connection costs the database file, its write-ahead log and its shared memory. Closing any descriptor of a file
//! drops all locks of the process on it. So SQLite cannot close a database file while another connection of this
//! process holds a lock on it. SQLite keeps such a descriptor until the last connection to the file is closed. It uses
//! the descriptor again when a connection opens the file in the same mode. So a closed connection may still cost one
//! descriptor, and [`ConnectionPlace`] keeps counting it.
//!
//! Called by `requests/budget.rs`, which decides which caller gets a place.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::OwnedSemaphorePermit;

use crate::sqlite::locks::lock_ignoring_poison;
use crate::statement::AccessMode;

/// Descriptors of one connection: the file, its write-ahead log and its shared memory.
pub(in crate::sqlite) const PER_CONNECTION: usize = 3;

/// The files that have open connections.
#[derive(Debug, Default)]
pub(in crate::sqlite) struct OpenFiles(Mutex<HashMap<PathBuf, OpenFile>>);

#[derive(Debug, Default)]
struct OpenFile {
    connections: usize,
    /// Descriptors of closed connections that SQLite keeps, by the mode in which they were opened.
    kept_read: Vec<OwnedSemaphorePermit>,
    kept_write: Vec<OwnedSemaphorePermit>,
}

impl OpenFile {
    fn kept_descriptors(&mut self, access: AccessMode) -> &mut Vec<OwnedSemaphorePermit> {
        match access {
            AccessMode::Read => &mut self.kept_read,
            AccessMode::Write => &mut self.kept_write,
        }
    }
}

/// The descriptors of one connection, from before it is opened until after it is closed.
#[derive(Debug)]
pub(in crate::sqlite) struct ConnectionPlace {
    files: Arc<OpenFiles>,
    path: PathBuf,
    access: AccessMode,
    permits: Vec<OwnedSemaphorePermit>,
    state: ConnectionPlaceState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionPlaceState {
    /// Some descriptors are still missing.
    Waiting,
    /// A connection may be opened.
    Taken,
}

impl ConnectionPlace {
    /// Starts with the descriptor that SQLite would reuse, if it keeps one.
    pub(in crate::sqlite) fn begin_place(files: &Arc<OpenFiles>, path: PathBuf, access: AccessMode) -> Self {
        let kept = lock_ignoring_poison(&files.0).get_mut(&path).and_then(|file| file.kept_descriptors(access).pop());
        Self {
            files: Arc::clone(files),
            path,
            access,
            permits: kept.into_iter().collect(),
            state: ConnectionPlaceState::Waiting,
        }
    }

    /// Number of descriptors that are still missing.
    pub(in crate::sqlite) fn missing_count(&self) -> usize {
        PER_CONNECTION.saturating_sub(self.permits.iter().map(OwnedSemaphorePermit::num_permits).sum())
    }

    /// Completes the place: from now on a connection may be opened.
    pub(in crate::sqlite) fn complete_place(&mut self, rest: OwnedSemaphorePermit) {
        self.permits.push(rest);
        self.state = ConnectionPlaceState::Taken;
        lock_ignoring_poison(&self.files.0).entry(self.path.clone()).or_default().connections += 1;
    }

    /// Takes one descriptor out of this place.
    fn split_one(&mut self) -> Option<OwnedSemaphorePermit> {
        self.permits.iter_mut().find_map(|permit| permit.split(1))
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let files = Arc::clone(&self.files);
        let mut files = lock_ignoring_poison(&files.0);
        let Some(file) = files.get_mut(&self.path) else { return };
        match self.state {
            // No connection was opened, so SQLite keeps the descriptors that it kept before.
            ConnectionPlaceState::Waiting => file.kept_descriptors(self.access).append(&mut self.permits),
            ConnectionPlaceState::Taken if file.connections > 1 => {
                file.connections -= 1;
                let one = self.split_one();
                file.kept_descriptors(self.access).extend(one);
            }
            // The last connection is closed, and with it every descriptor of the file.
            ConnectionPlaceState::Taken => drop(files.remove(&self.path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::{Connection, OpenFlags};
    use tokio::sync::Semaphore;

    use super::*;

    fn take(files: &Arc<OpenFiles>, free: &Arc<Semaphore>, path: &str, access: AccessMode) -> ConnectionPlace {
        let mut place = ConnectionPlace::begin_place(files, path.into(), access);
        let rest = Arc::clone(free).try_acquire_many_owned(u32::try_from(place.missing_count()).unwrap()).unwrap();
        place.complete_place(rest);
        place
    }

    #[test]
    fn a_closed_connection_costs_one_descriptor_until_the_last_one_goes() {
        let (files, free) = (Arc::new(OpenFiles::default()), Arc::new(Semaphore::new(20)));
        let reader = take(&files, &free, "a", AccessMode::Read);
        drop(take(&files, &free, "a", AccessMode::Write));
        assert_eq!(free.available_permits(), 16, "one of the writer's is kept");
        drop(take(&files, &free, "a", AccessMode::Write));
        assert_eq!(free.available_permits(), 16, "the kept one is used again");
        drop(take(&files, &free, "a", AccessMode::Read));
        assert_eq!(free.available_permits(), 15, "another mode keeps its own");
        drop(reader);
        assert_eq!(free.available_permits(), 20);
        assert!(lock_ignoring_poison(&files.0).is_empty());
    }

    #[test]
    fn a_place_that_never_came_gives_back_what_it_began_with() {
        let (files, free) = (Arc::new(OpenFiles::default()), Arc::new(Semaphore::new(20)));
        let reader = take(&files, &free, "a", AccessMode::Read);
        drop(take(&files, &free, "a", AccessMode::Write));
        drop(ConnectionPlace::begin_place(&files, "a".into(), AccessMode::Write));
        assert_eq!(free.available_permits(), 16);
        drop(reader);
        assert_eq!(free.available_permits(), 20);
    }

    /// Number of this process's descriptors for files in `directory`.
    fn held(directory: &Path) -> usize {
        let links =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| entry.unwrap().path().read_link().ok());
        links.filter(|to| to.starts_with(directory)).count()
    }

    /// Compares the count with SQLite's real behaviour, so it fails if a new SQLite behaves differently.
    #[test]
    fn sqlite_never_holds_more_descriptors_than_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.db");
        Connection::open(&path).unwrap().execute_batch("pragma journal_mode=wal; create table t(x)").unwrap();
        let (files, free) = (Arc::new(OpenFiles::default()), Arc::new(Semaphore::new(100)));
        let open = |access| {
            let place = take(&files, &free, &path.to_string_lossy(), access);
            let flags = match access {
                AccessMode::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
                AccessMode::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
            };
            let db = Connection::open_with_flags(&path, flags).unwrap();
            db.query_row("select count(*) from t", [], |row| row.get::<_, i64>(0)).unwrap();
            (db, place)
        };
        let counted = || 100 - free.available_permits();
        let mut connections = Vec::new();
        for turn in 0..40 {
            match turn % 5 {
                0 | 1 => connections.push(open(AccessMode::Read)),
                2 => connections.push(open(AccessMode::Write)),
                _ if connections.len() > 1 => drop(connections.remove(turn % 2)),
                _ => {}
            }
            assert!(held(directory.path()) <= counted(), "{} held, {} counted", held(directory.path()), counted());
        }
        connections.clear();
        assert_eq!((held(directory.path()), counted()), (0, 0));
    }
}
