//! Enqueues jobs in a tenant's transaction.

use catalog::job_queues;
use tenant_engine::SqlValue;
use uuid::Uuid;

use super::job_options::{JobOptions, check_lengths};
use super::schedule::JobSchedule;
use super::statements::{self, first_row, nullable_text, own_statement};
use super::{Job, statements::unexpected_row};
use crate::error::{Error, ErrorKind, Result};
use crate::tenant::{CanWrite, Tenant};
use crate::transaction::WriteTx;

/// Inserts of a job whose key is taken by another one that ends meanwhile.
const INSERTS_MAX: usize = 3;
/// The keys of repeated jobs are apart from those of other jobs.
const SCHEDULE_KEY: &str = "schedule:";

impl<A: CanWrite> Tenant<A> {
    /// Enqueues a job in a transaction of its own; see [`WriteTx::enqueue`]. Returns the id of the job.
    ///
    /// # Errors
    /// As [`WriteTx::enqueue`], and those of a commit.
    pub async fn enqueue<J: Job>(&self, job: &J, options: JobOptions) -> Result<String> {
        let mut tx = self.write();
        let id = tx.enqueue(job, options).await?;
        tx.commit().await?;
        Ok(id)
    }
}

impl<A: CanWrite> WriteTx<'_, A> {
    /// Enqueues a job of this tenant. It exists when this transaction commits, and not otherwise. Returns the id of the job; with
    /// [`JobOptions::unique`], the id of the job that already waits or runs.
    ///
    /// # Errors
    /// `JobInvalid` when the job cannot be written as JSON, or is too large; `CatalogUnavailable` before the first job of a
    /// process; otherwise as [`WriteTx::execute`].
    pub async fn enqueue<J: Job>(&mut self, job: &J, options: JobOptions) -> Result<String> {
        let payload = job_text(job)?;
        check_lengths(J::KIND, options.unique_key.as_deref(), &payload)?;
        if options.unique_key.as_deref().is_some_and(|key| key.starts_with(SCHEDULE_KEY)) {
            let why = format!("a unique key may not begin with {SCHEDULE_KEY:?}");
            return Err(Error::new(ErrorKind::JobInvalid).with_detail(why));
        }
        let now = self.register_job().await?;
        let due_at = now.saturating_add(options.delay_ms());
        let mut values = self.job_values::<J>(payload, options.unique_key.as_deref(), due_at, &options);
        values.push(SqlValue::Integer(now));
        for _ in 0..INSERTS_MAX {
            let inserted = self.run_own(own_statement(statements::INSERT, values.clone())).await?;
            if let Some(row) = first_row(&inserted) {
                self.mark_job(due_at);
                return row.text(0);
            }
            if let Some(id) = self.living_holder(options.unique_key.as_deref()).await? {
                return Ok(id);
            }
        }
        Err(ErrorKind::Database(tenant_engine::ErrorKind::Busy).into())
    }

    /// The job that has this key, if it waits or runs. A dead letter of a restored database gives its key up. On PostgreSQL the
    /// holder may also have ended since the insert.
    async fn living_holder(&mut self, key: Option<&str>) -> Result<Option<String>> {
        let found = self.run_own(own_statement(statements::BY_KEY, vec![nullable_text(key)])).await?;
        let Some(row) = first_row(&found) else { return Ok(None) };
        let (id, tenant, generation, cron) = (row.text(0)?, row.text(1)?, row.int(2)?, row.nullable_text(3)?);
        let mut tx = self.tenant().router.inner.catalog.read().await?;
        let queue = job_queues::queue_of(&mut tx, self.tenant().id()).await?;
        drop(tx);
        let is_dead = cron.is_none() && queue.is_some_and(|queue| generation < queue.dead_below.0);
        if tenant == self.tenant().id().to_string() && !is_dead {
            return Ok(Some(id));
        }
        self.run_own(own_statement(statements::FREE_KEY, vec![SqlValue::Text(id)])).await?;
        Ok(None)
    }

    /// Repeats a job of this tenant by a schedule, under a name. Calling it again changes job and schedule, and nothing else. A
    /// run that fails after all attempts becomes a dead letter, and the schedule goes on. In a clone, a schedule of the source
    /// runs from the next time on, once the clone has made this call.
    ///
    /// # Errors
    /// As [`WriteTx::enqueue`].
    pub async fn schedule<J: Job>(&mut self, name: &str, schedule: &JobSchedule, job: &J) -> Result<String> {
        let payload = job_text(job)?;
        check_lengths(J::KIND, Some(name), &payload)?;
        let now = self.register_job().await?;
        let due_at = schedule.next_after(now).ok_or(ErrorKind::JobInvalid)?;
        let key = format!("{SCHEDULE_KEY}{name}");
        let mut values = self.job_values::<J>(payload, Some(&key), due_at, &JobOptions::default());
        values.extend([SqlValue::Integer(now), SqlValue::Text(schedule.pattern().to_owned())]);
        let rows = self.run_own(own_statement(statements::SCHEDULE, values)).await?;
        self.mark_job(due_at);
        first_row(&rows).ok_or_else(unexpected_row)?.text(0)
    }

    /// Ends the schedule with this name; `false` when there is none. A run that has begun ends as usual.
    ///
    /// # Errors
    /// As [`WriteTx::execute`].
    pub async fn unschedule(&mut self, name: &str) -> Result<bool> {
        let key = vec![SqlValue::Text(format!("{SCHEDULE_KEY}{name}"))];
        let waiting = self.run_own(own_statement(statements::UNSCHEDULE, key.clone())).await?;
        let running = self.run_own(own_statement(statements::END_AFTER_RUN, key)).await?;
        Ok(waiting.rows_affected + running.rows_affected > 0)
    }

    /// Prepares the process for a job, and returns the time, milliseconds since 1970.
    async fn register_job(&self) -> Result<i64> {
        let inner = &self.tenant().router.inner;
        inner.job_marks.register(&inner.catalog).await?;
        Ok(inner.catalog.now())
    }

    /// The first seven values of a new job.
    fn job_values<J: Job>(
        &self,
        payload: String,
        key: Option<&str>,
        due_at: i64,
        options: &JobOptions,
    ) -> Vec<SqlValue> {
        let principal = self.tenant().principal();
        let enqueued_by = match principal.staff() {
            Some(staff) => format!("{staff} as {}", principal.name()),
            None => principal.name().to_owned(),
        };
        vec![
            SqlValue::Text(Uuid::now_v7().to_string()),
            SqlValue::Text(J::KIND.to_owned()),
            SqlValue::Text(payload),
            SqlValue::Text(enqueued_by),
            nullable_text(key),
            SqlValue::Integer(due_at),
            SqlValue::Integer(options.attempts_max.into()),
        ]
    }
}

fn job_text<J: Job>(job: &J) -> Result<String> {
    serde_json::to_string(job).map_err(|why| {
        Error::new(ErrorKind::JobInvalid).with_detail(format!("the job cannot be written as JSON: {why}"))
    })
}
