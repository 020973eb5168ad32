//! Operations: work on the fleet. The progress of an operation is counted from its steps, never stored.
//!
//! `seq` tells which of two operations was submitted first, because ids and times come from the clocks of processes.

mod ending;

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::bulk::{TEXT, capped_limit, dynamic_query, sized_chunks, values_clause};
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{OperationId, ReleaseId, TenantId};
use crate::row;
use crate::steps::{self, StepState};
use crate::tenants::bind_ids;
use crate::text_enum::{self, TextEnum};

pub use ending::{LeftOut, OperationProgress, WhenLeft};
use ending::{end_at_once, insert_skipped_steps};

/// The state of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// No step has been claimed yet.
    Pending,
    /// Steps are running.
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
    /// The id, which never changes.
    pub id: OperationId,
    /// The file of the control plane's `operations/` that runs it.
    pub kind: String,
    /// The operation's state.
    pub state: OperationState,
    /// Parameters as JSON, defined by the kind.
    pub params: String,
    /// The migration set that the operation needs.
    pub release_id: Option<ReleaseId>,
    /// Number of tenants with a step.
    pub steps_total: i64,
    /// Number of tenants that needed no work.
    pub steps_skipped: i64,
    /// Maximum number of steps at once.
    pub concurrency: i64,
    /// What happens to a tenant that leaves before its step begins.
    pub when_left: WhenLeft,
    /// The actor that requested the operation.
    pub requested_by: String,
    /// The actor's reason, for the audit log.
    pub reason: Option<String>,
    /// Time of submission, milliseconds since 1970.
    pub created_at: i64,
    /// Start of the first step, milliseconds since 1970.
    pub started_at: Option<i64>,
    /// Time of its end, milliseconds since 1970.
    pub finished_at: Option<i64>,
    /// Error code of the operation itself, not of a step.
    pub error_code: Option<String>,
    /// Error message of the operation itself, not of a step.
    pub error: Option<String>,
}

/// The initial values of a new operation.
#[derive(Debug, Clone)]
pub struct NewOperation {
    /// A new id, made by the caller.
    pub id: OperationId,
    /// The kind, as in [`OperationRecord::kind`].
    pub kind: String,
    /// Parameters as JSON, defined by the kind.
    pub params: String,
    /// The migration set that the operation needs.
    pub release_id: Option<ReleaseId>,
    /// Tenants that get one step each. Steps are claimed in the order of ids.
    pub tenants: Vec<TenantId>,
    /// Number of tenants that needed no work.
    pub skipped: i64,
    /// Tenants whose steps are skipped from the start.
    pub left_out: Vec<LeftOut>,
    /// Maximum number of steps at once.
    pub concurrency: i64,
    /// What happens to a tenant that leaves before its step begins.
    pub when_left: WhenLeft,
    /// The actor that requested the operation.
    pub requested_by: String,
    /// The actor's reason, for the audit log.
    pub reason: Option<String>,
}

const COLUMNS: &str = "id, kind, state, params, release_id, steps_total, steps_skipped, concurrency, when_left, requested_by, reason, \
    created_at, started_at, finished_at, error_code, error";

impl TextEnum for OperationState {
    const NOUN: &'static str = "state of an operation";
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Pending, "pending"),
        (Self::Running, "running"),
        (Self::Paused, "paused"),
        (Self::Succeeded, "succeeded"),
        (Self::Partial, "partial"),
        (Self::Failed, "failed"),
        (Self::Cancelled, "cancelled"),
    ];
}

/// Writes the operation and its steps. An operation without steps to run ends at once.
///
/// # Errors
/// `NotFound` for a tenant or the release; `AlreadyExists`.
pub async fn insert_operation(tx: &mut WriteTx, new: &NewOperation) -> Result<OperationRecord> {
    let done = new.tenants.is_empty().then_some(tx.now());
    insert_as(tx, new, done).await
}

/// As [`insert_operation`], for an operation with work before its first step. It does not end at once, even without
/// steps.
///
/// # Errors
/// As [`insert_operation`].
pub async fn insert_opening(tx: &mut WriteTx, new: &NewOperation) -> Result<OperationRecord> {
    insert_as(tx, new, None).await
}

