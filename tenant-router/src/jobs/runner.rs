//! Finds tenants with due jobs, claims their queues and runs them.
//!
//! Every process of the application may have a runner: a claim in the catalog gives each tenant's queue to one of them, and a
//! claim in the tenant's database gives each job to one. Both end by themselves if the process dies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use catalog::job_queues::{self, JobQueueRecord};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::handlers::{JobError, JobHandlers, JobRun};
use super::queue_run::run_queue;
use super::{Job, sweep};
use crate::error::{Error, ErrorKind, Result};
use crate::router::Router;

/// How long a claim lasts without renewal. A longer time delays the jobs of a dead process.
const LEASE: Duration = Duration::from_secs(60);
/// Longest time of one run.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Tenants whose jobs run at the same time.
const QUEUES_MAX: usize = 16;
/// How often the catalog is asked for due jobs of other processes. One query of an index.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the catalog is asked for processes that died before they marked their jobs.
const SWEEP_EVERY: Duration = Duration::from_secs(20);

/// Settings of a [`JobRunner`]. Made by [`Router::job_runner`].
pub struct JobRunnerBuilder {
    router: Router,
    handlers: JobHandlers,
    lease: Duration,
    timeout: Duration,
    queues_max: usize,
}

impl Router {
    /// A runner for the jobs of all tenants. Add a handler for each kind of job, and start it.
    ///
    /// ```no_run
    /// # use serde::{Deserialize, Serialize};
    /// # use tenant_router::{Error, Job, JobRun, JobRunner, Router};
    /// # #[derive(Serialize, Deserialize)] struct SendReminder { task: i64 }
    /// # impl Job for SendReminder { const KIND: &'static str = "send-reminder"; }
    /// fn start(router: &Router) -> Result<JobRunner, Error> {
    ///     let runner = router.job_runner().handle(|run: JobRun<SendReminder>| async move {
    ///         let mut tx = run.tenant().write();
    ///         tx.execute("update tasks set reminded = true where id = $1", [run.job().task]).await?;
    ///         run.finish(&mut tx).await?;
    ///         tx.commit().await?;
    ///         Ok(())
    ///     });
    ///     runner.start()
    /// }
    /// ```
    #[must_use]
    pub fn job_runner(&self) -> JobRunnerBuilder {
        JobRunnerBuilder {
            router: self.clone(),
            handlers: JobHandlers::default(),
            lease: LEASE,
            timeout: TIMEOUT,
            queues_max: QUEUES_MAX,
        }
    }
}

impl JobRunnerBuilder {
    /// Adds the handler of one kind of job.
    ///
    /// # Panics
    /// When the kind has a handler already.
    #[must_use]
    pub fn handle<J, F, R>(mut self, handler: F) -> Self
    where
        J: Job,
        F: Fn(JobRun<J>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        self.handlers.add(handler);
        self
    }

    /// Sets how long a claim lasts without renewal: the jobs of a process that dies wait this long. The default is 60 s, the
    /// least is 1 s, the most an hour.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        Self { lease: lease.clamp(Duration::from_secs(1), Duration::from_secs(3_600)), ..self }
    }

    /// Sets the longest time of one run. The default is 10 minutes.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sets how many tenants' jobs run at the same time. The default is 16.
    #[must_use]
    pub fn tenants_at_once(self, tenants: usize) -> Self {
        Self { queues_max: tenants.max(1), ..self }
    }

    /// Starts the runner. Must run inside a Tokio runtime.
    ///
    /// # Errors
    /// `Misconfigured` without a handler.
    pub fn start(self) -> Result<JobRunner> {
        let shared = self.shared()?;
        let task = tokio::spawn(run_until_stopped(Arc::clone(&shared)));
        Ok(JobRunner { shared, task: Some(task) })
    }

    /// Runs every job that is due now, and those that they enqueue for now. Returns the number of turns of tenants. For tests of
    /// an application, and for programs that a timer starts.
    ///
    /// # Errors
    /// `Misconfigured` without a handler; `CatalogUnavailable`.
    pub async fn run_due(self) -> Result<usize> {
        let shared = self.shared()?;
        let mut turns = 0;
        loop {
            shared.router.inner.job_marks.write_now(&shared.router.inner.catalog).await?;
            let claimed = shared.claim_due(shared.queues_max).await?;
            if claimed.is_empty() {
                return Ok(turns);
            }
            turns += claimed.len();
            let mut queues = JoinSet::new();
            claimed.into_iter().for_each(|queue| drop(queues.spawn(run_queue(Arc::clone(&shared), queue))));
            queues.join_all().await;
        }
    }

    fn shared(self) -> Result<Arc<RunnerShared>> {
        if self.handlers.is_empty() {
            return Err(Error::new(ErrorKind::Misconfigured).with_source("the job runner has no handler"));
        }
        Ok(Arc::new(RunnerShared {
            name: self.router.inner.job_marks.process_name().to_owned(),
            router: self.router,
            handlers: self.handlers,
            lease_ms: i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX / 4),
            timeout: self.timeout,
            queues_max: self.queues_max,
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
        }))
    }
}

