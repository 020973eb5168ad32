//! The audit log. Every change of fleet state appends here in its own transaction.

use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::{OperationId, TenantId};

/// What is to be remembered.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// noun.verb
    pub kind: String,
    /// Who.
    pub actor: String,
    /// About which tenant.
    pub tenant_id: Option<TenantId>,
    /// In which operation.
    pub op_id: Option<OperationId>,
    /// In which request.
    pub request_id: Option<String>,
    /// JSON, never a secret.
    pub data: serde_json::Value,
}

/// One row of `events`.
#[derive(Debug, Clone)]
pub struct EventRecord {
    /// Commit order.
    pub seq: i64,
    /// Milliseconds since 1970.
    pub at: i64,
    /// What.
    pub event: NewEvent,
}

/// Appends in order.
pub async fn append(_tx: &mut WriteTx, _events: &[NewEvent]) -> Result<()> {
    todo!()
}
/// A page in commit order after `after`; of one tenant or operation when given.
pub async fn page(
    _tx: &mut ReadTx,
    _tenant: Option<TenantId>,
    _op: Option<OperationId>,
    _after: i64,
    _limit: u32,
) -> Result<Vec<EventRecord>> {
    todo!()
}