async fn insert_as(tx: &mut WriteTx, new: &NewOperation, done: Option<i64>) -> Result<OperationRecord> {
    let now = tx.now();
    let mut operation = OperationRecord {
        id: new.id,
        kind: new.kind.clone(),
        state: OperationState::Pending,
        params: new.params.clone(),
        release_id: new.release_id,
        steps_total: i64::try_from(new.tenants.len() + new.left_out.len()).unwrap_or(i64::MAX),
        steps_skipped: new.skipped,
        concurrency: new.concurrency,
        when_left: new.when_left,
        requested_by: new.requested_by.clone(),
        reason: new.reason.clone(),
        created_at: now,
        started_at: done,
        finished_at: done,
        error_code: None,
        error: None,
    };
    if done.is_some() {
        end_at_once(&mut operation);
    }
    insert_row(tx, &operation).await?;
    for chunk in sized_chunks(&new.tenants) {
        insert_steps(tx, new.id, chunk).await?;
    }
    for chunk in sized_chunks(&new.left_out) {
        insert_skipped_steps(tx, new.id, chunk).await?;
    }
    Ok(operation)
}

/// The operation with this id; `None` when there is none.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn get(tx: &mut ReadTx, id: OperationId) -> Result<Option<OperationRecord>> {
    let sql = format!("select {COLUMNS} from operations where id = $1");
    tx.fetch_row(dynamic_query(sql).bind(id.to_string())).await?.as_ref().map(operation_from_row).transpose()
}

/// How many operations are in each state.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn count_by_state(tx: &mut ReadTx) -> Result<Vec<(OperationState, i64)>> {
    let sql = "select state, count(*) as operations from operations group by state order by state";
    let rows = tx.fetch_rows(sqlx::query(sql)).await?;
    rows.iter().map(|row| Ok((row::enum_column(row, "state")?, row::int_column(row, "operations")?))).collect()
}

/// The progress of an operation, counted from its steps.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn operation_progress(tx: &mut ReadTx, id: OperationId) -> Result<OperationProgress> {
    let sql = "select state, count(*) as steps from steps where op_id = $1 group by state";
    let mut progress = OperationProgress::default();
    for row in tx.fetch_rows(sqlx::query(sql).bind(id.to_string())).await? {
        let counter = match row::enum_column(&row, "state")? {
            StepState::Pending => &mut progress.pending,
            StepState::Running => &mut progress.running,
            StepState::Succeeded => &mut progress.succeeded,
            StepState::Failed => &mut progress.failed,
            StepState::Cancelled => &mut progress.cancelled,
            StepState::Skipped => &mut progress.skipped,
        };
        *counter = row::int_column(&row, "steps")?;
    }
    Ok(progress)
}

/// A page, newest first, of operations older than `after`. Filters by `states` unless empty, and by kind or tenant if
/// given.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_operations(
    tx: &mut ReadTx,
    states: &[OperationState],
    kind: Option<&str>,
    tenant: Option<TenantId>,
    after: Option<OperationId>,
    page_limit: u32,
) -> Result<Vec<OperationRecord>> {
    if let Some(after) = after
        && get(tx, after).await?.is_none()
    {
        let message = "the operation after which the page begins was removed: begin with the first page";
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    let mut conditions = vec!["1 = 1".to_owned()];
    let mut arguments = Vec::new();
    if !states.is_empty() {
        conditions.push(format!("state in ({})", text_enum::quoted_list(states)));
    }
    let narrowing = [
        ("kind =", kind.map(str::to_owned)),
        ("seq < (select seq from operations where id =", after.map(|id| id.to_string())),
        ("id in (select op_id from steps where tenant_id =", tenant.map(|id| id.to_string())),
    ];
    for (condition, argument) in narrowing {
        let Some(argument) = argument else { continue };
        arguments.push(argument);
        let close = if condition.contains('(') { ")" } else { "" };
        conditions.push(format!("{condition} ${}{close}", arguments.len()));
    }
    let sql = format!(
        "select {COLUMNS} from operations where {} order by seq desc, id desc limit ${}",
        conditions.join(" and "),
        arguments.len() + 1
    );
    let sql = arguments.into_iter().fold(dynamic_query(sql), |sql, argument| sql.bind(argument));
    tx.fetch_rows(sql.bind(capped_limit(page_limit))).await?.iter().map(operation_from_row).collect()
}

/// Pending and running operations, oldest first. The runner works on these.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn open_operations(tx: &mut ReadTx) -> Result<Vec<OperationRecord>> {
    let sql = format!("select {COLUMNS} from operations where state in ('pending', 'running') order by seq, id");
    tx.fetch_rows(dynamic_query(sql)).await?.iter().map(operation_from_row).collect()
}

