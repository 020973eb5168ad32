//! migrate: brings tenants to a release, each version in one transaction with its ledger row.

use catalog::ReleaseId;
use serde::{Deserialize, Serialize};
use tenant_engine::migration::File;

/// Where to go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Params {
    /// The migration set.
    pub release: Release,
    /// Stop after this version; `None`: the head.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<i64>,
    /// Which tenants are looked into.
    #[serde(default)]
    pub look: Look,
}

/// A migration set by its id or by its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// One that the catalog holds.
    Id(ReleaseId),
    /// Stored at submission; the operation's row names its id then.
    Files(Vec<File>),
}

/// Which tenants get a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// Those whose catalog row says that they are elsewhere.
    #[default]
    Hint,
    /// All of them: each database's own ledger is read.
    Every,
}
