//! Group durability: one `syncfs` makes the work of many callers durable.
//!
//! A verb that changes a file on a worker thread asks for its filesystem's [`Group`] *before* it writes, and awaits
//! [`Group::flush`] after its last write and before it returns. Callers that arrive while a flush runs wait for the
//! next one; one flush answers all that were waiting when it began. With 64 callers that is one flush for 64 databases
//! instead of three to five fsyncs for each.
//!
//! Why this equals an fsync per file. `syncfs` returns after every dirty page, inode and directory entry of the
//! filesystem that existed when it was called is on stable storage, so whatever a caller did before `flush` is
//! durable after it: data, rename and directory alike. What remains is that a power cut *before* the flush must leave
//! nothing half-made that a later reader trusts:
//!
//! - A new database is written under a `.part` name and renamed. Nobody is told of it before the flush, its path is
//!   never used again, and a repeated call checks every page of what it finds before it believes it.
//! - A change of a live database goes to its write-ahead log, whose frames carry chained checksums: recovery accepts
//!   the longest intact prefix and cuts at a commit, whatever order the disk wrote in. The one step where order
//!   matters is a log that starts over on top of old frames; there SQLite syncs the log's header first, and
//!   `writer.rs` leaves that sync on unless the log is empty. An empty log has no old frames; blocks that once held
//!   another log do not pass for this one, because every log has its own random salt. The main file changes only in a
//!   checkpoint, and whoever makes one, we for a log grown too long or a serving connection, syncs the log first.
//!
//! Since Linux 5.8 `syncfs` reports write errors of any file on the filesystem since the descriptor was opened or last
//! asked; that is why the group's descriptor is opened before the writes and kept. An error fails every waiting
//! caller: none is told that its work is durable.
//!
//! The price: unrelated dirty data on the same filesystem is flushed too.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::workers::lock;
use crate::error::{Error, ErrorKind, Result};

/// The filesystems in use, by device number. Clones are one set.
#[derive(Debug, Clone, Default)]
pub(super) struct Groups(Arc<Mutex<HashMap<u64, Arc<Group>>>>);

impl Groups {
    /// The group of the filesystem that holds `directory`. Blocks; call it before the first write.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] when there is no such directory, [`ErrorKind::Io`] when it cannot be opened.
    pub(super) fn of(&self, directory: &Path) -> Result<Arc<Group>> {
        let unusable = |error: std::io::Error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::Missing,
                _ => ErrorKind::Io,
            };
            Error::new(kind, format!("the server's directory cannot be opened: {error}")).with_source(error)
        };
        let device = std::fs::metadata(directory).map_err(unusable)?.dev();
        if let Some(group) = lock(&self.0).get(&device) {
            return Ok(Arc::clone(group));
        }
        let group = Arc::new(Group { root: File::open(directory).map_err(unusable)?, state: Mutex::default() });
        Ok(Arc::clone(lock(&self.0).entry(device).or_insert(group)))
    }
}

type Answer = oneshot::Sender<Result<(), Arc<std::io::Error>>>;

/// The callers of one filesystem.
#[derive(Debug)]
pub(super) struct Group {
    root: File,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// True while a thread flushes, and until it has found nobody waiting.
    flushing: bool,
    /// Whoever arrived after the running flush began: bounded by the callers of the verbs.
    waiting: Vec<Answer>,
}

impl Group {
    /// Returns once everything written to the filesystem before the call is durable. A dropped future changes nothing
    /// for the others.
    ///
    /// # Errors
    /// [`ErrorKind::DiskFull`] or [`ErrorKind::Io`] when the filesystem could not write something.
    pub(super) async fn flush(self: &Arc<Self>) -> Result<()> {
        let answer = self.join(|group| Ok(rustix::fs::syncfs(&group.root)?));
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(Error::new(ErrorKind::Internal, "the flush ended without an answer")),
        }
    }

    /// Enters the queue; the first to find nobody flushing starts a thread that serves until the queue is empty.
    fn join(
        self: &Arc<Self>,
        flush: impl Fn(&Self) -> std::io::Result<()> + Send + 'static,
    ) -> oneshot::Receiver<Result<(), Arc<std::io::Error>>> {
        let (sender, answer) = oneshot::channel();
        let mut state = lock(&self.state);
        state.waiting.push(sender);
        if !std::mem::replace(&mut state.flushing, true) {
            let serving = Serving(Some(Arc::clone(self)));
            tokio::task::spawn_blocking(move || serving.run(flush));
        }
        answer
    }

    /// Everybody waiting now, or `None` after leaving the flushing to whoever comes next.
    fn next_batch(&self) -> Option<Vec<Answer>> {
        let mut state = lock(&self.state);
        state.flushing = !state.waiting.is_empty();
        state.flushing.then(|| std::mem::take(&mut state.waiting))
    }
}

/// The right to flush, until nobody waits. Should its thread never start, or die, nobody is left waiting for it.
struct Serving(Option<Arc<Group>>);

impl Serving {
    fn run(mut self, flush: impl Fn(&Group) -> std::io::Result<()>) {
        let Some(group) = self.0.clone() else { return };
        while let Some(batch) = group.next_batch() {
            let outcome = flush(&group).map_err(Arc::new);
            for answer in batch {
                let _ = answer.send(outcome.clone());
            }
        }
        self.0 = None;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(group) = &self.0 {
            let mut state = lock(&group.state);
            state.flushing = false;
            state.waiting.clear();
        }
    }
}

fn failed(error: &Arc<std::io::Error>) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("the change could not be made durable: {error}")).with_source(Arc::clone(error))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn group() -> Arc<Group> {
        Arc::new(Group { root: File::open(std::env::temp_dir()).unwrap(), state: Mutex::default() })
    }

    /// A flush answers its callers a moment before it gives the right to flush back.
    fn until_idle(group: &Group) {
        while lock(&group.state).flushing {
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn those_who_come_during_a_flush_share_the_next_one() {
        let group = group();
        let (begun, has_begun) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let flushes = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&flushes);
        let first = group.join(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            begun.send(()).unwrap();
            gate.recv().map_err(std::io::Error::other)
        });
        has_begun.recv().unwrap();
        let late: Vec<_> = (0..50).map(|_| group.join(|_| panic!("somebody is flushing already"))).collect();
        release.send(()).unwrap();
        release.send(()).unwrap();
        assert!(first.await.unwrap().is_ok());
        for answer in late {
            assert!(answer.await.unwrap().is_ok());
        }
        assert_eq!(flushes.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_error_reaches_every_caller_of_that_flush_and_none_of_the_next() {
        let group = group();
        let error = group.join(|_| Err(std::io::ErrorKind::StorageFull.into())).await.unwrap().unwrap_err();
        until_idle(&group);
        assert_eq!(failed(&error).kind(), ErrorKind::DiskFull);
        assert_eq!(failed(&Arc::new(std::io::Error::other("x"))).kind(), ErrorKind::Io);
        group.flush().await.unwrap();
    }

    #[tokio::test]
    async fn a_flush_that_dies_leaves_nobody_waiting() {
        let group = group();
        assert!(group.join(|_| panic!("a bug")).await.is_err());
        until_idle(&group);
        group.flush().await.unwrap();
    }

    #[test]
    fn one_group_per_filesystem() {
        let directory = tempfile::tempdir().unwrap();
        let groups = Groups::default();
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        assert!(Arc::ptr_eq(&groups.of(directory.path()).unwrap(), &groups.of(&inner).unwrap()));
        assert_eq!(groups.of(&inner.join("none")).unwrap_err().kind(), ErrorKind::Missing);
    }
}
