//! Makes the files of a local store durable: one `syncfs` serves everybody who waits.
//!
//! The local store renames files without flushing them. A flush per file would cost a disk round trip each. One flush
//! of the file system costs the same for a hundred running backups. It covers every file that was written before it
//! began.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::tasks;

/// Flushes the file system that holds one directory.
#[derive(Debug)]
pub(super) struct SharedFlush {
    root: Arc<File>,
    /// The number of flushes that were begun.
    begun: AtomicU64,
    /// The number of the newest flush that succeeded.
    proved: AtomicU64,
    turn: Mutex<()>,
}

impl SharedFlush {
    pub(super) fn open_root(root: &Path) -> std::io::Result<Self> {
        let root = Arc::new(File::open(root)?);
        Ok(Self { root, begun: AtomicU64::new(0), proved: AtomicU64::new(0), turn: Mutex::new(()) })
    }

    /// The open directory.
    pub(super) fn root_file(&self) -> &Arc<File> {
        &self.root
    }

    /// Returns when a flush that began after this call has succeeded.
    pub(super) async fn wait_for_flush(&self) -> Result<()> {
        let seen = self.begun.load(Ordering::Acquire);
        let _turn = self.turn.lock().await;
        if self.proved.load(Ordering::Acquire) > seen {
            return Ok(());
        }
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let root = Arc::clone(&self.root);
        let synced = tasks::run_blocking(move || rustix::fs::syncfs(&*root)).await;
        synced.map_err(|error| {
            Error::new(ErrorKind::BackupStoreUnavailable, "the backup directory could not be flushed to disk")
                .with_source(error)
        })?;
        self.proved.store(number, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_callers_share_flushes_and_each_gets_one_that_began_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let flush = Arc::new(SharedFlush::open_root(folder.path()).unwrap());
        let all = (0..50).map(|_| async {
            let seen = flush.begun.load(Ordering::Acquire);
            flush.wait_for_flush().await.unwrap();
            assert!(flush.proved.load(Ordering::Acquire) > seen);
        });
        futures_util::future::join_all(all).await;
        assert!(flush.begun.load(Ordering::Acquire) <= 3, "{flush:?}");
    }
}
