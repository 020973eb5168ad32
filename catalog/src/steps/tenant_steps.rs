//! The results of operations on one tenant, for operators. Read by the control plane, never by a worker.
//!
//! They are ordered by the submission of their operations, independent of clocks.

use sqlx::any::AnyRow;

use super::StepState;
use crate::bulk::{capped_limit, dynamic_query};
use crate::db::ReadTx;
use crate::error::Result;
use crate::ids::{OperationId, TenantId};
use crate::row;

/// A summary of an operation on one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantStep {
    /// The operation of the step.
    pub op_id: OperationId,
    /// The operation's kind.
    pub kind: String,
    /// The actor that requested the operation.
    pub requested_by: String,
    /// State of the step on this tenant.
    pub state: StepState,
    /// The step's next phase.
    pub phase: String,
    /// Code of the last error, of the step or otherwise of the operation.
    pub code: Option<String>,
    /// Message of the last error.
    pub message: Option<String>,
    /// When the operation was submitted, milliseconds since 1970.
    pub created_at: i64,
    /// When the step ended, milliseconds since 1970.
    pub finished_at: Option<i64>,
}

const COLUMNS: &str = "o.id, o.kind, o.requested_by, o.created_at, s.state, s.phase, s.finished_at, \
    coalesce(s.error_code, o.error_code) as code, coalesce(s.error, o.error) as message";

/// The last operation that succeeded on a tenant.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn last_success(tx: &mut ReadTx, tenant: TenantId) -> Result<Option<TenantStep>> {
    last_step_where(tx, tenant, "s.state = 'succeeded'").await
}

/// The last operation that failed on a tenant. If an operation failed as a whole, the tenant's step was cancelled.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn last_failure(tx: &mut ReadTx, tenant: TenantId) -> Result<Option<TenantStep>> {
    // The first condition matches a partial index.
    last_step_where(tx, tenant, "s.state in ('failed', 'cancelled') and (s.state = 'failed' or o.state = 'failed')")
        .await
}

async fn last_step_where(tx: &mut ReadTx, tenant: TenantId, condition: &str) -> Result<Option<TenantStep>> {
    let sql = format!(
        "select {COLUMNS} from steps s join operations o on o.id = s.op_id where s.tenant_id = $1 and {condition} \
         order by o.seq desc, o.id desc limit 1"
    );
    tx.fetch_row(dynamic_query(sql).bind(tenant.to_string())).await?.as_ref().map(tenant_step_from_row).transpose()
}

/// Operations with work left on a tenant, in the order of submission.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn open_of_tenant(tx: &mut ReadTx, tenant: TenantId, most: u32) -> Result<Vec<TenantStep>> {
    let sql = format!(
        "select {COLUMNS} from steps s join operations o on o.id = s.op_id where s.tenant_id = $1 \
         and s.state in ('pending', 'running') order by o.seq, o.id limit $2"
    );
    tx.fetch_rows(dynamic_query(sql).bind(tenant.to_string()).bind(capped_limit(most)))
        .await?
        .iter()
        .map(tenant_step_from_row)
        .collect()
}

fn tenant_step_from_row(row: &AnyRow) -> Result<TenantStep> {
    Ok(TenantStep {
        op_id: row::parsed_column(row, "id")?,
        kind: row::text_column(row, "kind")?,
        requested_by: row::text_column(row, "requested_by")?,
        state: row::enum_column(row, "state")?,
        phase: row::text_column(row, "phase")?,
        code: row::nullable_text(row, "code")?,
        message: row::nullable_text(row, "message")?,
        created_at: row::int_column(row, "created_at")?,
        finished_at: row::nullable_int(row, "finished_at")?,
    })
}
