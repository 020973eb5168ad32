//! The index of backups; the manifests in the backup store are the truth.

use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::{BackupId, OperationId, TenantId};
use tenant_engine::placement::EngineKind;

/// One row of `backups`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRecord {
    /// For ever.
    pub id: BackupId,
    /// Whose.
    pub tenant_id: TenantId,
    /// Which operation made it.
    pub op_id: Option<OperationId>,
    /// Of the manifest.
    pub object_key: String,
    /// What it was taken from.
    pub engine: EngineKind,
    /// Equal for equal content.
    pub content_hash: String,
    /// Of the database.
    pub size_bytes: i64,
    /// Of the stored object.
    pub stored_bytes: i64,
    /// The ledger's newest version inside.
    pub schema_version: Option<i64>,
    /// manual, scheduled, pre_restore, pre_delete.
    pub reason: String,
    /// When the snapshot began, milliseconds since 1970.
    pub taken_at: i64,
    /// When it was last verified, milliseconds since 1970.
    pub verified_at: Option<i64>,
    /// What the last verification found wrong.
    pub verify_error: Option<String>,
}

/// Adds many; one that is already there (same id) is left alone.
pub async fn insert_many(_tx: &mut WriteTx, _backups: &[BackupRecord]) -> Result<()> {
    todo!()
}
/// One backup.
pub async fn get(_tx: &mut ReadTx, _id: BackupId) -> Result<Option<BackupRecord>> {
    todo!()
}
/// The newest backup of a tenant taken at or before `at` (`None`: the newest).
pub async fn newest(_tx: &mut ReadTx, _tenant: TenantId, _at: Option<i64>) -> Result<Option<BackupRecord>> {
    todo!()
}
/// A page, newest first, of one tenant when given, beginning after (older than) `after`.
pub async fn page(
    _tx: &mut ReadTx,
    _tenant: Option<TenantId>,
    _after: Option<BackupId>,
    _limit: u32,
) -> Result<Vec<BackupRecord>> {
    todo!()
}
/// Records a verification.
pub async fn set_verified(_tx: &mut WriteTx, _id: BackupId, _error: Option<&str>) -> Result<()> {
    todo!()
}
