//! Steps: an operation on one tenant. Claimed with a lease, recorded only by the holder of the live lease.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::bulk::{self, INT, Sql, TEXT, built, chunks, rounds, values};
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::{OperationId, TenantId};
use crate::operations::{self, OperationState};
use crate::row;
use crate::word::{self, Word};

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

const COLUMNS: &str = "op_id, tenant_id, state, phase, facts, attempt, not_before, lease_owner, lease_epoch, lease_until, \
    error_code, error, started_at, finished_at";

impl Word for StepState {
    const NOUN: &'static str = "state of a step";
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Pending, "pending"),
        (Self::Running, "running"),
        (Self::Succeeded, "succeeded"),
        (Self::Failed, "failed"),
        (Self::Cancelled, "cancelled"),
    ];
}

/// Claims up to `limit` steps of an operation that are due, whose lease is free or expired and whose tenant is free or
/// already this operation's, and takes the tenants' slots in the same transaction. Expired ones come first.
/// An operation that is not pending or running gets nothing.
///
/// # Errors
/// `NotFound` for the operation.
pub async fn claim(
    tx: &mut WriteTx,
    op: OperationId,
    owner: &str,
    lease_until: i64,
    limit: i64,
) -> Result<Vec<StepRecord>> {
    let operation = operations::get(tx, op).await?.ok_or_else(|| operations::missing(op))?;
    if !matches!(operation.state, OperationState::Pending | OperationState::Running) {
        return Ok(Vec::new());
    }
    let lease = Lease { op, owner, until: lease_until };
    let mut claimed = claim_where(tx, &lease, "s.state = 'running' and s.lease_until <= $4", limit).await?;
    let left = limit - i64::try_from(claimed.len()).unwrap_or(i64::MAX);
    if left > 0 {
        claimed.extend(claim_where(tx, &lease, "s.state = 'pending' and s.not_before <= $4", left).await?);
    }
    if claimed.is_empty() {
        return Ok(claimed);
    }
    claimed.sort_unstable_by_key(|step| step.tenant_id);
    let slots: Vec<Slot> = claimed.iter().map(|step| (op, step.tenant_id)).collect();
    take_slots(tx, &slots).await?;
    if operation.state == OperationState::Pending {
        let now = tx.now();
        let sql = "update operations set state = 'running', started_at = coalesce(started_at, $2) where id = $1";
        tx.run(sqlx::query(sql).bind(op.to_string()).bind(now)).await?;
    }
    Ok(claimed)
}

/// Writes each outcome whose step is still held under its epoch; returns, in order, whether it was.
/// The caller applies the effects of those only. Two outcomes of one step are applied in their order.
/// A retry of a cancelled operation's step is its end.
///
/// # Errors
/// `Unavailable`.
pub async fn record(tx: &mut WriteTx, outcomes: &[StepOutcome]) -> Result<Vec<bool>> {
    let mut applied = vec![false; outcomes.len()];
    let numbered: Vec<(usize, &StepOutcome)> = outcomes.iter().enumerate().collect();
    for round in rounds(&numbered, |(_, outcome)| (outcome.op_id, outcome.tenant_id)) {
        for chunk in chunks(&round) {
            let held = record_chunk(tx, chunk).await?;
            let mut free = Vec::new();
            for (number, outcome) in chunk {
                let slot = (outcome.op_id, outcome.tenant_id);
                applied[*number] = held.contains(&slot);
                if applied[*number] && !matches!(outcome.result, StepResult::Next { .. }) {
                    free.push(slot);
                }
            }
            free_slots(tx, &free).await?;
        }
    }
    Ok(applied)
}

