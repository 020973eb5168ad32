//! verify: downloads backups, checks hashes, pages, foreign keys and identity in scratch space.

use catalog::BackupId;
use serde::{Deserialize, Serialize};

/// Which backups.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {
    /// These, at most [`BACKUPS_MAX`]; empty: the newest of each selected tenant.
    #[serde(default)]
    pub backups: Vec<BackupId>,
}

/// Backups named in one request: they are stored in the operation's row.
pub const BACKUPS_MAX: usize = 1_000;
