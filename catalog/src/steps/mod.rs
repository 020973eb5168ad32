//! Steps: an operation on one tenant. Claimed with a lease, recorded only by the holder of the live lease.

mod claim;
mod record;

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::bulk::{self, Sql, built};
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::{OperationId, TenantId};
use crate::operations;
use crate::row;
use crate::word::{self, Word};

pub use claim::{Claimant, DEATHS_ALONE, claim, expect_exit, live, renew};
pub use record::record;

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
    /// Not run, because the tenant had left the selection; the reason is in the error.
    Skipped,
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
    /// How often its process died since the last success of a phase.
    pub deaths: i64,
    /// Not to be claimed before, milliseconds since 1970.
    pub not_before: i64,
    /// The worker that holds it.
    pub lease_owner: Option<String>,
    /// Counts the claims.
    pub lease_epoch: i64,
    /// Until when, milliseconds since 1970.
    pub lease_until: Option<i64>,
    /// Of the last failure, or why it was skipped.
    pub error_code: Option<String>,
    /// Of the last failure, or why it was skipped.
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
    /// Given back before it began; lease and slot are freed, and the claim does not count as an attempt.
    HandedBack {
        /// Why.
        code: String,
        /// Why.
        message: String,
    },
    /// Not run, because the tenant had left; lease and slot are freed.
    Skipped {
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

const COLUMNS: &str = "op_id, tenant_id, state, phase, facts, attempt, deaths, not_before, lease_owner, lease_epoch, lease_until, \
    error_code, error, started_at, finished_at";

impl Word for StepState {
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

/// When the next step of any open operation becomes due or its lease expires, milliseconds since 1970; never before now.
/// A step whose tenant is busy with another operation does not count: the end of that one is what it waits for.
///
/// # Errors
/// `Unavailable`.
pub async fn next_due(tx: &mut ReadTx) -> Result<Option<i64>> {
    let mut due = None;
    for (column, state) in [("not_before", "pending"), ("lease_until", "running")] {
        let sql = format!(
            "select s.{column} as due from steps s join operations o on o.id = s.op_id \
             join tenants t on t.id = s.tenant_id where s.state = '{state}' and o.state in ('pending', 'running') \
             and (t.op_id is null or t.op_id = s.op_id) order by s.{column} limit 1"
        );
        if let Some(row) = tx.one(built(sql)).await? {
            let found = row::int(&row, "due")?;
            due = Some(due.map_or(found, |due: i64| due.min(found)));
        }
    }
    let now = tx.now();
    Ok(due.map(|due| due.max(now)))
}

/// Sets failed steps of an operation to pending again (and the operation to running, unless it is paused); returns how
/// many.
///
/// # Errors
/// `NotFound`.
pub async fn retry_failed(tx: &mut WriteTx, op: OperationId) -> Result<i64> {
    operations::get(tx, op).await?.ok_or_else(|| operations::missing(op))?;
    let sql = "update steps set state = 'pending', attempt = 0, deaths = 0, not_before = 0, error_code = null, error = null, \
               finished_at = null where op_id = $1 and state = 'failed'";
    let again = tx.run(sqlx::query(sql).bind(op.to_string())).await?;
    if again > 0 {
        let sql = "update operations set state = case when state = 'paused' then state else 'running' end, \
                   finished_at = null, error_code = null, error = null where id = $1";
        tx.run(sqlx::query(sql).bind(op.to_string())).await?;
    }
    Ok(again)
}

/// Cancels every step that no one holds (a lease that expired counts as not held); returns how many.
///
/// # Errors
/// `Unavailable`.
pub async fn cancel_pending(tx: &mut WriteTx, op: OperationId) -> Result<i64> {
    let now = tx.now();
    let sql = "update steps set state = 'cancelled', finished_at = $2, lease_owner = null, lease_until = null \
               where op_id = $1 and (state = 'pending' or (state = 'running' and lease_until <= $2))";
    let cancelled = tx.run(sqlx::query(sql).bind(op.to_string()).bind(now)).await?;
    let sql = "update tenants set op_id = null where op_id = $1 and id not in \
               (select tenant_id from steps where op_id = $1 and state = 'running')";
    tx.run(sqlx::query(sql).bind(op.to_string())).await?;
    Ok(cancelled)
}

/// Operations that were ended while a worker held a step of theirs that never came back: their leases have expired.
/// [`cancel_pending`] and then [`operations::finish_if_done`] free the tenants they still hold.
///
/// # Errors
/// `Unavailable`.
pub async fn abandoned(tx: &mut ReadTx) -> Result<Vec<OperationId>> {
    let now = tx.now();
    let sql = "select distinct s.op_id from steps s join operations o on o.id = s.op_id \
               where s.state = 'running' and s.lease_until <= $1 and o.state in ('cancelled', 'failed') order by s.op_id";
    let rows = tx.all(sqlx::query(sql).bind(now)).await?;
    rows.iter().map(|row| row::parsed(row, "op_id")).collect()
}

/// The tenants of steps that are still to run or running, of whatever operation.
///
/// # Errors
/// `Unavailable`.
pub async fn unfinished_tenants(tx: &mut ReadTx) -> Result<Vec<TenantId>> {
    let sql = "select distinct tenant_id from steps where state in ('pending', 'running') order by tenant_id";
    let rows = tx.all(sqlx::query(sql)).await?;
    rows.iter().map(|row| row::parsed(row, "tenant_id")).collect()
}

/// True when a step on this tenant is still to run or running, of whatever operation.
///
/// # Errors
/// `Unavailable`.
pub async fn has_unfinished(tx: &mut ReadTx, tenant: TenantId) -> Result<bool> {
    let sql = "select 1 as found from steps where tenant_id = $1 and state in ('pending', 'running') limit 1";
    Ok(tx.one(sqlx::query(sql).bind(tenant.to_string())).await?.is_some())
}

/// Whether an operation other than `except` has still something to do about a tenant, now or between two attempts.
///
/// # Errors
/// `Unavailable`.
pub async fn awaited(tx: &mut ReadTx, tenant: TenantId, except: OperationId) -> Result<bool> {
    let sql = "select 1 as found from steps where tenant_id = $1 and op_id <> $2 and state in ('pending', 'running') \
               limit 1";
    Ok(tx.one(sqlx::query(sql).bind(tenant.to_string()).bind(except.to_string())).await?.is_some())
}

/// Whether an operation other than `except` stopped in the middle of a tenant and will go on. One that only waits for
/// its turn is not in the middle of anything: a rollout may wait for days.
///
/// # Errors
/// `Unavailable`.
pub async fn in_the_middle(tx: &mut ReadTx, tenant: TenantId, except: OperationId) -> Result<bool> {
    let sql = "select 1 as found from steps where tenant_id = $1 and op_id <> $2 and \
               (state = 'running' or (state = 'pending' and phase <> '')) limit 1";
    Ok(tx.one(sqlx::query(sql).bind(tenant.to_string()).bind(except.to_string())).await?.is_some())
}

/// What the steps of other operations than `except` that came to nothing noted of a tenant, the operation that was
/// submitted last first.
///
/// # Errors
/// `Unavailable`.
pub async fn last_facts(tx: &mut ReadTx, tenant: TenantId, except: OperationId) -> Result<Vec<String>> {
    let sql = "select s.facts from steps s join operations o on o.id = s.op_id \
               where s.tenant_id = $1 and s.op_id <> $2 and s.phase <> '' and s.state in ('failed', 'cancelled', 'skipped') \
               order by o.seq desc, o.id desc limit 20";
    let rows = tx.all(sqlx::query(sql).bind(tenant.to_string()).bind(except.to_string())).await?;
    rows.iter().map(|row| row::text(row, "facts")).collect()
}

/// One step.
///
/// # Errors
/// `Unavailable`.
pub async fn get(tx: &mut ReadTx, op: OperationId, tenant: TenantId) -> Result<Option<StepRecord>> {
    let sql = format!("select {COLUMNS} from steps where op_id = $1 and tenant_id = $2");
    let row = tx.one(built(sql).bind(op.to_string()).bind(tenant.to_string())).await?;
    row.as_ref().map(step).transpose()
}

/// A page in the order of tenant ids, with each tenant's name, beginning after `after`; in one of `states` unless empty.
///
/// # Errors
/// `Unavailable`.
pub async fn page(
    tx: &mut ReadTx,
    op: OperationId,
    states: &[StepState],
    after: Option<TenantId>,
    page_limit: u32,
) -> Result<Vec<(StepRecord, String)>> {
    let states = match states {
        [] => String::new(),
        some => format!("and s.state in ({})", word::list(some)),
    };
    let columns = COLUMNS.split(", ").map(|column| format!("s.{}", column.trim())).collect::<Vec<_>>().join(", ");
    // The empty text comes before every id.
    let sql = format!(
        "select {columns}, t.name as tenant_name from steps s join tenants t on t.id = s.tenant_id \
         where s.op_id = $1 and s.tenant_id > $2 {states} order by s.tenant_id limit $3"
    );
    let sql = built(sql).bind(op.to_string()).bind(after.map(|id| id.to_string()).unwrap_or_default());
    let rows = tx.all(sql.bind(bulk::limit(page_limit))).await?;
    rows.iter().map(|row| Ok((step(row)?, row::text(row, "tenant_name")?))).collect()
}

/// A tenant's slot, and the operation it is about.
type Slot = (OperationId, TenantId);

fn bind_slots<'q>(sql: Sql<'q>, slots: &[Slot]) -> Sql<'q> {
    slots.iter().fold(sql, |sql, (op, tenant)| sql.bind(op.to_string()).bind(tenant.to_string()))
}

fn step(row: &AnyRow) -> Result<StepRecord> {
    Ok(StepRecord {
        op_id: row::parsed(row, "op_id")?,
        tenant_id: row::parsed(row, "tenant_id")?,
        state: row::word(row, "state")?,
        phase: row::text(row, "phase")?,
        facts: row::text(row, "facts")?,
        attempt: row::int(row, "attempt")?,
        deaths: row::int(row, "deaths")?,
        not_before: row::int(row, "not_before")?,
        lease_owner: row::text_or_null(row, "lease_owner")?,
        lease_epoch: row::int(row, "lease_epoch")?,
        lease_until: row::int_or_null(row, "lease_until")?,
        error_code: row::text_or_null(row, "error_code")?,
        error: row::text_or_null(row, "error")?,
        started_at: row::int_or_null(row, "started_at")?,
        finished_at: row::int_or_null(row, "finished_at")?,
    })
}
