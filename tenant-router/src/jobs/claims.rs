//! The claim of one job in a tenant's database. Every change checks the claim, so a runner that lost it changes nothing.

use catalog::job_queues::CLAIM_MS_MAX;
use tenant_engine::{SqlStatement, SqlValue};
use uuid::Uuid;

use super::schedule::JobSchedule;
use super::statements::{self, RowColumns, first_row, nullable_text, own_statement};
use crate::error::{ErrorKind, Result};
use crate::tenant::{Tenant, Write};
use crate::transaction::WriteTx;

const DAY_MS: i64 = 24 * 3_600_000;

/// The oldest jobs that run in a tenant's database: those enqueued by the tenant itself, from this generation on.
#[derive(Debug, Clone, Copy)]
pub(super) struct LivingJobs {
    pub(super) generation: i64,
    /// The tenant's generation when this was read.
    pub(super) serving: i64,
}

/// A job that this runner may work on.
#[derive(Debug, Clone)]
pub(super) struct ClaimedJob {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) payload: String,
    pub(super) principal: String,
    pub(super) is_foreign: bool,
    pub(super) cron: Option<String>,
    /// When this run was first due.
    pub(super) run_at: i64,
    pub(super) attempts: i64,
    pub(super) attempts_max: i64,
    claim: String,
    /// The next time of a repeated job.
    pub(super) next_at: Option<i64>,
}

impl ClaimedJob {
    /// Claims the job that is due longest; `None` when none is due.
    pub(super) async fn claim_next(
        tenant: &Tenant<Write>,
        living: LivingJobs,
        now: i64,
        until: i64,
    ) -> Result<Option<Self>> {
        let claim = Uuid::new_v4().simple().to_string();
        let values = vec![
            SqlValue::Integer(now),
            SqlValue::Text(tenant.id().to_string()),
            SqlValue::Integer(living.generation),
            SqlValue::Text(claim.clone()),
            SqlValue::Integer(until),
            SqlValue::Integer(now + CLAIM_MS_MAX),
            SqlValue::Integer(living.serving),
        ];
        let rows = tenant.write_own(own_statement(statements::claim(), values)).await?;
        first_row(&rows).map(|row| Self::from_row(&row, tenant, living, claim, now)).transpose()
    }

    fn from_row(
        row: &RowColumns<'_>,
        tenant: &Tenant<Write>,
        living: LivingJobs,
        claim: String,
        now: i64,
    ) -> Result<Self> {
        let cron = row.nullable_text(6)?;
        let next_of = |pattern: &str| JobSchedule::parse(pattern).ok()?.next_after(now);
        // A schedule that only another version of this program can read must not end here.
        let next_at = cron.as_deref().map(|pattern| next_of(pattern).unwrap_or(now + DAY_MS));
        Ok(Self {
            id: row.text(0)?,
            kind: row.text(1)?,
            payload: row.text(2)?,
            principal: row.text(3)?,
            is_foreign: row.text(4)? != tenant.id().to_string() || row.int(5)? < living.generation,
            cron,
            run_at: row.int(7)?,
            attempts: row.int(8)?,
            attempts_max: row.int(9)?,
            claim,
            next_at,
        })
    }

    /// See [`super::JobRun::idempotency_key`].
    pub(super) fn run_key(&self) -> String {
        match self.cron {
            Some(_) => format!("{}:{}", self.id, self.run_at),
            None => self.id.clone(),
        }
    }

    /// Ends the run in a transaction of the caller.
    pub(super) async fn finish(&self, tx: &mut WriteTx<'_, Write>) -> Result<()> {
        if let Some(next_at) = self.next_at
            && tx.run_own(self.next_run_statement(next_at, None)).await?.rows_affected > 0
        {
            return Ok(());
        }
        // A job that runs once, or whose schedule was ended during this run.
        match tx.run_own(self.statement(statements::DELETE_CLAIMED, [])).await?.rows_affected {
            0 => Err(ErrorKind::JobClaimLost.into()),
            _ => Ok(()),
        }
    }

    /// Ends the run; `false` when the claim was lost.
    pub(super) async fn end(&self, tenant: &Tenant<Write>) -> Result<bool> {
        let mut tx = tenant.write();
        match self.finish(&mut tx).await {
            Ok(()) => tx.commit().await.map(|()| true),
            Err(error) if error.kind() == ErrorKind::JobClaimLost => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Extends the claim; `false` when it was lost.
    pub(super) async fn renew(&self, tenant: &Tenant<Write>, until: i64) -> Result<bool> {
        let statement = self.statement(statements::RENEW, [SqlValue::Integer(until)]);
        Ok(tenant.write_own(statement).await?.rows_affected > 0)
    }

    /// Gives the job back until this time. `attempts` is the number that counts from now on.
    pub(super) async fn put_back(
        &self,
        tenant: &Tenant<Write>,
        due_at: i64,
        attempts: i64,
        reason: Option<&str>,
    ) -> Result<()> {
        tenant.write_own(self.put_back_statement(due_at, attempts, reason)).await.map(drop)
    }

    /// Makes the job a dead letter. A schedule goes on, and only its failed run becomes one.
    pub(super) async fn bury(&self, tenant: &Tenant<Write>, reason: &str) -> Result<()> {
        let Some(next_at) = self.next_at else {
            let bury = self.statement(statements::BURY, [nullable_text(Some(reason))]);
            return tenant.write_own(bury).await.map(drop);
        };
        let copy = [SqlValue::Text(Uuid::now_v7().to_string()), nullable_text(Some(reason))];
        let mut tx = tenant.write();
        tx.run_own(self.statement(statements::BURY_COPY, copy)).await?;
        if tx.run_own(self.next_run_statement(next_at, Some(reason))).await?.rows_affected == 0 {
            tx.run_own(self.statement(statements::DELETE_CLAIMED, [])).await?;
        }
        tx.commit().await
    }

    fn next_run_statement(&self, next_at: i64, reason: Option<&str>) -> SqlStatement {
        let values = [SqlValue::Integer(next_at), nullable_text(self.cron.as_deref()), nullable_text(reason)];
        self.statement(statements::NEXT_RUN, values)
    }

    fn put_back_statement(&self, due_at: i64, attempts: i64, reason: Option<&str>) -> SqlStatement {
        let values = [SqlValue::Integer(due_at), SqlValue::Integer(attempts), nullable_text(reason)];
        self.statement(statements::PUT_BACK, values)
    }

    /// A statement whose first two values are the job and its claim.
    fn statement(&self, sql: &str, more: impl IntoIterator<Item = SqlValue>) -> SqlStatement {
        let mut values = vec![SqlValue::Text(self.id.clone()), SqlValue::Text(self.claim.clone())];
        values.extend(more);
        own_statement(sql, values)
    }
}

/// When the next job of this tenant is due, milliseconds since 1970; `None` when none waits.
pub(super) async fn next_due(tenant: &Tenant<Write>, living: LivingJobs) -> Result<Option<i64>> {
    let values = vec![SqlValue::Text(tenant.id().to_string()), SqlValue::Integer(living.generation)];
    let rows = tenant.read_own(own_statement(statements::NEXT_DUE, values)).await?;
    first_row(&rows).map_or(Ok(None), |row| row.nullable_int(0))
}