/// Which of these claims are still live, without changing them: asked before effects are applied.
///
/// # Errors
/// `Unavailable`.
pub async fn live(tx: &mut ReadTx, claims: &[(OperationId, TenantId, i64)]) -> Result<Vec<bool>> {
    let mut held = HashSet::new();
    for chunk in chunks(claims) {
        let sql = format!(
            "with v(op_id, tenant_id, epoch) as ({}) select s.op_id, s.tenant_id, s.lease_epoch from v join steps s \
             on s.op_id = v.op_id and s.tenant_id = v.tenant_id and s.lease_epoch = v.epoch and s.state = 'running'",
            values(chunk.len(), &[TEXT, TEXT, INT])
        );
        let sql = chunk.iter().fold(built(sql), |sql, (op, tenant, epoch)| {
            sql.bind(op.to_string()).bind(tenant.to_string()).bind(*epoch)
        });
        for row in tx.all(sql).await? {
            let claim: (OperationId, TenantId, i64) =
                (row::parsed(&row, "op_id")?, row::parsed(&row, "tenant_id")?, row::int(&row, "lease_epoch")?);
            held.insert(claim);
        }
    }
    Ok(claims.iter().map(|claim| held.contains(claim)).collect())
}

/// Extends all live leases of a worker; returns how many. An expired one is not extended: it may be another's already.
///
/// # Errors
/// `Unavailable`.
pub async fn renew(tx: &mut WriteTx, owner: &str, lease_until: i64) -> Result<i64> {
    let now = tx.now();
    let sql = "update steps set lease_until = $2 where state = 'running' and lease_owner = $1 and lease_until > $3";
    tx.run(sqlx::query(sql).bind(owner.to_owned()).bind(lease_until).bind(now)).await
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

/// Sets failed steps of an operation to pending again (and the operation to running); returns how many.
///
/// # Errors
/// `NotFound`.
pub async fn retry_failed(tx: &mut WriteTx, op: OperationId) -> Result<i64> {
    operations::get(tx, op).await?.ok_or_else(|| operations::missing(op))?;
    let sql = "update steps set state = 'pending', attempt = 0, not_before = 0, error_code = null, error = null, \
               finished_at = null where op_id = $1 and state = 'failed'";
    let again = tx.run(sqlx::query(sql).bind(op.to_string())).await?;
    if again > 0 {
        let sql = "update operations set state = 'running', finished_at = null, error_code = null, error = null \
                   where id = $1";
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

struct Lease<'a> {
    op: OperationId,
    owner: &'a str,
    until: i64,
}

async fn claim_where(tx: &mut WriteTx, lease: &Lease<'_>, due: &str, limit: i64) -> Result<Vec<StepRecord>> {
    let sql = format!(
        "update steps set state = 'running', lease_owner = $2, lease_until = $3, lease_epoch = lease_epoch + 1, \
         attempt = attempt + 1, started_at = coalesce(started_at, $4) where op_id = $1 and tenant_id in \
         (select s.tenant_id from steps s join tenants t on t.id = s.tenant_id where s.op_id = $1 and {due} \
          and (t.op_id is null or t.op_id = $1) order by s.tenant_id limit $5) returning {COLUMNS}"
    );
    let now = tx.now();
    let sql = built(sql).bind(lease.op.to_string()).bind(lease.owner.to_owned()).bind(lease.until).bind(now);
    tx.all(sql.bind(limit)).await?.iter().map(step).collect()
}

async fn take_slots(tx: &mut WriteTx, slots: &[Slot]) -> Result<()> {
    for chunk in chunks(slots) {
        let sql = format!(
            "with v(op_id, tenant_id) as ({}) update tenants set op_id = v.op_id from v where tenants.id = v.tenant_id",
            values(chunk.len(), &[TEXT, TEXT])
        );
        tx.run(bind_slots(built(sql), chunk)).await?;
    }
    Ok(())
}

async fn free_slots(tx: &mut WriteTx, slots: &[Slot]) -> Result<()> {
    for chunk in chunks(slots) {
        let sql = format!(
            "with v(op_id, tenant_id) as ({}) update tenants set op_id = null from v \
             where tenants.id = v.tenant_id and tenants.op_id = v.op_id",
            values(chunk.len(), &[TEXT, TEXT])
        );
        tx.run(bind_slots(built(sql), chunk)).await?;
    }
    Ok(())
}

fn bind_slots<'q>(sql: Sql<'q>, slots: &[Slot]) -> Sql<'q> {
    slots.iter().fold(sql, |sql, (op, tenant)| sql.bind(op.to_string()).bind(tenant.to_string()))
}

