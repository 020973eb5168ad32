//! The tenants that have jobs, and when the next job of each is due.
//!
//! The jobs are in the tenants' own databases. These rows tell a runner which databases to open. A process that enqueues
//! writes a *mark* after its commit; a runner *claims* the queue of a tenant for a while and writes when its next job is due.
//! A process that dies between commit and mark leaves a row in `job_enqueuers`, and another process then looks into every
//! tenant's database (a *sweep*).

use sqlx::any::AnyRow;

use crate::bulk::{INT, TEXT, capped_limit, distinct_rounds, dynamic_query, sized_chunks, values_clause};
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::{Generation, TenantId};
use crate::row;
use crate::tenant::TenantState;

/// A tenant's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobQueueRecord {
    /// The tenant.
    pub tenant_id: TenantId,
    /// When its next job is due, milliseconds since 1970; `None` when no job waits.
    pub due_at: Option<i64>,
    /// Number of marks so far; see [`release_queue`].
    pub marks: i64,
    /// The process that works on the queue, while its claim is not over.
    pub runner: Option<String>,
    /// Jobs that were enqueued below this generation are dead letters.
    pub dead_below: Generation,
    /// The reason why they are.
    pub dead_reason: Option<String>,
    /// The tenant's generation. A database of a later one was put in its place after this was read.
    pub generation: Generation,
}

const COLUMNS: &str = "q.tenant_id, q.due_at, q.marks, case when q.claimed_until > $1 then q.runner end as runner, q.dead_below, \
     q.dead_reason, t.generation";

/// The longest claim, milliseconds, which is the longest lease of a runner and a minute. A later end was written by a wrong
/// clock, and holds nothing.
pub const CLAIM_MS_MAX: i64 = 3_660_000;

/// Tenants that may run jobs now: they serve reads and writes. The jobs of all others wait.
const MAY_RUN: &str = "t.state = 'active' and t.block_writes is null";

/// Records that these tenants have a job that is due at this time, unless an earlier one is known.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable; `NotFound` for an unknown tenant.
pub async fn mark_due(tx: &mut WriteTx, due: &[(TenantId, i64)]) -> Result<()> {
    for round in distinct_rounds(due, |(tenant, _)| *tenant) {
        for chunk in sized_chunks(&round) {
            let sql = format!(
                "with v(tenant_id, due_at) as ({}) insert into job_queues (tenant_id, due_at, marks, dead_below) \
                 select tenant_id, due_at, 1, 0 from v where true on conflict (tenant_id) do update set \
                 marks = job_queues.marks + 1, due_at = case when job_queues.due_at is null \
                   or job_queues.due_at > excluded.due_at then excluded.due_at else job_queues.due_at end",
                values_clause(chunk.len(), &[TEXT, INT])
            );
            let bind =
                chunk.iter().fold(dynamic_query(sql), |sql, (tenant, at)| sql.bind(tenant.to_string()).bind(*at));
            tx.execute_sql(bind).await?;
        }
    }
    Ok(())
}

/// Tenants with a due job that no runner works on, longest due first.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn due_queues(tx: &mut ReadTx, page_limit: u32) -> Result<Vec<TenantId>> {
    let sql = format!(
        "select q.tenant_id from job_queues q join tenants t on t.id = q.tenant_id where q.due_at <= $1 \
         and (q.claimed_until is null or q.claimed_until <= $1 or q.claimed_until > $3) and {MAY_RUN} \
         order by q.due_at, q.tenant_id limit $2"
    );
    let now = tx.now();
    let sql = dynamic_query(sql).bind(now).bind(capped_limit(page_limit)).bind(now + CLAIM_MS_MAX);
    let rows = tx.fetch_rows(sql).await?;
    rows.iter().map(|row| row::parsed_column(row, "tenant_id")).collect()
}

/// Claims those of these queues that are still due and free, until this time.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn claim_queues(
    tx: &mut WriteTx,
    tenants: &[TenantId],
    runner: &str,
    until: i64,
) -> Result<Vec<JobQueueRecord>> {
    let now = tx.now();
    let mut claimed = Vec::new();
    for tenant in tenants {
        let sql = sqlx::query(
            "update job_queues set runner = $3, claimed_until = $4 where tenant_id = $2 and due_at <= $1 \
             and (claimed_until is null or claimed_until <= $1 or claimed_until > $5)",
        );
        let sql = sql.bind(now).bind(tenant.to_string()).bind(runner.to_owned()).bind(until).bind(now + CLAIM_MS_MAX);
        if tx.execute_sql(sql).await? > 0 {
            claimed.extend(queue_of(tx, *tenant).await?);
        }
    }
    Ok(claimed)
}

/// Extends a claim; `false` when it is over and another runner has the queue, or may have it.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn renew_claim(tx: &mut WriteTx, tenant: TenantId, runner: &str, until: i64) -> Result<bool> {
    let sql = sqlx::query(
        "update job_queues set claimed_until = $4 where tenant_id = $2 and runner = $3 and claimed_until > $1",
    );
    let sql = sql.bind(tx.now()).bind(tenant.to_string()).bind(runner.to_owned()).bind(until);
    Ok(tx.execute_sql(sql).await? > 0)
}

/// Ends a claim and records when the next job is due. A mark that was written after the claim began stands for a job that
/// the runner may not have seen; the earlier of both times then counts.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn release_queue(
    tx: &mut WriteTx,
    claimed: &JobQueueRecord,
    runner: &str,
    next_due: Option<i64>,
) -> Result<()> {
    let sql = sqlx::query(
        "update job_queues set runner = null, claimed_until = null, due_at = case when marks = $3 then $4 \
           when $4 is null or due_at <= $4 then due_at else $4 end \
         where tenant_id = $1 and runner = $2",
    );
    let sql = sql.bind(claimed.tenant_id.to_string()).bind(runner.to_owned()).bind(claimed.marks).bind(next_due);
    tx.execute_sql(sql).await.map(drop)
}

