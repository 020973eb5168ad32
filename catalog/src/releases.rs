//! Releases: immutable migration sets, their files kept in the catalog so that any process can resume.

use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use tenant_engine::migration::{File, MigrationSet};
use tenant_engine::placement::EngineKind;

use crate::ids::ReleaseId;

/// One row of `releases`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRecord {
    /// For ever.
    pub id: ReleaseId,
    /// Of versions and checksums: equal digest, equal release.
    pub digest: String,
    /// Whose SQL it is.
    pub engine: EngineKind,
    /// The newest version.
    pub head_version: Option<i64>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// The actor.
    pub created_by: String,
}

/// The release with this set's digest, stored now if it is new.
pub async fn ensure(
    _tx: &mut WriteTx,
    _engine: EngineKind,
    _set: &MigrationSet,
    _files: &[File],
    _actor: &str,
) -> Result<ReleaseRecord> {
    todo!()
}
/// One release.
pub async fn get(_tx: &mut ReadTx, _id: ReleaseId) -> Result<Option<ReleaseRecord>> {
    todo!()
}
/// Its files, by name.
pub async fn files(_tx: &mut ReadTx, _id: ReleaseId) -> Result<Vec<File>> {
    todo!()
}
/// A page, newest first, beginning after (older than) `after`.
pub async fn page(_tx: &mut ReadTx, _after: Option<ReleaseId>, _limit: u32) -> Result<Vec<ReleaseRecord>> {
    todo!()
}