/// Applies one statement's worth of outcomes, each of another step; returns the steps it applied to.
async fn record_chunk(tx: &mut WriteTx, outcomes: &[&(usize, &StepOutcome)]) -> Result<HashSet<Slot>> {
    let types = [TEXT, TEXT, TEXT, INT, TEXT, TEXT, TEXT, INT, TEXT, TEXT, INT];
    let sql = format!(
        "with v(op_id, tenant_id, owner, epoch, new_state, phase, facts, not_before, code, message, finished) as ({}) \
         update steps set \
           state = case when v.new_state = 'pending' and (select o.state from operations o where o.id = steps.op_id) \
             in ('cancelled', 'failed') then 'cancelled' else v.new_state end, \
           phase = coalesce(v.phase, steps.phase), facts = coalesce(v.facts, steps.facts), \
           attempt = case when v.new_state = 'running' then 0 else attempt end, \
           not_before = coalesce(v.not_before, steps.not_before), \
           lease_owner = case when v.new_state = 'running' then lease_owner else null end, \
           lease_until = case when v.new_state = 'running' then lease_until else null end, \
           error_code = v.code, error = v.message, finished_at = v.finished \
         from v where steps.op_id = v.op_id and steps.tenant_id = v.tenant_id and steps.state = 'running' \
         and steps.lease_owner = v.owner and steps.lease_epoch = v.epoch returning steps.op_id, steps.tenant_id",
        values(outcomes.len(), &types)
    );
    let now = tx.now();
    let sql = outcomes.iter().fold(built(sql), |sql, (_, outcome)| bind_outcome(sql, outcome, now));
    let rows = tx.all(sql).await?;
    rows.iter().map(|row| Ok((row::parsed(row, "op_id")?, row::parsed(row, "tenant_id")?))).collect()
}

/// What an outcome writes; `None` leaves phase, facts and time alone.
#[derive(Default)]
struct Change {
    state: Option<StepState>,
    phase: Option<String>,
    facts: Option<String>,
    not_before: Option<i64>,
    code: Option<String>,
    message: Option<String>,
    finished: Option<i64>,
}

impl Change {
    fn of(result: &StepResult, now: i64) -> Self {
        match result.clone() {
            StepResult::Next { phase, facts } => {
                Self { state: Some(StepState::Running), phase: Some(phase), facts: Some(facts), ..Self::default() }
            }
            StepResult::Done { facts } => {
                Self { state: Some(StepState::Succeeded), facts: Some(facts), finished: Some(now), ..Self::default() }
            }
            StepResult::Retry { not_before, code, message } => Self {
                state: Some(StepState::Pending),
                not_before: Some(not_before),
                code: Some(code),
                message: Some(message),
                ..Self::default()
            },
            StepResult::Failed { code, message } => Self {
                state: Some(StepState::Failed),
                code: Some(code),
                message: Some(message),
                finished: Some(now),
                ..Self::default()
            },
        }
    }
}

fn bind_outcome<'q>(sql: Sql<'q>, outcome: &StepOutcome, now: i64) -> Sql<'q> {
    let change = Change::of(&outcome.result, now);
    sql.bind(outcome.op_id.to_string())
        .bind(outcome.tenant_id.to_string())
        .bind(outcome.lease_owner.clone())
        .bind(outcome.lease_epoch)
        .bind(change.state.map(|state| state.word()))
        .bind(change.phase)
        .bind(change.facts)
        .bind(change.not_before)
        .bind(change.code)
        .bind(change.message)
        .bind(change.finished)
}

fn step(row: &AnyRow) -> Result<StepRecord> {
    Ok(StepRecord {
        op_id: row::parsed(row, "op_id")?,
        tenant_id: row::parsed(row, "tenant_id")?,
        state: row::word(row, "state")?,
        phase: row::text(row, "phase")?,
        facts: row::text(row, "facts")?,
        attempt: row::int(row, "attempt")?,
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
