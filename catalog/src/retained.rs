//! Databases that are no longer current but kept until a date: what undo returns to.

use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::{Generation, OperationId, ServerId, TenantId};

/// One row of `retained`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedRecord {
    /// Whose it was.
    pub tenant_id: TenantId,
    /// Where it is.
    pub server_id: ServerId,
    /// Where it is.
    pub placement: String,
    /// Stamped into it.
    pub generation: Generation,
    /// restore or move.
    pub reason: String,
    /// The operation that replaced it.
    pub op_id: OperationId,
    /// Its ledger's newest version, when it was replaced.
    pub schema_version: Option<i64>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub keep_until: i64,
}

/// Keeps a database; one that is already there is left alone.
pub async fn insert(_tx: &mut WriteTx, _record: &RetainedRecord) -> Result<()> {
    todo!()
}
/// The newest of a tenant, for this reason.
pub async fn newest(_tx: &mut ReadTx, _tenant: TenantId, _reason: &str) -> Result<Option<RetainedRecord>> {
    todo!()
}
/// Those of a tenant, newest first.
pub async fn of_tenant(_tx: &mut ReadTx, _tenant: TenantId) -> Result<Vec<RetainedRecord>> {
    todo!()
}
/// Those whose time is over, oldest first.
pub async fn expired(_tx: &mut ReadTx, _now: i64, _limit: u32) -> Result<Vec<RetainedRecord>> {
    todo!()
}
/// Forgets one: it is current again, or dropped.
pub async fn remove(_tx: &mut WriteTx, _server: ServerId, _placement: &str) -> Result<()> {
    todo!()
}
