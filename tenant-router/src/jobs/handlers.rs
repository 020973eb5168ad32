//! The application's code for each kind of job, and the values that it receives.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use catalog::TenantId;

use super::Job;
use super::claims::ClaimedJob;
use crate::error::Result;
use crate::tenant::{Tenant, Write};
use crate::transaction::WriteTx;

/// What a job carries wherever it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnvelope<J> {
    /// Id of the job. It is equal for all attempts, and for all runs of a schedule.
    pub id: String,
    /// The tenant in whose database the job is.
    pub tenant: TenantId,
    /// The principal that enqueued the job.
    pub enqueued_by: String,
    /// Number of this attempt, from 1.
    pub attempt: i64,
    /// When this run was first due, milliseconds since 1970.
    pub run_at: i64,
    /// The job.
    pub job: J,
}

/// One run of a job, for its handler. It opens the database of the job's tenant and no other.
pub struct JobRun<J> {
    envelope: JobEnvelope<J>,
    tenant: Arc<Tenant<Write>>,
    claimed: Arc<ClaimedJob>,
    finished: Arc<AtomicBool>,
}

impl<J> JobRun<J> {
    /// The tenant of the job.
    #[must_use]
    pub fn tenant(&self) -> &Tenant<Write> {
        &self.tenant
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> &J {
        &self.envelope.job
    }

    /// The job with its tenant and principal.
    #[must_use]
    pub fn envelope(&self) -> &JobEnvelope<J> {
        &self.envelope
    }

    /// A key for effects outside the tenant's database: equal for all attempts of this run, and for nothing else. A job may
    /// run twice if its process dies; a receiver that knows the key refuses the second time.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        self.claimed.run_key()
    }

    /// Ends the run in the handler's own transaction: its changes and the end of the job become durable together, exactly
    /// once. Nothing may follow except the commit.
    ///
    /// # Errors
    /// `JobClaimLost` when another process runs the job meanwhile; otherwise as [`WriteTx::execute`].
    pub async fn finish(&self, tx: &mut WriteTx<'_, Write>) -> Result<()> {
        self.claimed.finish(tx).await?;
        self.finished.store(true, Ordering::Release);
        Ok(())
    }
}

impl<J: fmt::Debug> fmt::Debug for JobRun<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobRun").field("envelope", &self.envelope).finish_non_exhaustive()
    }
}

/// Why a run failed.
#[derive(Debug)]
pub struct JobError {
    pub(super) reason: String,
    pub(super) is_final: bool,
}

impl JobError {
    /// The job is tried again later, until its attempts are over.
    #[must_use]
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string(), is_final: false }
    }

    /// Another attempt would fail too: the job becomes a dead letter at once.
    #[must_use]
    pub fn give_up(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string(), is_final: true }
    }
}

impl<E: std::error::Error> From<E> for JobError {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

pub(super) type HandlerFuture = Pin<Box<dyn Future<Output = Result<(), JobError>> + Send>>;

/// One run, before the job was read.
pub(super) struct RawRun {
    pub(super) tenant: Arc<Tenant<Write>>,
    pub(super) claimed: Arc<ClaimedJob>,
    /// True when the handler ended the job in its own transaction.
    pub(super) finished: Arc<AtomicBool>,
}

type RawHandler = Arc<dyn Fn(RawRun) -> HandlerFuture + Send + Sync>;

/// The handlers by their kinds.
#[derive(Clone, Default)]
pub(super) struct JobHandlers(HashMap<&'static str, RawHandler>);

impl JobHandlers {
    pub(super) fn add<J, F, R>(&mut self, handler: F)
    where
        J: Job,
        F: Fn(JobRun<J>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let raw: RawHandler = Arc::new(move |raw: RawRun| {
            let handler = Arc::clone(&handler);
            Box::pin(async move { handler(read_run(raw)?).await })
        });
        let before = self.0.insert(J::KIND, raw);
        assert!(before.is_none(), "the kind {:?} has two handlers", J::KIND);
    }

    pub(super) fn get(&self, kind: &str) -> Option<RawHandler> {
        self.0.get(kind).map(Arc::clone)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn read_run<J: Job>(raw: RawRun) -> Result<JobRun<J>, JobError> {
    let RawRun { tenant, claimed, finished } = raw;
    let job = serde_json::from_str(&claimed.payload)
        .map_err(|why| JobError::give_up(format!("the job cannot be read as this program expects: {why}")))?;
    let envelope = JobEnvelope {
        id: claimed.id.clone(),
        tenant: tenant.id(),
        enqueued_by: claimed.principal.clone(),
        attempt: claimed.attempts,
        run_at: claimed.run_at,
        job,
    };
    Ok(JobRun { envelope, tenant, claimed, finished })
}