/// What all tasks of a runner share.
pub(super) struct RunnerShared {
    pub(super) router: Router,
    pub(super) handlers: JobHandlers,
    /// The process, as the catalog's claims name it.
    pub(super) name: String,
    pub(super) lease_ms: i64,
    pub(super) timeout: Duration,
    queues_max: usize,
    /// Ends the claiming of jobs.
    pub(super) stop: CancellationToken,
    /// Ends running jobs.
    pub(super) abort: CancellationToken,
}

impl RunnerShared {
    /// Milliseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        self.router.inner.catalog.now()
    }

    /// How often claims are renewed: twice may fail.
    pub(super) fn renew_every(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.lease_ms / 3).unwrap_or(1_000).max(1))
    }

    /// A number from 0 to 1 that spreads the pauses of jobs that failed together.
    pub(super) fn chance(&self) -> f64 {
        f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0
    }

    /// Claims up to so many due queues.
    async fn claim_due(&self, queues_max: usize) -> Result<Vec<JobQueueRecord>> {
        let catalog = &self.router.inner.catalog;
        let page_limit = u32::try_from(queues_max).unwrap_or(u32::MAX);
        // Read first: without due jobs, the catalog is not locked.
        let due = job_queues::due_queues(&mut catalog.read().await?, page_limit).await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = catalog.write().await?;
        let until = tx.now() + self.lease_ms;
        let claimed = job_queues::claim_queues(&mut tx, &due, &self.name, until).await?;
        tx.commit().await?;
        Ok(claimed)
    }
}

/// A running job runner. Dropping it stops it without waiting; then jobs that run are given back when their claims end.
pub struct JobRunner {
    shared: Arc<RunnerShared>,
    task: Option<JoinHandle<()>>,
}

impl JobRunner {
    /// Begins no more jobs, and waits for those that run. After `wait_max` they are stopped and wait for another process. Call it
    /// before [`Router::shutdown`].
    pub async fn shutdown(mut self, wait_max: Duration) {
        self.shared.stop.cancel();
        let Some(mut task) = self.task.take() else { return };
        if tokio::time::timeout(wait_max, &mut task).await.is_err() {
            self.shared.abort.cancel();
            // Giving the jobs back takes a moment. A database that does not answer must not keep the process.
            let _ = tokio::time::timeout(Duration::from_secs(5), task).await;
        }
    }
}

impl Drop for JobRunner {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        if self.task.is_some() {
            self.shared.abort.cancel();
        }
    }
}

impl fmt::Debug for JobRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobRunner").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

async fn run_until_stopped(shared: Arc<RunnerShared>) {
    let mut queues = JoinSet::new();
    let mut sweeps = JoinSet::new();
    let (mut is_failing, mut next_sweep) = (false, Instant::now());
    while !shared.stop.is_cancelled() {
        while queues.try_join_next().is_some() {}
        while sweeps.try_join_next().is_some() {}
        if sweeps.is_empty() && Instant::now() >= next_sweep {
            next_sweep = Instant::now() + SWEEP_EVERY;
            sweeps.spawn(sweep::sweep_for_dead(Arc::clone(&shared)));
        }
        let free = shared.queues_max - queues.len();
        let claimed = if free == 0 { Ok(Vec::new()) } else { shared.claim_due(free).await };
        match claimed {
            Ok(claimed) => {
                is_failing = false;
                let any = !claimed.is_empty();
                claimed.into_iter().for_each(|queue| drop(queues.spawn(run_queue(Arc::clone(&shared), queue))));
                if any {
                    continue;
                }
            }
            // Logged once per outage.
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::warn!(%error, "due jobs cannot be looked up; trying again");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = shared.stop.cancelled() => {}
            () = shared.router.inner.job_marks.wait_for_written(), if free > 0 => {}
            Some(_) = queues.join_next(), if !queues.is_empty() => {}
            () = tokio::time::sleep(LOOK_EVERY), if free > 0 => {}
        }
    }
    sweeps.abort_all();
    while queues.join_next().await.is_some() {}
}