/// Pauses, resumes or cancels: sets the state if the current state is in `from`.
///
/// # Errors
/// `NotFound` when the operation does not exist; `Conflict` when it is in another state.
pub async fn set_state(
    tx: &mut WriteTx,
    id: OperationId,
    from: &[OperationState],
    to: OperationState,
) -> Result<OperationRecord> {
    let found = get(tx, id).await?.ok_or_else(|| operation_not_found(id))?;
    if !from.contains(&found.state) {
        let message = format!(
            "operation {id} is {}, not {}",
            found.state.stored_text(),
            text_enum::quoted_list(from).replace(',', " or ")
        );
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let sql = format!("update operations set state = $2 where id = $1 returning {COLUMNS}");
    let row = tx.fetch_row(dynamic_query(sql).bind(id.to_string()).bind(to.stored_text())).await?;
    operation_from_row(&row.ok_or_else(|| operation_not_found(id))?)
}

/// Changes a pending operation to running, for work before its first step. True when it was pending.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn begin_operation(tx: &mut WriteTx, id: OperationId) -> Result<bool> {
    let sql = "update operations set state = 'running', started_at = coalesce(started_at, $2) \
               where id = $1 and state = 'pending'";
    let now = tx.now();
    Ok(tx.execute_sql(sqlx::query(sql).bind(id.to_string()).bind(now)).await? > 0)
}

/// Writes the result of the work before the first step, if the parameters are still `before` and the operation has not
/// ended. True when written.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn set_params(tx: &mut WriteTx, id: OperationId, before: &str, params: &str) -> Result<bool> {
    let sql = "update operations set params = $3 where id = $1 and params = $2 and finished_at is null \
               and state in ('pending', 'running', 'paused')";
    let sql = sqlx::query(sql).bind(id.to_string()).bind(before.to_owned()).bind(params.to_owned());
    Ok(tx.execute_sql(sql).await? > 0)
}

/// Ends the operation (succeeded, partial, failed, cancelled) if no step is pending or running. Returns its record, or
/// `None` if it continues or had already ended.
///
/// # Errors
/// `NotFound` when the operation does not exist.
pub async fn finish_if_done(tx: &mut WriteTx, id: OperationId) -> Result<Option<OperationRecord>> {
    // In most calls a step is still open, and this answer needs no counting.
    let sql = "select 1 as found from steps where op_id = $1 and state in ('pending', 'running') limit 1";
    if tx.fetch_row(sqlx::query(sql).bind(id.to_string())).await?.is_some() {
        return Ok(None);
    }
    let found = get(tx, id).await?.ok_or_else(|| operation_not_found(id))?;
    if found.finished_at.is_some() {
        return Ok(None);
    }
    let progress = operation_progress(tx, id).await?;
    let outcome = progress.end_state(&found);
    let error = progress.end_error(&found).filter(|_| outcome == OperationState::Failed);
    let now = tx.now();
    let sql = format!(
        "update operations set state = $2, finished_at = $3, error_code = $4, error = $5 where id = $1 \
         returning {COLUMNS}"
    );
    let sql = dynamic_query(sql).bind(id.to_string()).bind(outcome.stored_text()).bind(now);
    let sql = sql.bind(error.as_ref().map(|(code, _)| (*code).to_owned())).bind(error.map(|(_, text)| text));
    let row = tx.fetch_row(sql).await?;
    row.as_ref().map(operation_from_row).transpose()
}

