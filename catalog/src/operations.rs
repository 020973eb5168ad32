//! Operations: pieces of fleet work. How far one is is counted from its steps, never stored.
//!
//! Which of two was submitted first is told by `seq`: ids and times come from the clocks of processes.

mod ending;

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::bulk::{TEXT, built, chunks, limit, values};
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{OperationId, ReleaseId, TenantId};
use crate::row;
use crate::steps::{self, StepState};
use crate::tenants::bind_ids;
use crate::word::{self, Word};

pub use ending::{LeftOut, Progress, WhenLeft};
use ending::{end_at_once, insert_skipped};

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
    /// What becomes of a tenant that leaves before its step begins.
    pub when_left: WhenLeft,
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
    /// Their steps are skipped from the start.
    pub left_out: Vec<LeftOut>,
    /// Steps at once.
    pub concurrency: i64,
    /// What becomes of a tenant that leaves before its step begins.
    pub when_left: WhenLeft,
    /// The actor.
    pub requested_by: String,
    /// Given by a human.
    pub reason: Option<String>,
}

const COLUMNS: &str = "id, kind, state, params, release_id, steps_total, steps_skipped, concurrency, when_left, requested_by, reason, \
    created_at, started_at, finished_at, error_code, error";

impl Word for OperationState {
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

/// Writes the operation and its steps. With no step to run it has ended at once.
///
/// # Errors
/// `NotFound` for a tenant or the release; `AlreadyExists`.
pub async fn insert(tx: &mut WriteTx, new: &NewOperation) -> Result<OperationRecord> {
    let now = tx.now();
    let done = new.tenants.is_empty().then_some(now);
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
    for chunk in chunks(&new.tenants) {
        insert_steps(tx, new.id, chunk).await?;
    }
    for chunk in chunks(&new.left_out) {
        insert_skipped(tx, new.id, chunk).await?;
    }
    Ok(operation)
}

/// One operation.
///
/// # Errors
/// `Unavailable`.
pub async fn get(tx: &mut ReadTx, id: OperationId) -> Result<Option<OperationRecord>> {
    let sql = format!("select {COLUMNS} from operations where id = $1");
    tx.one(built(sql).bind(id.to_string())).await?.as_ref().map(record).transpose()
}

/// How many operations are in each state.
///
/// # Errors
/// `Unavailable`.
pub async fn count_by_state(tx: &mut ReadTx) -> Result<Vec<(OperationState, i64)>> {
    let sql = "select state, count(*) as operations from operations group by state order by state";
    let rows = tx.all(sqlx::query(sql)).await?;
    rows.iter().map(|row| Ok((row::word(row, "state")?, row::int(row, "operations")?))).collect()
}

/// Counted from its steps.
///
/// # Errors
/// `Unavailable`.
pub async fn progress(tx: &mut ReadTx, id: OperationId) -> Result<Progress> {
    let sql = "select state, count(*) as steps from steps where op_id = $1 group by state";
    let mut progress = Progress::default();
    for row in tx.all(sqlx::query(sql).bind(id.to_string())).await? {
        let counter = match row::word(&row, "state")? {
            StepState::Pending => &mut progress.pending,
            StepState::Running => &mut progress.running,
            StepState::Succeeded => &mut progress.succeeded,
            StepState::Failed => &mut progress.failed,
            StepState::Cancelled => &mut progress.cancelled,
            StepState::Skipped => &mut progress.skipped,
        };
        *counter = row::int(&row, "steps")?;
    }
    Ok(progress)
}

/// A page, newest first, beginning after (older than) `after`; in one of `states` unless empty; of one kind or tenant
/// when given.
///
/// # Errors
/// `Unavailable`.
pub async fn page(
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
        conditions.push(format!("state in ({})", word::list(states)));
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
    let sql = arguments.into_iter().fold(built(sql), |sql, argument| sql.bind(argument));
    tx.all(sql.bind(limit(page_limit))).await?.iter().map(record).collect()
}

/// Pending and running operations, oldest first: what a runner looks at.
///
/// # Errors
/// `Unavailable`.
pub async fn open(tx: &mut ReadTx) -> Result<Vec<OperationRecord>> {
    let sql = format!("select {COLUMNS} from operations where state in ('pending', 'running') order by seq, id");
    tx.all(built(sql)).await?.iter().map(record).collect()
}

/// Pauses, resumes or cancels: sets the state where it is one of `from`.
///
/// # Errors
/// `NotFound`; `Conflict` when it is in another state.
pub async fn set_state(
    tx: &mut WriteTx,
    id: OperationId,
    from: &[OperationState],
    to: OperationState,
) -> Result<OperationRecord> {
    let found = get(tx, id).await?.ok_or_else(|| missing(id))?;
    if !from.contains(&found.state) {
        let message =
            format!("operation {id} is {}, not {}", found.state.word(), word::list(from).replace(',', " or "));
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let sql = format!("update operations set state = $2 where id = $1 returning {COLUMNS}");
    let row = tx.one(built(sql).bind(id.to_string()).bind(to.word())).await?;
    record(&row.ok_or_else(|| missing(id))?)
}

/// If no step is pending or running any more, ends the operation (succeeded, partial, failed, cancelled) and returns
/// its record. `None`: it goes on, or it has ended before.
///
/// # Errors
/// `NotFound`.
pub async fn finish_if_done(tx: &mut WriteTx, id: OperationId) -> Result<Option<OperationRecord>> {
    // The usual answer, without counting: something is still open.
    let sql = "select 1 as found from steps where op_id = $1 and state in ('pending', 'running') limit 1";
    if tx.one(sqlx::query(sql).bind(id.to_string())).await?.is_some() {
        return Ok(None);
    }
    let found = get(tx, id).await?.ok_or_else(|| missing(id))?;
    if found.finished_at.is_some() {
        return Ok(None);
    }
    let progress = progress(tx, id).await?;
    let outcome = progress.outcome(&found);
    let error = progress.error(&found).filter(|_| outcome == OperationState::Failed);
    let now = tx.now();
    let sql = format!(
        "update operations set state = $2, finished_at = $3, error_code = $4, error = $5 where id = $1 \
         returning {COLUMNS}"
    );
    let sql = built(sql).bind(id.to_string()).bind(outcome.word()).bind(now);
    let sql = sql.bind(error.as_ref().map(|(code, _)| (*code).to_owned())).bind(error.map(|(_, text)| text));
    let row = tx.one(sql).await?;
    row.as_ref().map(record).transpose()
}

/// Ends an operation that failed as a whole, whatever its steps are at; those that no one holds are cancelled.
///
/// # Errors
/// `NotFound`.
pub async fn fail(tx: &mut WriteTx, id: OperationId, code: &str, message: &str) -> Result<OperationRecord> {
    let now = tx.now();
    let sql = format!(
        "update operations set state = 'failed', finished_at = $2, error_code = $3, error = $4 where id = $1 \
         returning {COLUMNS}"
    );
    let sql = built(sql).bind(id.to_string()).bind(now).bind(code.to_owned()).bind(message.to_owned());
    let row = tx.one(sql).await?.ok_or_else(|| missing(id))?;
    steps::cancel_pending(tx, id).await?;
    record(&row)
}

/// Whether `one` was submitted after `other`. One that the catalog does not know was not.
///
/// # Errors
/// `Unavailable`.
pub async fn is_later(tx: &mut ReadTx, one: OperationId, other: OperationId) -> Result<bool> {
    let sql = "select 1 as found from operations a join operations b on b.id = $2 where a.id = $1 and a.seq > b.seq";
    Ok(tx.one(sqlx::query(sql).bind(one.to_string()).bind(other.to_string())).await?.is_some())
}

/// The error about an operation that is not there.
pub(crate) fn missing(id: OperationId) -> Error {
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
        .bind(operation.state.word())
        .bind(operation.params.clone())
        .bind(operation.release_id.map(|id| id.to_string()))
        .bind(operation.steps_total)
        .bind(operation.steps_skipped)
        .bind(operation.concurrency)
        .bind(operation.requested_by.clone())
        .bind(operation.reason.clone())
        .bind(operation.created_at)
        .bind(operation.finished_at)
        .bind(operation.when_left.word())
        .bind(operation.error_code.clone())
        .bind(operation.error.clone());
    tx.run(sql).await.map(|_| ())
}

async fn insert_steps(tx: &mut WriteTx, id: OperationId, tenants: &[TenantId]) -> Result<()> {
    let sql = format!(
        "with v(tenant_id) as ({}) insert into steps (op_id, tenant_id, state, phase, facts, attempt, not_before, \
         lease_epoch) select cast(${} as text), tenant_id, 'pending', '', '{{}}', 0, 0, 0 from v",
        values(tenants.len(), &[TEXT]),
        tenants.len() + 1
    );
    let sql = bind_ids(built(sql), tenants).bind(id.to_string());
    tx.run(sql).await.map(|_| ())
}

fn record(row: &AnyRow) -> Result<OperationRecord> {
    Ok(OperationRecord {
        id: row::parsed(row, "id")?,
        kind: row::text(row, "kind")?,
        state: row::word(row, "state")?,
        params: row::text(row, "params")?,
        release_id: row::id_or_null(row, "release_id")?,
        steps_total: row::int(row, "steps_total")?,
        steps_skipped: row::int(row, "steps_skipped")?,
        concurrency: row::int(row, "concurrency")?,
        when_left: row::word(row, "when_left")?,
        requested_by: row::text(row, "requested_by")?,
        reason: row::text_or_null(row, "reason")?,
        created_at: row::int(row, "created_at")?,
        started_at: row::int_or_null(row, "started_at")?,
        finished_at: row::int_or_null(row, "finished_at")?,
        error_code: row::text_or_null(row, "error_code")?,
        error: row::text_or_null(row, "error")?,
    })
}
