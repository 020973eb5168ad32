//! Operations: pieces of fleet work. How far one is is counted from its steps, never stored.

use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use serde::{Deserialize, Serialize};

use crate::ids::{OperationId, ReleaseId, TenantId};

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// No step was claimed yet.
    Pending,
    /// Steps are being run.
    Running,
    /// No new step is claimed.
    Paused,
    /// Every step succeeded.
    Succeeded,
    /// Some steps failed.
    Partial,
    /// All steps failed, or the operation itself.
    Failed,
    /// Ended by an operator; steps that had begun were finished or rolled back.
    Cancelled,
}

/// One row of `operations`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationRecord {
    /// For ever.
    pub id: OperationId,
    /// Which file of the control plane's `operations/` runs it.
    pub kind: String,
    /// See [`OperationState`].
    pub state: OperationState,
    /// JSON, as its kind defines.
    pub params: String,
    /// The migration set it needs.
    pub release_id: Option<ReleaseId>,
    /// Tenants with a step.
    pub steps_total: i64,
    /// Tenants that needed nothing.
    pub steps_skipped: i64,
    /// Steps at once.
    pub concurrency: i64,
    /// The actor.
    pub requested_by: String,
    /// Given by a human.
    pub reason: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub started_at: Option<i64>,
    /// Milliseconds since 1970.
    pub finished_at: Option<i64>,
    /// Of the operation itself, not of a step.
    pub error_code: Option<String>,
    /// Of the operation itself, not of a step.
    pub error: Option<String>,
}

/// Counted from the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Waiting or to be retried.
    pub pending: i64,
    /// Claimed.
    pub running: i64,
    /// Done.
    pub succeeded: i64,
    /// Given up.
    pub failed: i64,
    /// Never to be run.
    pub cancelled: i64,
}

/// What a new operation starts with.
#[derive(Debug, Clone)]
pub struct NewOperation {
    /// Made by the caller.
    pub id: OperationId,
    /// See [`OperationRecord::kind`].
    pub kind: String,
    /// JSON.
    pub params: String,
    /// The migration set it needs.
    pub release_id: Option<ReleaseId>,
    /// One step each, in this order of claiming (by id).
    pub tenants: Vec<TenantId>,
    /// Tenants that needed nothing.
    pub skipped: i64,
    /// Steps at once.
    pub concurrency: i64,
    /// The actor.
    pub requested_by: String,
    /// Given by a human.
    pub reason: Option<String>,
}

/// Writes the operation and its steps. With no step it is `succeeded` at once.
pub async fn insert(_tx: &mut WriteTx, _new: &NewOperation) -> Result<OperationRecord> {
    todo!()
}
/// One operation.
pub async fn get(_tx: &mut ReadTx, _id: OperationId) -> Result<Option<OperationRecord>> {
    todo!()
}
/// Counted from its steps.
pub async fn progress(_tx: &mut ReadTx, _id: OperationId) -> Result<Progress> {
    todo!()
}
/// A page, newest first, beginning after (older than) `after`; in one of `states` unless empty; of one kind or tenant when given.
pub async fn page(
    _tx: &mut ReadTx,
    _states: &[OperationState],
    _kind: Option<&str>,
    _tenant: Option<TenantId>,
    _after: Option<OperationId>,
    _limit: u32,
) -> Result<Vec<OperationRecord>> {
    todo!()
}
/// Pending and running operations, oldest first: what a runner looks at.
pub async fn open(_tx: &mut ReadTx) -> Result<Vec<OperationRecord>> {
    todo!()
}
/// Pauses, resumes or cancels: sets the state where it is one of `from`, else fails with `Conflict`.
pub async fn set_state(
    _tx: &mut WriteTx,
    _id: OperationId,
    _from: &[OperationState],
    _to: OperationState,
) -> Result<OperationRecord> {
    todo!()
}
/// If no step is pending or running any more, ends the operation (succeeded, partial, failed) and returns its record.
pub async fn finish_if_done(_tx: &mut WriteTx, _id: OperationId) -> Result<Option<OperationRecord>> {
    todo!()
}