/// Makes all jobs that were enqueued below this generation dead letters: they run only when somebody asks for it.
///
/// # Errors
/// `NotFound` for an unknown tenant; `Unavailable` when the catalog is not reachable.
pub async fn bury_jobs(tx: &mut WriteTx, tenant: TenantId, below: Generation, reason: &str) -> Result<()> {
    let sql = sqlx::query(
        "insert into job_queues (tenant_id, due_at, marks, dead_below, dead_reason) values ($1, $4, 1, $2, $3) \
         on conflict (tenant_id) do update set marks = job_queues.marks + 1, due_at = excluded.due_at, \
         dead_below = excluded.dead_below, dead_reason = excluded.dead_reason",
    );
    // Due now: the database may have schedules that the catalog does not know.
    let now = tx.now();
    tx.execute_sql(sql.bind(tenant.to_string()).bind(below.0).bind(reason.to_owned()).bind(now)).await.map(drop)
}

/// The queue of a tenant; `None` when it never had a job.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn queue_of(tx: &mut ReadTx, tenant: TenantId) -> Result<Option<JobQueueRecord>> {
    let sql = format!("select {COLUMNS} from job_queues q join tenants t on t.id = q.tenant_id where q.tenant_id = $2");
    let row = tx.fetch_row(dynamic_query(sql).bind(tx.now()).bind(tenant.to_string())).await?;
    row.as_ref().map(record_from_row).transpose()
}

/// A tenant's queue in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedQueue {
    /// The queue.
    pub queue: JobQueueRecord,
    /// The current name of the tenant.
    pub tenant: String,
    /// The state of the tenant.
    pub state: TenantState,
}

/// The queues in the order of their tenants' ids, after this tenant.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_queues(tx: &mut ReadTx, after: Option<TenantId>, page_limit: u32) -> Result<Vec<ListedQueue>> {
    let sql = format!(
        "select {COLUMNS}, t.name, t.state from job_queues q join tenants t on t.id = q.tenant_id \
         where q.tenant_id > $2 order by q.tenant_id limit $3"
    );
    let after = after.map(|tenant| tenant.to_string()).unwrap_or_default();
    let sql = dynamic_query(sql).bind(tx.now()).bind(after).bind(capped_limit(page_limit));
    let listed = |row: &AnyRow| {
        let (tenant, state) = (row::text_column(row, "name")?, row::enum_column(row, "state")?);
        Ok(ListedQueue { queue: record_from_row(row)?, tenant, state })
    };
    tx.fetch_rows(sql).await?.iter().map(listed).collect()
}

/// Records that this process may have committed jobs without a mark, until this time.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn register_enqueuer(tx: &mut WriteTx, process: &str, until: i64) -> Result<()> {
    let sql = "insert into job_enqueuers (process, until) values ($1, $2) \
               on conflict (process) do update set until = excluded.until";
    tx.execute_sql(sqlx::query(sql).bind(process.to_owned()).bind(until)).await.map(drop)
}

/// Removes the row of a process that has marked everything.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn remove_enqueuer(tx: &mut WriteTx, process: &str) -> Result<()> {
    let sql = sqlx::query("delete from job_enqueuers where process = $1");
    tx.execute_sql(sql.bind(process.to_owned())).await.map(drop)
}

/// Ends a sweep that was taken until this time. A process that has renewed its row meanwhile lives, and keeps it.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn end_sweep(tx: &mut WriteTx, process: &str, taken_until: i64) -> Result<()> {
    let sql = sqlx::query("delete from job_enqueuers where process = $1 and until = $2");
    tx.execute_sql(sql.bind(process.to_owned()).bind(taken_until)).await.map(drop)
}

/// Extends a sweep; `false` when the process has renewed its row, or another one sweeps.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn extend_sweep(tx: &mut WriteTx, process: &str, taken_until: i64, until: i64) -> Result<bool> {
    let sql = sqlx::query("update job_enqueuers set until = $3 where process = $1 and until = $2");
    Ok(tx.execute_sql(sql.bind(process.to_owned()).bind(taken_until).bind(until)).await? > 0)
}

/// A process that has died before it marked all its jobs, if there is one.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn expired_enqueuer(tx: &mut ReadTx) -> Result<Option<String>> {
    let sql = sqlx::query("select process from job_enqueuers where until <= $1 or until > $2 order by until limit 1");
    let sql = sql.bind(tx.now()).bind(tx.now() + CLAIM_MS_MAX);
    tx.fetch_row(sql).await?.map(|row| row::text_column(&row, "process")).transpose()
}

/// Takes over the sweep for a dead process until this time; `false` when another process was faster.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn take_sweep(tx: &mut WriteTx, process: &str, until: i64) -> Result<bool> {
    let sql = sqlx::query("update job_enqueuers set until = $3 where process = $2 and (until <= $1 or until > $4)");
    let sql = sql.bind(tx.now()).bind(process.to_owned()).bind(until).bind(tx.now() + CLAIM_MS_MAX);
    Ok(tx.execute_sql(sql).await? > 0)
}

fn record_from_row(row: &AnyRow) -> Result<JobQueueRecord> {
    Ok(JobQueueRecord {
        tenant_id: row::parsed_column(row, "tenant_id")?,
        due_at: row::nullable_int(row, "due_at")?,
        marks: row::int_column(row, "marks")?,
        runner: row::nullable_text(row, "runner")?,
        dead_below: Generation(row::int_column(row, "dead_below")?),
        dead_reason: row::nullable_text(row, "dead_reason")?,
        generation: Generation(row::int_column(row, "generation")?),
    })
}
