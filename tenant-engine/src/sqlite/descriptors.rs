//! Which descriptors the open connections hold, file by file.
//!
//! A connection costs the database file, its write-ahead log and its shared memory. SQLite cannot close a database file
//! while another connection of this process holds a lock on it: closing any descriptor of a file drops all locks of the
//! process. It keeps such a descriptor until the last connection to the file has gone, and uses it again when somebody
//! opens the file in the same mode. So a closed connection still costs one descriptor, and [`Place`] keeps counting it.
//!
//! Called by `budget.rs`, which decides who gets a place.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::OwnedSemaphorePermit;

use super::workers::lock;
use crate::pool::Access;

/// Descriptors of one connection: the file, its write-ahead log and its shared memory.
pub(super) const PER_CONNECTION: usize = 3;

/// The files that have a connection open.
#[derive(Debug, Default)]
pub(super) struct OpenFiles(Mutex<HashMap<PathBuf, OpenFile>>);

#[derive(Debug, Default)]
struct OpenFile {
    connections: usize,
    /// Descriptors that SQLite keeps of closed connections, by the mode they were opened in.
    kept_read: Vec<OwnedSemaphorePermit>,
    kept_write: Vec<OwnedSemaphorePermit>,
}

impl OpenFile {
    fn kept(&mut self, access: Access) -> &mut Vec<OwnedSemaphorePermit> {
        match access {
            Access::Read => &mut self.kept_read,
            Access::Write => &mut self.kept_write,
        }
    }
}

/// The descriptors of one connection, from before it is opened until after it is closed.
#[derive(Debug)]
pub(super) struct Place {
    files: Arc<OpenFiles>,
    path: PathBuf,
    access: Access,
    permits: Vec<OwnedSemaphorePermit>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Some descriptors are still to come.
    Waiting,
    /// A connection may be opened.
    Taken,
}

impl Place {
    /// Begins with the descriptor that SQLite would use again, if it keeps one.
    pub(super) fn begin(files: &Arc<OpenFiles>, path: PathBuf, access: Access) -> Self {
        let kept = lock(&files.0).get_mut(&path).and_then(|file| file.kept(access).pop());
        Self { files: Arc::clone(files), path, access, permits: kept.into_iter().collect(), state: State::Waiting }
    }

    /// How many descriptors are still to come.
    pub(super) fn missing(&self) -> usize {
        PER_CONNECTION.saturating_sub(self.permits.iter().map(OwnedSemaphorePermit::num_permits).sum())
    }

    /// Completes the place: from now on a connection may be opened.
    pub(super) fn complete(&mut self, rest: OwnedSemaphorePermit) {
        self.permits.push(rest);
        self.state = State::Taken;
        lock(&self.files.0).entry(self.path.clone()).or_default().connections += 1;
    }

    /// One descriptor of this place.
    fn one(&mut self) -> Option<OwnedSemaphorePermit> {
        self.permits.iter_mut().find_map(|permit| permit.split(1))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let files = Arc::clone(&self.files);
        let mut files = lock(&files.0);
        let Some(file) = files.get_mut(&self.path) else { return };
        match self.state {
            // Nothing was opened: SQLite still keeps what it kept.
            State::Waiting => file.kept(self.access).append(&mut self.permits),
            State::Taken if file.connections > 1 => {
                file.connections -= 1;
                let one = self.one();
                file.kept(self.access).extend(one);
            }
            // The last connection has gone, and with it every descriptor of the file.
            State::Taken => drop(files.remove(&self.path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::{Connection, OpenFlags};
    use tokio::sync::Semaphore;

    use super::*;

    fn take(files: &Arc<OpenFiles>, free: &Arc<Semaphore>, path: &str, access: Access) -> Place {
        let mut place = Place::begin(files, path.into(), access);
        let rest = Arc::clone(free).try_acquire_many_owned(u32::try_from(place.missing()).unwrap()).unwrap();
        place.complete(rest);
        place
    }

    #[test]
    fn a_closed_connection_costs_one_descriptor_until_the_last_one_goes() {
        let (files, free) = (Arc::new(OpenFiles::default()), Arc::new(Semaphore::new(20)));
        let reader = take(&files, &free, "a", Access::Read);
        drop(take(&files, &free, "a", Access::Write));
        assert_eq!(free.available_permits(), 16, "one of the writer's is kept");
        drop(take(&files, &free, "a", Access::Write));
        assert_eq!(free.available_permits(), 16, "the kept one is used again");
        drop(take(&files, &free, "a", Access::Read));
        assert_eq!(free.available_permits(), 15, "another mode keeps its own");
        drop(reader);
        assert_eq!(free.available_permits(), 20);
        assert!(lock(&files.0).is_empty());
    }

    #[test]
    fn a_place_that_never_came_gives_back_what_it_began_with() {
        let (files, free) = (Arc::new(OpenFiles::default()), Arc::new(Semaphore::new(20)));
        let reader = take(&files, &free, "a", Access::Read);
        drop(take(&files, &free, "a", Access::Write));
        drop(Place::begin(&files, "a".into(), Access::Write));
        assert_eq!(free.available_permits(), 16);
        drop(reader);
        assert_eq!(free.available_permits(), 20);
    }

    /// The descriptors of this process that lead to files in `directory`.
    fn held(directory: &Path) -> usize {
        let links =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| entry.unwrap().path().read_link().ok());
        links.filter(|to| to.starts_with(directory)).count()
    }

    /// What is counted is what SQLite does: this fails when a new SQLite behaves in another way.
    #[test]
    fn sqlite_never_holds_more_descriptors_than_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.db");
        Connection::open(&path).unwrap().execute_batch("pragma journal_mode=wal; create table t(x)").unwrap();
        let (files, free) = (Arc::new(OpenFiles::default()), Arc::new(Semaphore::new(100)));
        let open = |access| {
            let place = take(&files, &free, &path.to_string_lossy(), access);
            let flags = match access {
                Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
                Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
            };
            let db = Connection::open_with_flags(&path, flags).unwrap();
            db.query_row("select count(*) from t", [], |row| row.get::<_, i64>(0)).unwrap();
            (db, place)
        };
        let counted = || 100 - free.available_permits();
        let mut connections = Vec::new();
        for turn in 0..40 {
            match turn % 5 {
                0 | 1 => connections.push(open(Access::Read)),
                2 => connections.push(open(Access::Write)),
                _ if connections.len() > 1 => drop(connections.remove(turn % 2)),
                _ => {}
            }
            assert!(held(directory.path()) <= counted(), "{} held, {} counted", held(directory.path()), counted());
        }
        connections.clear();
        assert_eq!((held(directory.path()), counted()), (0, 0));
    }
}
