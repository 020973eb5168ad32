//! What the verbs share: the filesystems to flush, the templates built.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SqliteEngine;
use super::durability::{Group, Groups};
use super::provision::Templates;
use crate::disk;
use crate::error::Result;
use crate::placement::Placement;

/// The verbs' memory; lost with the process, rebuilt as needed.
#[derive(Debug, Default)]
pub(super) struct Verbs {
    /// One per filesystem.
    pub(super) groups: Groups,
    /// The newest few.
    pub(super) templates: Templates,
}

/// Whether what a verb found or did may still be in memory only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// Written by this call, or by an earlier one that was cut off before its flush.
    Needed,
    /// Nothing was written since the last sync.
    Done,
}

impl SqliteEngine {
    /// Runs a verb's blocking part on a worker, with a place for one connection, then waits for the group's flush if it
    /// needs one.
    ///
    /// # Errors
    /// Those of `work` and of the flush.
    pub(super) async fn durably<T: Send + 'static>(
        &self,
        at: &Placement,
        work: impl FnOnce(&Placement) -> Result<(T, Flush)> + Send + 'static,
    ) -> Result<T> {
        let (groups, on, disk) = (self.verbs().groups.clone(), at.clone(), self.inner.disks.of(at.root()));
        let work = move || {
            disk.reserve.make_room();
            grouped(&groups, on.root(), || work(&on))
        };
        flushed(self.blocking_on(at, work).await?).await
    }

    /// As [`SqliteEngine::durably`], for work that takes room: refused before it begins when `bytes` do not fit.
    ///
    /// # Errors
    /// [`crate::ErrorKind::DiskFull`]; those of `work` and of the flush.
    pub(super) async fn durably_taking<T: Send + 'static>(
        &self,
        at: &Placement,
        bytes: u64,
        work: impl FnOnce(&Placement) -> Result<(T, Flush)> + Send + 'static,
    ) -> Result<T> {
        let work = move |at: &Placement| disk::require_room(at.root(), bytes).and_then(|()| work(at));
        self.durably(at, work).await
    }

    /// The same for work on any object under a server's directory; it opens one database at a time.
    ///
    /// # Errors
    /// Those of `work` and of the flush.
    pub(super) async fn durably_under<T: Send + 'static>(
        &self,
        root: PathBuf,
        work: impl FnOnce() -> Result<(T, Flush)> + Send + 'static,
    ) -> Result<T> {
        let (groups, disk) = (self.verbs().groups.clone(), self.inner.disks.of(&root));
        let work = move || {
            disk.reserve.make_room();
            grouped(&groups, &root, work)
        };
        flushed(self.blocking(work).await?).await
    }
}

/// What a verb came to, and what has to be flushed for it.
type Grouped<T> = (Arc<Group>, T, Flush);

fn grouped<T>(groups: &Groups, root: &Path, work: impl FnOnce() -> Result<(T, Flush)>) -> Result<Grouped<T>> {
    // Before the first write: only then does the flush report every write that failed.
    let group = groups.of(root)?;
    work().map(|(value, flush)| (group, value, flush))
}

async fn flushed<T>((group, value, flush): Grouped<T>) -> Result<T> {
    match flush {
        Flush::Needed => group.flush().await?,
        Flush::Done => {}
    }
    Ok(value)
}
