//! What an operator may do with a tenant's jobs: list them, run dead letters again, and drop jobs. The jobs' contents are the
//! tenant's data, and are not shown.

use catalog::job_queues::{self, JobQueueRecord};
use catalog::{Generation, TenantId};
use tenant_engine::SqlValue;

use super::CommitMark;
use super::statements::{self, DEAD, RUNNING, RowColumns, WAITING, own_statement, unexpected_row};
use crate::authorize::{OperatorAccess, authorize_queue};
use crate::error::Result;
use crate::router::Router;
use crate::tenant::{Tenant, Write};

/// Maximum jobs in one page: those of a page of the admin API, and one more.
const PAGE_MAX: u32 = 1_001;

/// What a job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// The job waits for its time.
    Waiting,
    /// A runner works on the job, or died while it did.
    Running,
    /// The job runs only when an operator asks for it.
    Dead,
}

/// A job in a tenant's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// Id of the job.
    pub id: String,
    /// Kind of the job.
    pub kind: String,
    /// What it waits for.
    pub state: JobState,
    /// The principal that enqueued it.
    pub enqueued_by: String,
    /// The pattern of a repeated job.
    pub schedule: Option<String>,
    /// When it is due, milliseconds since 1970.
    pub due_at: i64,
    /// Attempts that have begun.
    pub attempts: i64,
    /// Attempts before it becomes a dead letter.
    pub attempts_max: i64,
    /// Why the last attempt failed, or why the job is a dead letter.
    pub reason: Option<String>,
    /// When it was enqueued, milliseconds since 1970.
    pub created_at: i64,
}

/// The jobs that a change is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobSelection {
    /// One job. Only dead letters run again; any job can be dropped.
    One(String),
    /// All dead letters of the tenant.
    AllDead,
}

impl Router {
    /// The jobs of a tenant in the order of their ids, after the one with the id `after`. The caller has recorded the access.
    ///
    /// # Errors
    /// As [`Router::open`].
    pub async fn list_jobs(
        &self,
        operator: &OperatorAccess,
        tenant: TenantId,
        after: Option<&str>,
        jobs_max: u32,
    ) -> Result<Vec<JobRecord>> {
        let tenant = self.open_for_operator(operator, tenant).await?;
        let queue = job_queues::queue_of(&mut self.inner.catalog.read().await?, tenant.id()).await?;
        let dead = DeadLetters::new(tenant.id(), queue.as_ref());
        let (after, page) = (after.unwrap_or_default().to_owned(), jobs_max.min(PAGE_MAX));
        let values = vec![SqlValue::Text(after), SqlValue::Integer(page.into())];
        let rows = tenant.read_own(own_statement(statements::LIST, values)).await?;
        rows.rows.iter().map(|row| dead.record_from_row(&RowColumns(row))).collect()
    }

    /// Runs dead letters again, as jobs of the present database, and returns their number. The caller has recorded the access.
    ///
    /// # Errors
    /// As [`Router::open`].
    pub async fn retry_jobs(&self, operator: &OperatorAccess, tenant: TenantId, jobs: &JobSelection) -> Result<u64> {
        let tenant = self.open_queue(operator, tenant).await?;
        let now = self.inner.catalog.now();
        self.inner.job_marks.register(&self.inner.catalog).await?;
        let mut values = dead_values(self, tenant.id()).await?;
        values.push(SqlValue::Integer(now));
        let sql = match jobs {
            JobSelection::AllDead => statements::revive_dead(),
            JobSelection::One(id) => {
                values.push(SqlValue::Text(id.clone()));
                format!("{} and id = $4", statements::revive_dead())
            }
        };
        let mark = CommitMark::new(self, tenant.id(), now);
        let changed = tenant.write_own(own_statement(sql, values)).await?;
        mark.confirm();
        self.inner.job_marks.write_now(&self.inner.catalog).await?;
        Ok(changed.rows_affected)
    }

    /// Drops jobs, and returns their number. A job that runs now ends, unless its handler ends it in its own transaction; then
    /// that transaction fails. The caller has recorded the access.
    ///
    /// # Errors
    /// As [`Router::open`].
    pub async fn drop_jobs(&self, operator: &OperatorAccess, tenant: TenantId, jobs: &JobSelection) -> Result<u64> {
        let tenant = self.open_queue(operator, tenant).await?;
        let statement = match jobs {
            JobSelection::One(id) => own_statement(statements::DROP_ONE, vec![SqlValue::Text(id.clone())]),
            JobSelection::AllDead => own_statement(statements::drop_dead(), dead_values(self, tenant.id()).await?),
        };
        let changed = tenant.write_own(statement).await?;
        Ok(changed.rows_affected)
    }

    /// Opens a tenant for a change of its queue. The tenant never leaves this file.
    async fn open_queue(&self, operator: &OperatorAccess, tenant: TenantId) -> Result<Tenant<Write>> {
        self.require_ready().await?;
        let record = self.inner.caches.directory.by_id(tenant).await?;
        let grant = authorize_queue(operator, record.as_ref())?;
        let (grant, pool) = self.reach_pool(grant).await?;
        Ok(Tenant::new(self.clone(), grant, pool, None))
    }
}

/// The first values of a statement about dead letters: the tenant and the oldest generation whose jobs run.
async fn dead_values(router: &Router, tenant: TenantId) -> Result<Vec<SqlValue>> {
    let queue = job_queues::queue_of(&mut router.inner.catalog.read().await?, tenant).await?;
    let generation = queue.map_or(0, |queue| queue.dead_below.0);
    Ok(vec![SqlValue::Text(tenant.to_string()), SqlValue::Integer(generation)])
}

/// Decides which waiting jobs are dead letters, and why.
struct DeadLetters<'a> {
    tenant: String,
    /// The oldest generation whose jobs run.
    oldest: Generation,
    reason: Option<&'a str>,
}

impl<'a> DeadLetters<'a> {
    fn new(tenant: TenantId, queue: Option<&'a JobQueueRecord>) -> Self {
        let oldest = queue.map_or(Generation(0), |queue| queue.dead_below);
        let reason = queue.and_then(|queue| queue.dead_reason.as_deref());
        Self { tenant: tenant.to_string(), oldest, reason }
    }

    fn record_from_row(&self, row: &RowColumns<'_>) -> Result<JobRecord> {
        let (enqueued_in, generation, schedule) = (row.text(3)?, row.int(4)?, row.nullable_text(5)?);
        let stored = match row.text(6)?.as_str() {
            WAITING => JobState::Waiting,
            RUNNING => JobState::Running,
            DEAD => JobState::Dead,
            _ => return Err(unexpected_row()),
        };
        let mut reason = row.nullable_text(10)?;
        let mut state = stored;
        if stored != JobState::Dead {
            if enqueued_in != self.tenant {
                (state, reason) = (JobState::Dead, Some("the job was enqueued in another tenant".to_owned()));
            } else if schedule.is_none() && generation < self.oldest.0 {
                (state, reason) = (JobState::Dead, self.reason.map(str::to_owned));
            }
        }
        Ok(JobRecord {
            id: row.text(0)?,
            kind: row.text(1)?,
            enqueued_by: row.text(2)?,
            schedule,
            state,
            due_at: row.int(7)?,
            attempts: row.int(8)?,
            attempts_max: row.int(9)?,
            reason,
            created_at: row.int(11)?,
        })
    }
}
