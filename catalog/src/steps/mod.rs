//! Steps: an operation's work on one tenant. Claimed with a lease; only the holder of a valid lease records results.

mod claim;
mod record;
mod tenant_steps;

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::bulk::{self, SqlQuery, dynamic_query};
use crate::clock_skew::{AHEAD_MS_MAX, is_over};
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::{OperationId, TenantId};
use crate::operations;
use crate::row;
use crate::text_enum::{self, TextEnum};

pub use claim::{DEATHS_ALONE, StepClaimant, check_live_claims, claim_steps, expect_exit, renew_claims};
pub use record::record_outcomes;
pub use tenant_steps::{TenantStep, last_failure, last_success, open_of_tenant};

/// The state of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Waiting for its turn, for the tenant, or for a retry.
    Pending,
    /// A worker has claimed it.
    Running,
    /// All phases are complete.
    Succeeded,
    /// Failed permanently, with an error.
    Failed,
    /// Never to be run, because the operation was cancelled or failed.
    Cancelled,
    /// Not run, because the tenant left the selection. The error contains the reason.
    Skipped,
}

/// One row of `steps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// The step's operation.
    pub op_id: OperationId,
    /// The step's tenant.
    pub tenant_id: TenantId,
    /// The state of the step.
    pub state: StepState,
    /// The next phase; empty before the first.
    pub phase: String,
    /// JSON that the next phase needs.
    pub facts: String,
    /// Number of claims since the last successful phase.
    pub attempt: i64,
    /// Number of deaths of its process since the last successful phase.
    pub deaths: i64,
    /// Earliest time of the next claim, milliseconds since 1970.
    pub not_before: i64,
    /// The worker that holds the step.
    pub lease_owner: Option<String>,
    /// Number of the current claim.
    pub lease_epoch: i64,
    /// End of the lease, milliseconds since 1970.
    pub lease_until: Option<i64>,
    /// Code of the last error, or of the reason to skip it.
    pub error_code: Option<String>,
    /// Message of the last error, or the reason to skip it.
    pub error: Option<String>,
    /// Time of the first claim, milliseconds since 1970.
    pub started_at: Option<i64>,
    /// Time of its end, milliseconds since 1970.
    pub finished_at: Option<i64>,
}

/// A worker's report about a step that it holds.
#[derive(Debug, Clone)]
pub struct StepOutcome {
    /// The step's operation.
    pub op_id: OperationId,
    /// The step's tenant.
    pub tenant_id: TenantId,
    /// The worker that holds the claim.
    pub lease_owner: String,
    /// The epoch of the claim; a row with another epoch is left unchanged.
    pub lease_epoch: i64,
    /// The result to record.
    pub result: StepResult,
}

/// The result of a phase.
#[derive(Debug, Clone)]
pub enum StepResult {
    /// The next phase follows; the lease stays.
    Next {
        /// Name of the next phase.
        phase: String,
        /// JSON for the next phase.
        facts: String,
    },
    /// The step is complete; the tenant's slot is freed.
    Done {
        /// JSON: the operation's result for this tenant.
        facts: String,
    },
    /// The phase is repeated after a time; lease and slot are freed.
    Retry {
        /// Earliest time of the retry, milliseconds since 1970.
        not_before: i64,
        /// Error code of the failed attempt.
        code: String,
        /// Error message of the failed attempt.
        message: String,
    },
    /// The step was returned before it began. Lease and slot are freed, and the claim does not count as an attempt.
    HandedBack {
        /// Code of the reason.
        code: String,
        /// The reason in words.
        message: String,
    },
    /// The step is not run, because the tenant left the selection; lease and slot are freed.
    Skipped {
        /// Code of the reason.
        code: String,
        /// The reason in words.
        message: String,
    },
    /// The step failed permanently; lease and slot are freed.
    Failed {
        /// Error code of the failure.
        code: String,
        /// Error message of the failure.
        message: String,
    },
}

const COLUMNS: &str = "op_id, tenant_id, state, phase, facts, attempt, deaths, not_before, lease_owner, lease_epoch, lease_until, \
    error_code, error, started_at, finished_at";

impl TextEnum for StepState {
    const NOUN: &'static str = "state of a step";
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Pending, "pending"),
        (Self::Running, "running"),
        (Self::Succeeded, "succeeded"),
        (Self::Failed, "failed"),
        (Self::Cancelled, "cancelled"),
        (Self::Skipped, "skipped"),
    ];
}

