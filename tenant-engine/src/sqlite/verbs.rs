//! What the verbs share: the filesystems to flush, the templates built, the migrations known to rebuild tables.

use std::path::PathBuf;

use super::SqliteEngine;
use super::apply::Rebuilds;
use super::durability::Groups;
use super::provision::Templates;
use crate::error::Result;
use crate::placement::Placement;

/// The verbs' memory; lost with the process, rebuilt as needed.
#[derive(Debug, Default)]
pub(super) struct Verbs {
    /// One per filesystem.
    pub(super) groups: Groups,
    /// The newest few.
    pub(super) templates: Templates,
    /// See [`Rebuilds`].
    pub(super) rebuilds: Rebuilds,
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
    /// Runs a verb's blocking part on a worker, then waits for the group's flush if it needs one.
    ///
    /// # Errors
    /// Those of `work` and of the flush.
    pub(super) async fn durably<T: Send + 'static>(
        &self,
        at: &Placement,
        work: impl FnOnce(&Placement) -> Result<(T, Flush)> + Send + 'static,
    ) -> Result<T> {
        let at = at.clone();
        self.durably_under(at.root().to_path_buf(), move || work(&at)).await
    }

    /// The same for work on whatever stands under a server's directory.
    ///
    /// # Errors
    /// Those of `work` and of the flush.
    pub(super) async fn durably_under<T: Send + 'static>(
        &self,
        root: PathBuf,
        work: impl FnOnce() -> Result<(T, Flush)> + Send + 'static,
    ) -> Result<T> {
        let groups = self.verbs().groups.clone();
        let (group, value, flush) = self
            .blocking(move || {
                // Before the first write: only then does the flush report every write that failed.
                let group = groups.of(&root)?;
                work().map(|(value, flush)| (group, value, flush))
            })
            .await?;
        match flush {
            Flush::Needed => group.flush().await?,
            Flush::Done => {}
        }
        Ok(value)
    }
}
