//! Runs the due jobs of one tenant, one after another, while this process holds the claim of the tenant's queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use catalog::job_queues::{self, JobQueueRecord};
use catalog::members::Role;
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument as _;

use super::claims::{ClaimedJob, LivingJobs, next_due};
use super::handlers::{JobError, RawRun};
use super::runner::RunnerShared;
use super::schedule::retry_pause_ms;
use crate::error::{Error, ErrorKind, Result};
use crate::principal::Principal;
use crate::tenant::{Tenant, Write};

/// The principal of a handler's tenant. It may open the one tenant.
const PRINCIPAL: &str = "jobs";
/// Jobs of one tenant before the other tenants have their turn.
const JOBS_MAX: usize = 50;
/// Time for one tenant before the other tenants have their turn.
const TURN_MAX: Duration = Duration::from_secs(10);
/// A tenant that cannot be opened now is tried again after this time.
const SOON_MS: i64 = 5_000;
/// A tenant that an operator must act on, and a job without a handler here, are tried again after this time.
const LATER_MS: i64 = 60_000;

/// Works on a claimed queue and releases it.
pub(super) async fn run_queue(shared: Arc<RunnerShared>, claimed: JobQueueRecord) {
    let next_due = match open_and_run(&shared, &claimed).await {
        Ok(next_due) => next_due,
        Err(error) => {
            tracing::warn!(tenant = %claimed.tenant_id, %error, "the jobs of a tenant wait");
            Some(shared.now() + wait_after(error.kind()))
        }
    };
    if let Err(error) = release(&shared, &claimed, next_due).await {
        tracing::warn!(tenant = %claimed.tenant_id, %error, "a job queue is released when its claim ends");
    }
}

async fn release(shared: &RunnerShared, claimed: &JobQueueRecord, next_due: Option<i64>) -> Result<()> {
    let mut tx = shared.router.inner.catalog.write().await?;
    job_queues::release_queue(&mut tx, claimed, &shared.name, next_due).await?;
    Ok(tx.commit().await?)
}

/// How long the jobs of a tenant wait that cannot be opened, milliseconds.
fn wait_after(kind: ErrorKind) -> i64 {
    match kind {
        ErrorKind::NotFound
        | ErrorKind::Suspended
        | ErrorKind::Archived
        | ErrorKind::ReadOnly
        | ErrorKind::SchemaBehind
        | ErrorKind::SchemaPinned
        | ErrorKind::SchemaAhead => LATER_MS,
        _ => SOON_MS,
    }
}

/// Runs the due jobs; returns when the next one is due.
async fn open_and_run(shared: &Arc<RunnerShared>, claimed: &JobQueueRecord) -> Result<Option<i64>> {
    let principal = Arc::new(Principal::of_tenant(PRINCIPAL, claimed.tenant_id, Role::Writer));
    let tenant = Arc::new(shared.router.open_id::<Write>(principal, claimed.tenant_id).await?);
    let living = LivingJobs { generation: claimed.dead_below.0, serving: claimed.generation.0 };
    let began = Instant::now();
    for _ in 0..JOBS_MAX {
        if shared.stop.is_cancelled() || began.elapsed() > TURN_MAX {
            break;
        }
        let now = shared.now();
        let Some(job) = ClaimedJob::claim_next(&tenant, living, now, now + shared.lease_ms).await? else { break };
        if !run_claimed(shared, &tenant, Arc::new(job)).await? {
            break;
        }
    }
    next_due(&tenant, living).await
}

/// Runs one job and records its end. False when a claim was lost, and another process may have the queue.
async fn run_claimed(shared: &Arc<RunnerShared>, tenant: &Arc<Tenant<Write>>, job: Arc<ClaimedJob>) -> Result<bool> {
    let span = tracing::info_span!(
        "job", kind = %job.kind, job = %job.id, tenant = %tenant.id(), principal = %job.principal, attempt = job.attempts
    );
    async {
        let now = shared.now();
        if job.is_foreign {
            // Only schedules get here: a run that was due before the restore may have happened. The next one is this tenant's.
            return job.end(tenant).await;
        }
        if shared.handlers.get(&job.kind).is_none() {
            tracing::warn!("this program has no handler for the kind of the job");
            let reason = "no program with a handler for this kind of job has run since";
            job.put_back(tenant, now + LATER_MS, job.attempts - 1, Some(reason)).await?;
            return Ok(true);
        }
        if job.attempts > job.attempts_max {
            job.bury(tenant, "the process died in each attempt, or lost its claim").await?;
            return Ok(true);
        }
        match run_handler(shared, tenant, &job).await {
            HandlerEnd::Done { finished } => end_done(tenant, &job, finished).await?,
            HandlerEnd::Failed(error) => end_failed(shared, tenant, &job, &error).await?,
            HandlerEnd::Stopped => job.put_back(tenant, now, job.attempts, Some("the process was stopped")).await?,
            HandlerEnd::ClaimLost => {
                tracing::warn!("another process may run the job, because this one was too slow to keep its claim");
                return Ok(false);
            }
        }
        Ok(true)
    }
    .instrument(span)
    .await
}