/// The next time when a step of an open operation becomes due or its lease expires, milliseconds since 1970; never in
/// the past. A time that no correct clock has written counts as over. A step whose tenant is busy with another
/// operation does not count, because it waits for that operation's end.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn next_due(tx: &mut ReadTx) -> Result<Option<i64>> {
    let (now, mut due) = (tx.now(), None);
    for (column, state) in [("not_before", "pending"), ("lease_until", "running")] {
        for order in ["asc", "desc"] {
            let sql = format!(
                "select s.{column} as due from steps s join operations o on o.id = s.op_id \
                 join tenants t on t.id = s.tenant_id where s.state = '{state}' and o.state in ('pending', 'running') \
                 and (t.op_id is null or t.op_id = s.op_id) order by s.{column} {order} limit 1"
            );
            let Some(row) = tx.fetch_row(dynamic_query(sql)).await? else { break };
            let found = row::int_column(&row, "due")?;
            let at = if found > now + AHEAD_MS_MAX { now } else { found.max(now) };
            due = Some(due.map_or(at, |due: i64| due.min(at)));
        }
    }
    Ok(due)
}

/// Sets the failed steps of an operation to pending, and the operation to running unless it is paused. Returns their
/// number.
///
/// # Errors
/// `NotFound` when the operation does not exist.
pub async fn retry_failed(tx: &mut WriteTx, op: OperationId) -> Result<i64> {
    operations::get(tx, op).await?.ok_or_else(|| operations::operation_not_found(op))?;
    let sql = "update steps set state = 'pending', attempt = 0, deaths = 0, not_before = 0, error_code = null, error = null, \
               finished_at = null where op_id = $1 and state = 'failed'";
    let again = tx.execute_sql(sqlx::query(sql).bind(op.to_string())).await?;
    if again > 0 {
        let sql = "update operations set state = case when state = 'paused' then state else 'running' end, \
                   finished_at = null, error_code = null, error = null where id = $1";
        tx.execute_sql(sqlx::query(sql).bind(op.to_string())).await?;
    }
    Ok(again)
}

/// Cancels every step that no worker holds and returns their number. An expired lease does not count as held. The
/// exception are tenants in `held`: this process runs their steps, and a clock was changed.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn cancel_pending(tx: &mut WriteTx, op: OperationId, held: &[TenantId]) -> Result<i64> {
    let now = tx.now();
    let sql = format!(
        "update steps set state = 'cancelled', finished_at = $2, lease_owner = null, lease_until = null \
         where op_id = $1 and (state = 'pending' or (state = 'running' and {} {}))",
        is_over("lease_until", "$2"),
        not_held("tenant_id", 3, held)
    );
    let cancelled = tx.execute_sql(bind_held(dynamic_query(sql).bind(op.to_string()).bind(now), held)).await?;
    let sql = "update tenants set op_id = null where op_id = $1 and id not in \
               (select tenant_id from steps where op_id = $1 and state = 'running')";
    tx.execute_sql(sqlx::query(sql).bind(op.to_string())).await?;
    Ok(cancelled)
}

/// Ended operations with steps whose worker did not return: their leases have expired. [`cancel_pending`] and then
/// [`operations::finish_if_done`] free their tenants.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn abandoned_operations(tx: &mut ReadTx) -> Result<Vec<OperationId>> {
    let now = tx.now();
    let sql = format!(
        "select distinct s.op_id from steps s join operations o on o.id = s.op_id \
         where s.state = 'running' and {} and o.state in ('cancelled', 'failed') order by s.op_id",
        is_over("s.lease_until", "$1")
    );
    let rows = tx.fetch_rows(dynamic_query(sql).bind(now)).await?;
    rows.iter().map(|row| row::parsed_column(row, "op_id")).collect()
}

/// Tenants with a pending or running step of any operation.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn unfinished_tenants(tx: &mut ReadTx) -> Result<Vec<TenantId>> {
    let sql = "select distinct tenant_id from steps where state in ('pending', 'running') order by tenant_id";
    let rows = tx.fetch_rows(sqlx::query(sql)).await?;
    rows.iter().map(|row| row::parsed_column(row, "tenant_id")).collect()
}

/// True when the tenant has a pending or running step of any operation.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn has_unfinished(tx: &mut ReadTx, tenant: TenantId) -> Result<bool> {
    let sql = "select 1 as found from steps where tenant_id = $1 and state in ('pending', 'running') limit 1";
    Ok(tx.fetch_row(sqlx::query(sql).bind(tenant.to_string())).await?.is_some())
}

/// True when an operation other than `except` still has work on a tenant, now or after a pause between two attempts.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn is_awaited(tx: &mut ReadTx, tenant: TenantId, except: OperationId) -> Result<bool> {
    let sql = "select 1 as found from steps where tenant_id = $1 and op_id <> $2 and state in ('pending', 'running') \
               limit 1";
    Ok(tx.fetch_row(sqlx::query(sql).bind(tenant.to_string()).bind(except.to_string())).await?.is_some())
}

