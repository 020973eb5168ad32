//! Steps: an operation on one tenant. Claimed with a lease, recorded only by the holder of the live lease.

use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use serde::{Deserialize, Serialize};

use crate::ids::{OperationId, TenantId};

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Waiting for its turn, for the tenant, or for a retry.
    Pending,
    /// Claimed.
    Running,
    /// Done.
    Succeeded,
    /// Given up, with an error.
    Failed,
    /// Never to be run.
    Cancelled,
}

/// One row of `steps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// Of which operation.
    pub op_id: OperationId,
    /// On which tenant.
    pub tenant_id: TenantId,
    /// See [`StepState`].
    pub state: StepState,
    /// The next idempotent action; empty before the first.
    pub phase: String,
    /// JSON that the next phase needs.
    pub facts: String,
    /// How often it was claimed since the last success of a phase.
    pub attempt: i64,
    /// Not to be claimed before, milliseconds since 1970.
    pub not_before: i64,
    /// The worker that holds it.
    pub lease_owner: Option<String>,
    /// Counts the claims.
    pub lease_epoch: i64,
    /// Until when, milliseconds since 1970.
    pub lease_until: Option<i64>,
    /// Of the last failure.
    pub error_code: Option<String>,
    /// Of the last failure.
    pub error: Option<String>,
    /// Milliseconds since 1970.
    pub started_at: Option<i64>,
    /// Milliseconds since 1970.
    pub finished_at: Option<i64>,
}

/// What a worker reports of one step it holds.
#[derive(Debug, Clone)]
pub struct StepOutcome {
    /// Which.
    pub op_id: OperationId,
    /// Which.
    pub tenant_id: TenantId,
    /// The claim it ran under.
    pub lease_owner: String,
    /// The claim it ran under; a row with another epoch is left alone.
    pub lease_epoch: i64,
    /// What to write.
    pub result: StepResult,
}

/// Where a step goes from here.
#[derive(Debug, Clone)]
pub enum StepResult {
    /// To this phase, keeping the lease.
    Next {
        /// Its name.
        phase: String,
        /// JSON for it.
        facts: String,
    },
    /// Done; the tenant's slot is freed.
    Done {
        /// JSON: what the operation reports of this tenant.
        facts: String,
    },
    /// Again, not before this time; lease and slot are freed.
    Retry {
        /// Milliseconds since 1970.
        not_before: i64,
        /// Why.
        code: String,
        /// Why.
        message: String,
    },
    /// Given up; lease and slot are freed.
    Failed {
        /// Why.
        code: String,
        /// Why.
        message: String,
    },
}

/// Claims up to `limit` steps of an operation that are due, whose lease is free or expired and whose tenant is free or
/// already this operation's, and takes the tenants' slots in the same transaction.
pub async fn claim(
    _tx: &mut WriteTx,
    _op: OperationId,
    _owner: &str,
    _lease_until: i64,
    _limit: i64,
) -> Result<Vec<StepRecord>> {
    todo!()
}
/// Writes each outcome whose step is still held under its epoch; returns, in order, whether it was.
/// The caller applies the effects of those only.
pub async fn record(_tx: &mut WriteTx, _outcomes: &[StepOutcome]) -> Result<Vec<bool>> {
    todo!()
}
/// Which of these claims are still live, without changing them: asked before effects are applied.
pub async fn live(_tx: &mut ReadTx, _claims: &[(OperationId, TenantId, i64)]) -> Result<Vec<bool>> {
    todo!()
}
/// Extends all live leases of a worker; returns how many.
pub async fn renew(_tx: &mut WriteTx, _owner: &str, _lease_until: i64) -> Result<i64> {
    todo!()
}
/// When the next step of any open operation becomes due or its lease expires, milliseconds since 1970.
pub async fn next_due(_tx: &mut ReadTx) -> Result<Option<i64>> {
    todo!()
}
/// Sets failed steps of an operation to pending again (and the operation to running); returns how many.
pub async fn retry_failed(_tx: &mut WriteTx, _op: OperationId) -> Result<i64> {
    todo!()
}
/// Cancels every step that no one holds; returns how many.
pub async fn cancel_pending(_tx: &mut WriteTx, _op: OperationId) -> Result<i64> {
    todo!()
}
/// One step.
pub async fn get(_tx: &mut ReadTx, _op: OperationId, _tenant: TenantId) -> Result<Option<StepRecord>> {
    todo!()
}
/// A page in the order of tenant ids, with each tenant's name, beginning after `after`; in one of `states` unless empty.
pub async fn page(
    _tx: &mut ReadTx,
    _op: OperationId,
    _states: &[StepState],
    _after: Option<TenantId>,
    _limit: u32,
) -> Result<Vec<(StepRecord, String)>> {
    todo!()
}