async fn end_done(tenant: &Tenant<Write>, job: &ClaimedJob, finished: bool) -> Result<()> {
    if finished || job.end(tenant).await? {
        tracing::info!("job done");
    } else {
        tracing::warn!("the job is done, but another process may run it again");
    }
    Ok(())
}

async fn end_failed(shared: &RunnerShared, tenant: &Tenant<Write>, job: &ClaimedJob, error: &JobError) -> Result<()> {
    if error.is_final || job.attempts >= job.attempts_max {
        tracing::error!(reason = error.reason, "job failed for good; see `fleetctl job list`");
        return job.bury(tenant, &shortened(&error.reason)).await;
    }
    let pause = retry_pause_ms(job.attempts, shared.chance());
    tracing::warn!(reason = error.reason, again_in_ms = pause, "job failed");
    job.put_back(tenant, shared.now() + pause, job.attempts, Some(&shortened(&error.reason))).await
}

/// Keeps a reason small enough for a list.
fn shortened(reason: &str) -> String {
    const CHARS_MAX: usize = 500;
    reason.chars().filter(|letter| *letter != '\0').take(CHARS_MAX).collect()
}

enum HandlerEnd {
    Done { finished: bool },
    Failed(JobError),
    Stopped,
    ClaimLost,
}

/// Runs the handler in a task of its own, because it may panic, and keeps the claims meanwhile.
async fn run_handler(shared: &Arc<RunnerShared>, tenant: &Arc<Tenant<Write>>, job: &Arc<ClaimedJob>) -> HandlerEnd {
    let Some(handler) = shared.handlers.get(&job.kind) else { return HandlerEnd::Stopped };
    let finished = Arc::new(AtomicBool::new(false));
    let raw = RawRun { tenant: Arc::clone(tenant), claimed: Arc::clone(job), finished: Arc::clone(&finished) };
    let mut task = JoinSet::new();
    task.spawn(handler(raw).in_current_span());
    let deadline = tokio::time::sleep(shared.timeout);
    tokio::pin!(deadline);
    let mut renewal = tokio::time::interval(shared.renew_every());
    renewal.tick().await;
    let ended = loop {
        tokio::select! {
            ended = task.join_next() => break ended,
            () = shared.abort.cancelled() => return HandlerEnd::Stopped,
            () = &mut deadline => {
                let seconds = shared.timeout.as_secs();
                return HandlerEnd::Failed(JobError::retry(format!("the job ran longer than {seconds} s")));
            }
            // A handler that has just ended its job in its own transaction has no claim to renew.
            _ = renewal.tick() => if !keep_claims(shared, tenant, job).await && !finished.load(Ordering::Acquire) {
                return HandlerEnd::ClaimLost;
            },
        }
    };
    let finished = finished.load(Ordering::Acquire);
    match ended {
        Some(Ok(Ok(()))) => HandlerEnd::Done { finished },
        Some(Ok(Err(error))) => HandlerEnd::Failed(error),
        Some(Err(error)) => HandlerEnd::Failed(panic_error(error)),
        None => HandlerEnd::Failed(JobError::retry("the handler did not run")),
    }
}

fn panic_error(error: JoinError) -> JobError {
    let said = error.try_into_panic().ok().and_then(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned())
    });
    JobError::retry(format!("the handler panicked: {}", said.unwrap_or_else(|| "no message".to_owned())))
}

/// False when one of the claims was lost. An error is not a loss: the claim is renewed well before its end.
async fn keep_claims(shared: &RunnerShared, tenant: &Tenant<Write>, job: &ClaimedJob) -> bool {
    let until = shared.now() + shared.lease_ms;
    let renew_queue = async {
        let mut tx = shared.router.inner.catalog.write().await?;
        let kept = job_queues::renew_claim(&mut tx, tenant.id(), &shared.name, until).await?;
        tx.commit().await?;
        Ok::<_, Error>(kept)
    };
    let (queue, job) = tokio::join!(renew_queue, job.renew(tenant, until));
    for error in [queue.as_ref().err(), job.as_ref().err()].into_iter().flatten() {
        tracing::warn!(%error, "the claim of a job could not be renewed; trying again");
    }
    queue.unwrap_or(true) && job.unwrap_or(true)
}