/// Ends an operation that failed as a whole, in any state of its steps. Cancels the steps that no worker holds.
///
/// # Errors
/// `NotFound` when the operation does not exist.
pub async fn fail_operation(tx: &mut WriteTx, id: OperationId, code: &str, message: &str) -> Result<OperationRecord> {
    let now = tx.now();
    let sql = format!(
        "update operations set state = 'failed', finished_at = $2, error_code = $3, error = $4 where id = $1 \
         returning {COLUMNS}"
    );
    let sql = dynamic_query(sql).bind(id.to_string()).bind(now).bind(code.to_owned()).bind(message.to_owned());
    let row = tx.fetch_row(sql).await?.ok_or_else(|| operation_not_found(id))?;
    steps::cancel_pending(tx, id, &[]).await?;
    operation_from_row(&row)
}

/// True when `one` was submitted after `other`. False for an operation that is not in the catalog.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn is_later(tx: &mut ReadTx, one: OperationId, other: OperationId) -> Result<bool> {
    let sql = "select 1 as found from operations a join operations b on b.id = $2 where a.id = $1 and a.seq > b.seq";
    Ok(tx.fetch_row(sqlx::query(sql).bind(one.to_string()).bind(other.to_string())).await?.is_some())
}

/// The error for an operation that does not exist.
pub(crate) fn operation_not_found(id: OperationId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no operation {id}"))
}

async fn insert_row(tx: &mut WriteTx, operation: &OperationRecord) -> Result<()> {
    let sql = "insert into operations (id, kind, state, params, release_id, steps_total, steps_skipped, concurrency, \
               requested_by, reason, created_at, started_at, finished_at, when_left, error_code, error, seq) \
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13, $14, $15, \
               (select coalesce(max(seq), 0) + 1 from operations))";
    let sql = sqlx::query(sql)
        .bind(operation.id.to_string())
        .bind(operation.kind.clone())
        .bind(operation.state.stored_text())
        .bind(operation.params.clone())
        .bind(operation.release_id.map(|id| id.to_string()))
        .bind(operation.steps_total)
        .bind(operation.steps_skipped)
        .bind(operation.concurrency)
        .bind(operation.requested_by.clone())
        .bind(operation.reason.clone())
        .bind(operation.created_at)
        .bind(operation.finished_at)
        .bind(operation.when_left.stored_text())
        .bind(operation.error_code.clone())
        .bind(operation.error.clone());
    tx.execute_sql(sql).await.map(|_| ())
}

async fn insert_steps(tx: &mut WriteTx, id: OperationId, tenants: &[TenantId]) -> Result<()> {
    let sql = format!(
        "with v(tenant_id) as ({}) insert into steps (op_id, tenant_id, state, phase, facts, attempt, not_before, \
         lease_epoch) select cast(${} as text), tenant_id, 'pending', '', '{{}}', 0, 0, 0 from v",
        values_clause(tenants.len(), &[TEXT]),
        tenants.len() + 1
    );
    let sql = bind_ids(dynamic_query(sql), tenants).bind(id.to_string());
    tx.execute_sql(sql).await.map(|_| ())
}

fn operation_from_row(row: &AnyRow) -> Result<OperationRecord> {
    Ok(OperationRecord {
        id: row::parsed_column(row, "id")?,
        kind: row::text_column(row, "kind")?,
        state: row::enum_column(row, "state")?,
        params: row::text_column(row, "params")?,
        release_id: row::nullable_id(row, "release_id")?,
        steps_total: row::int_column(row, "steps_total")?,
        steps_skipped: row::int_column(row, "steps_skipped")?,
        concurrency: row::int_column(row, "concurrency")?,
        when_left: row::enum_column(row, "when_left")?,
        requested_by: row::text_column(row, "requested_by")?,
        reason: row::nullable_text(row, "reason")?,
        created_at: row::int_column(row, "created_at")?,
        started_at: row::nullable_int(row, "started_at")?,
        finished_at: row::nullable_int(row, "finished_at")?,
        error_code: row::nullable_text(row, "error_code")?,
        error: row::nullable_text(row, "error")?,
    })
}