/// True when an operation other than `except` stopped in the middle of a tenant and will continue. A step that only
/// waits for its turn does not count: a rollout may wait for days.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn is_in_progress(tx: &mut ReadTx, tenant: TenantId, except: OperationId) -> Result<bool> {
    let sql = "select 1 as found from steps where tenant_id = $1 and op_id <> $2 and \
               (state = 'running' or (state = 'pending' and phase <> '')) limit 1";
    Ok(tx.fetch_row(sqlx::query(sql).bind(tenant.to_string()).bind(except.to_string())).await?.is_some())
}

/// The facts of failed or cancelled steps on a tenant, without those of `except`. The last submitted operation is
/// first.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn last_facts(tx: &mut ReadTx, tenant: TenantId, except: OperationId) -> Result<Vec<(OperationId, String)>> {
    let sql = "select s.op_id, s.facts from steps s join operations o on o.id = s.op_id \
               where s.tenant_id = $1 and s.op_id <> $2 and s.phase <> '' and s.state in ('failed', 'cancelled', 'skipped') \
               order by o.seq desc, o.id desc limit 20";
    let rows = tx.fetch_rows(sqlx::query(sql).bind(tenant.to_string()).bind(except.to_string())).await?;
    rows.iter().map(|row| Ok((row::parsed_column(row, "op_id")?, row::text_column(row, "facts")?))).collect()
}

/// The step of an operation on a tenant; `None` when there is none.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn get(tx: &mut ReadTx, op: OperationId, tenant: TenantId) -> Result<Option<StepRecord>> {
    let sql = format!("select {COLUMNS} from steps where op_id = $1 and tenant_id = $2");
    let row = tx.fetch_row(dynamic_query(sql).bind(op.to_string()).bind(tenant.to_string())).await?;
    row.as_ref().map(step_from_row).transpose()
}

/// A page in the order of tenant ids after `after`, with each tenant's name. Filters by `states` unless empty.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_steps(
    tx: &mut ReadTx,
    op: OperationId,
    states: &[StepState],
    after: Option<TenantId>,
    page_limit: u32,
) -> Result<Vec<(StepRecord, String)>> {
    let states = match states {
        [] => String::new(),
        some => format!("and s.state in ({})", text_enum::quoted_list(some)),
    };
    let columns = COLUMNS.split(", ").map(|column| format!("s.{}", column.trim())).collect::<Vec<_>>().join(", ");
    // The empty text sorts before every id.
    let sql = format!(
        "select {columns}, t.name as tenant_name from steps s join tenants t on t.id = s.tenant_id \
         where s.op_id = $1 and s.tenant_id > $2 {states} order by s.tenant_id limit $3"
    );
    let sql = dynamic_query(sql).bind(op.to_string()).bind(after.map(|id| id.to_string()).unwrap_or_default());
    let rows = tx.fetch_rows(sql.bind(bulk::capped_limit(page_limit))).await?;
    rows.iter().map(|row| Ok((step_from_row(row)?, row::text_column(row, "tenant_name")?))).collect()
}

/// The operation and the tenant whose slot it holds.
type TenantSlot = (OperationId, TenantId);

/// A condition that excludes the tenants in `held`; their arguments begin with this number.
fn not_held(column: &str, first: usize, held: &[TenantId]) -> String {
    match held {
        [] => String::new(),
        some => format!("and {column} not in ({})", bulk::placeholder_list(first, some.len())),
    }
}

fn bind_held<'q>(sql: SqlQuery<'q>, held: &[TenantId]) -> SqlQuery<'q> {
    held.iter().fold(sql, |sql, tenant| sql.bind(tenant.to_string()))
}

fn bind_slots<'q>(sql: SqlQuery<'q>, slots: &[TenantSlot]) -> SqlQuery<'q> {
    slots.iter().fold(sql, |sql, (op, tenant)| sql.bind(op.to_string()).bind(tenant.to_string()))
}

fn step_from_row(row: &AnyRow) -> Result<StepRecord> {
    Ok(StepRecord {
        op_id: row::parsed_column(row, "op_id")?,
        tenant_id: row::parsed_column(row, "tenant_id")?,
        state: row::enum_column(row, "state")?,
        phase: row::text_column(row, "phase")?,
        facts: row::text_column(row, "facts")?,
        attempt: row::int_column(row, "attempt")?,
        deaths: row::int_column(row, "deaths")?,
        not_before: row::int_column(row, "not_before")?,
        lease_owner: row::nullable_text(row, "lease_owner")?,
        lease_epoch: row::int_column(row, "lease_epoch")?,
        lease_until: row::nullable_int(row, "lease_until")?,
        error_code: row::nullable_text(row, "error_code")?,
        error: row::nullable_text(row, "error")?,
        started_at: row::nullable_int(row, "started_at")?,
        finished_at: row::nullable_int(row, "finished_at")?,
    })
}
