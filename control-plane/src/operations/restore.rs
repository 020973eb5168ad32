//! restore: fills a new placement from a backup, verifies it, and swaps it in; or makes a new tenant of it.

use catalog::{BackupId, TenantId};
use serde::{Deserialize, Serialize};

/// From what, and as whom. The selection names exactly one tenant: the one whose backup it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Params {
    /// Which backup.
    pub to: To,
    /// A new tenant of this name instead of in place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub as_name: Option<String>,
    /// What `to` meant at submission; filled there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resolved: Option<Resolved>,
}

/// A point to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum To {
    /// The newest backup.
    Latest,
    /// The newest backup taken at or before this time, milliseconds since 1970.
    At(i64),
    /// Exactly this one.
    Backup(BackupId),
}

/// Decided at submission, so that a rerun restores the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Which backup.
    pub backup: BackupId,
    /// Whose it is; another tenant than the target when restoring as a new one.
    pub source: TenantId,
}
