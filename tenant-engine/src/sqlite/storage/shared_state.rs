//! The state that engine operations share: the filesystems to flush, and the templates.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::durability::{FlushGroup, FlushGroups};
use crate::disk;
use crate::engine::DatabaseTemplate;
use crate::error::Result;
use crate::placement::Placement;
use crate::sqlite::SqliteEngine;
use crate::sqlite::locks::lock_ignoring_poison;

/// The memory of the engine operations; lost with the process, and rebuilt as needed.
#[derive(Debug, Default)]
pub(in crate::sqlite) struct SharedState {
    /// One group per filesystem.
    pub(super) groups: FlushGroups,
    /// The newest few templates.
    pub(in crate::sqlite) templates: TemplateCache,
}

/// Templates kept: one release is current, a rollout and a rehearsal add a few. Each takes about 100 KB.
const TEMPLATES_MAX: usize = 8;

/// Templates by digest, the newest last. Clones share them.
#[derive(Debug, Clone, Default)]
pub(in crate::sqlite) struct TemplateCache(Arc<Mutex<VecDeque<Arc<DatabaseTemplate>>>>);

impl TemplateCache {
    pub(in crate::sqlite) fn get(&self, digest: &str) -> Option<Arc<DatabaseTemplate>> {
        lock_ignoring_poison(&self.0).iter().find(|template| template.digest == digest).cloned()
    }

    pub(in crate::sqlite) fn keep_template(&self, template: &Arc<DatabaseTemplate>) {
        let mut kept = lock_ignoring_poison(&self.0);
        if kept.len() >= TEMPLATES_MAX {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(template));
    }
}

/// Whether data that an operation read or wrote may not be on disk yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sqlite) enum FlushNeed {
    /// Written by this call, or by an earlier call that was interrupted before its flush.
    Needed,
    /// Nothing was written since the last flush.
    Done,
}

impl SqliteEngine {
    /// Runs the blocking part of an engine operation on a worker, with a place for one connection. Then waits for the
    /// group's flush if it needs one.
    ///
    /// # Errors
    /// Those of `work` and of the flush.
    pub(in crate::sqlite) async fn run_durably<T: Send + 'static>(
        &self,
        at: &Placement,
        work: impl FnOnce(&Placement) -> Result<(T, FlushNeed)> + Send + 'static,
    ) -> Result<T> {
        let (groups, on, disk) =
            (self.shared_state().groups.clone(), at.clone(), self.inner.disks.under_root(at.server_root()));
        let work = move || {
            disk.reserve.make_room();
            run_in_group(&groups, on.server_root(), || work(&on))
        };
        flush_result(self.blocking_on(at, work).await?).await
    }

    /// As [`SqliteEngine::run_durably`], for work that takes disk space: refused before it begins when `bytes` do not
    /// fit.
    ///
    /// # Errors
    /// [`crate::ErrorKind::DiskFull`]; those of `work` and of the flush.
    pub(in crate::sqlite) async fn durably_taking<T: Send + 'static>(
        &self,
        at: &Placement,
        bytes: u64,
        work: impl FnOnce(&Placement) -> Result<(T, FlushNeed)> + Send + 'static,
    ) -> Result<T> {
        let work = move |at: &Placement| disk::require_room(at.server_root(), bytes).and_then(|()| work(at));
        self.run_durably(at, work).await
    }

    /// As [`SqliteEngine::run_durably`], for work on any object under a server's directory; it opens one database at a
    /// time.
    ///
    /// # Errors
    /// Those of `work` and of the flush.
    pub(in crate::sqlite) async fn durably_under<T: Send + 'static>(
        &self,
        root: PathBuf,
        work: impl FnOnce() -> Result<(T, FlushNeed)> + Send + 'static,
    ) -> Result<T> {
        let (groups, disk) = (self.shared_state().groups.clone(), self.inner.disks.under_root(&root));
        let work = move || {
            disk.reserve.make_room();
            run_in_group(&groups, &root, work)
        };
        flush_result(self.run_blocking(work).await?).await
    }
}

/// The result of an operation, and what must be flushed for it.
type UnflushedResult<T> = (Arc<FlushGroup>, T, FlushNeed);

fn run_in_group<T>(
    groups: &FlushGroups,
    root: &Path,
    work: impl FnOnce() -> Result<(T, FlushNeed)>,
) -> Result<UnflushedResult<T>> {
    // Before the first write, because only then does the flush report every failed write.
    let group = groups.group_for(root)?;
    work().map(|(value, flush)| (group, value, flush))
}

async fn flush_result<T>((group, value, flush): UnflushedResult<T>) -> Result<T> {
    match flush {
        FlushNeed::Needed => group.wait_for_flush().await?,
        FlushNeed::Done => {}
    }
    Ok(value)
}
