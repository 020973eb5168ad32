//! Group durability: one `syncfs` makes the work of many callers durable.
//!
//! An engine operation that changes a file on a worker thread asks for its filesystem's [`FlushGroup`] *before* it
//! writes. It awaits [`FlushGroup::wait_for_flush`] after its last write and before it returns. Callers that arrive
//! while a flush runs wait for the next one; one flush answers all callers that were waiting when it began. With 64
//! callers that is one flush for 64 databases instead of three to five fsyncs for each.
//!
//! Why this equals an fsync per file. `syncfs` returns after every dirty page, inode and directory entry of the
//! filesystem that existed when it was called is on stable storage. So everything that a caller did before the flush is
//! durable after it: data, rename and directory alike. What remains is that a power failure *before* the flush must
//! leave nothing half-made that a later reader trusts:
//!
//! - A new database is written under a `.part` name and renamed. No caller is told of it before the flush, and its path
//!   is never used again. A repeated call checks every page of an existing file before it accepts the file.
//! - A change of a live database goes to its write-ahead log, whose frames carry chained checksums: recovery accepts
//!   the longest intact prefix and cuts at a commit, in whatever order the disk wrote. The one step where order matters
//!   is a log that starts over on top of old frames. There SQLite syncs the log's header first, and `writer.rs` leaves
//!   that sync on unless the log is empty. An empty log has no old frames; blocks that once held another log do not
//!   pass for this one, because every log has its own random salt. The main file changes only in a checkpoint. Each
//!   checkpoint syncs the log first, whether a serving connection makes it, or `writer.rs` for a log that grew too
//!   long.
//!
//! Since Linux 5.8 `syncfs` reports write errors of any file on the filesystem since the descriptor was opened or last
//! asked. That is why the group's descriptor is opened before the writes and kept. An error fails every waiting caller:
//! none is told that its work is durable.
//!
//! The price: unrelated dirty data on the same filesystem is flushed too.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::locks::lock_ignoring_poison;

/// The filesystems in use, by device number. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct FlushGroups(Arc<Mutex<HashMap<u64, Arc<FlushGroup>>>>);

impl FlushGroups {
    /// The group of the filesystem that holds `directory`. Blocks; call it before the first write.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] when there is no such directory, [`ErrorKind::Io`] when it cannot be opened.
    pub(super) fn group_for(&self, directory: &Path) -> Result<Arc<FlushGroup>> {
        let unusable = |error: std::io::Error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::Missing,
                _ => ErrorKind::Io,
            };
            Error::new(kind, format!("the server's directory cannot be opened: {error}")).with_source(error)
        };
        let device = std::fs::metadata(directory).map_err(unusable)?.dev();
        if let Some(group) = lock_ignoring_poison(&self.0).get(&device) {
            return Ok(Arc::clone(group));
        }
        let group = Arc::new(FlushGroup { root: File::open(directory).map_err(unusable)?, state: Mutex::default() });
        Ok(Arc::clone(lock_ignoring_poison(&self.0).entry(device).or_insert(group)))
    }
}

type FlushAnswer = oneshot::Sender<Result<(), Arc<std::io::Error>>>;

/// The callers of one filesystem.
#[derive(Debug)]
pub(super) struct FlushGroup {
    root: File,
    state: Mutex<FlushQueue>,
}

#[derive(Debug, Default)]
struct FlushQueue {
    /// True while a thread flushes, and until it has found no waiting caller.
    flushing: bool,
    /// Callers that arrived after the running flush began; bounded by the callers of the engine operations.
    waiting: Vec<FlushAnswer>,
}

impl FlushGroup {
    /// Returns once everything written to the filesystem before the call is durable. A dropped future changes nothing
    /// for the others.
    ///
    /// # Errors
    /// [`ErrorKind::DiskFull`] or [`ErrorKind::Io`] when the filesystem could not write something.
    pub(super) async fn wait_for_flush(self: &Arc<Self>) -> Result<()> {
        let answer = self.join_queue(|group| Ok(rustix::fs::syncfs(&group.root)?));
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(flush_failed(&error)),
            Err(_) => Err(Error::new(ErrorKind::Internal, "the flush ended without an answer")),
        }
    }

    /// Enters the queue. The first caller that finds no running flush starts a thread, which serves until the queue is
    /// empty.
    fn join_queue(
        self: &Arc<Self>,
        flush: impl Fn(&Self) -> std::io::Result<()> + Send + 'static,
    ) -> oneshot::Receiver<Result<(), Arc<std::io::Error>>> {
        let (sender, answer) = oneshot::channel();
        let mut state = lock_ignoring_poison(&self.state);
        state.waiting.push(sender);
        if !std::mem::replace(&mut state.flushing, true) {
            let serving = FlushTurn(Some(Arc::clone(self)));
            tokio::task::spawn_blocking(move || serving.run_flushes(flush));
        }
        answer
    }

    /// All callers that wait now; `None` when there are none, and the next caller starts a new thread.
    fn next_batch(&self) -> Option<Vec<FlushAnswer>> {
        let mut state = lock_ignoring_poison(&self.state);
        state.flushing = !state.waiting.is_empty();
        state.flushing.then(|| std::mem::take(&mut state.waiting))
    }
}

/// The right to flush, until no caller waits. If its thread never starts, or dies, no caller is left waiting for it.
struct FlushTurn(Option<Arc<FlushGroup>>);

impl FlushTurn {
    fn run_flushes(mut self, flush: impl Fn(&FlushGroup) -> std::io::Result<()>) {
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

impl Drop for FlushTurn {
    fn drop(&mut self) {
        if let Some(group) = &self.0 {
            let mut state = lock_ignoring_poison(&group.state);
            state.flushing = false;
            state.waiting.clear();
        }
    }
}

fn flush_failed(error: &Arc<std::io::Error>) -> Error {
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

    fn group() -> Arc<FlushGroup> {
        Arc::new(FlushGroup { root: File::open(std::env::temp_dir()).unwrap(), state: Mutex::default() })
    }

    /// A flush answers its callers a moment before it releases the right to flush.
    fn until_idle(group: &FlushGroup) {
        while lock_ignoring_poison(&group.state).flushing {
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
        let first = group.join_queue(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            begun.send(()).unwrap();
            gate.recv().map_err(std::io::Error::other)
        });
        has_begun.recv().unwrap();
        let late: Vec<_> = (0..50).map(|_| group.join_queue(|_| panic!("somebody is flushing already"))).collect();
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
        let error = group.join_queue(|_| Err(std::io::ErrorKind::StorageFull.into())).await.unwrap().unwrap_err();
        until_idle(&group);
        assert_eq!(flush_failed(&error).kind(), ErrorKind::DiskFull);
        assert_eq!(flush_failed(&Arc::new(std::io::Error::other("x"))).kind(), ErrorKind::Io);
        group.wait_for_flush().await.unwrap();
    }

    #[tokio::test]
    async fn a_flush_that_dies_leaves_nobody_waiting() {
        let group = group();
        assert!(group.join_queue(|_| panic!("a bug")).await.is_err());
        until_idle(&group);
        group.wait_for_flush().await.unwrap();
    }

    #[test]
    fn one_group_per_filesystem() {
        let directory = tempfile::tempdir().unwrap();
        let groups = FlushGroups::default();
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        assert!(Arc::ptr_eq(&groups.group_for(directory.path()).unwrap(), &groups.group_for(&inner).unwrap()));
        assert_eq!(groups.group_for(&inner.join("none")).unwrap_err().kind(), ErrorKind::Missing);
    }
}
