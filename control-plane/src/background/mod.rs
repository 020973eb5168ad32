//! Periodic tasks of a serving process. They are idempotent, have no input and never retry inside. Each has one line in
//! [`start_tasks`].
//!
//! Of several processes on one catalog, only the one that holds a task's lease runs it (`task_lease.rs`). Webhooks are
//! no periodic task: each one has a lease of its own, and `app` starts the worker.

mod expire;
mod history;
mod purge;
pub(crate) mod reconcile;
mod settle;
mod steady_time;
mod task_lease;
mod trim;
mod wake;
pub mod webhooks;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use catalog::TenantId;

use crate::domains::check::check_due_domains;
use crate::domains::lookup::TxtLookup;
use crate::error::{ErrorKind, Result};
use crate::operation::StepContext;
use crate::operations::OperationParams;
use crate::plan::TenantSelection;
use crate::runner::Runner;
use crate::runner::submit::{AuditCaller, Submission, SubmitMode};
use crate::tasks::ProcessTasks;
use steady_time::SteadyTime;
use task_lease::TaskLease;

/// Starts all tasks. A period is the longest delay of a task. It doubles when the process that ran the task has died.
pub fn start_tasks(context: &Arc<StepContext>, runner: &Arc<Runner>, dns: &Arc<dyn TxtLookup>, tasks: &ProcessTasks) {
    let owner = uuid::Uuid::now_v7().simple().to_string();
    let turn = |name, seconds| TaskLease::new(Arc::clone(context), &owner, name, Duration::from_secs(seconds));
    let reconcile = |context: Arc<StepContext>, runner: Arc<Runner>| async move {
        reconcile::close_abandoned(&context, &runner).await
    };
    spawn_periodic(tasks, turn("reconcile", 20), with_runner(runner, reconcile));
    let steady = Arc::new(SteadyTime::default());
    let time = Arc::clone(&steady);
    spawn_periodic(tasks, turn("expire", 300), move |context| {
        let time = Arc::clone(&time);
        async move { expire::drop_expired(&context, time.removal_time(&context).await?).await }
    });
    let time = Arc::clone(&steady);
    spawn_periodic(tasks, turn("history", 3_600), move |context| {
        let time = Arc::clone(&time);
        async move { history::prune_history(&context, time.removal_time(&context).await?).await }
    });
    let dns = Arc::clone(dns);
    spawn_periodic(tasks, turn("domains", 3_600), move |context| {
        let dns = Arc::clone(&dns);
        async move { check_due_domains(&context.catalog, dns.as_ref()).await }
    });
    spawn_periodic(tasks, turn("trim", 600), |context| async move { trim::trim_catalog(&context).await });
    spawn_periodic(tasks, turn("settle", 20), with_runner(runner, settle::submit_repairs));
    let purge = move |context, runner| purge::submit_purges(context, runner, Arc::clone(&steady));
    spawn_periodic(tasks, turn("purge", 60), with_runner(runner, purge));
    let is_due = |context: Arc<StepContext>| async move { wake::is_due(&context).await };
    spawn_when_due(tasks, turn("wake", 2), is_due, with_runner(runner, wake::submit_wakes));
}

/// Passes the runner to a task that submits operations, or asks which steps this process runs.
fn with_runner<F>(
    runner: &Arc<Runner>,
    run: impl Fn(Arc<StepContext>, Arc<Runner>) -> F + Send + 'static,
) -> impl Fn(Arc<StepContext>) -> F + Send + 'static {
    let runner = Arc::clone(runner);
    move |context| run(context, Arc::clone(&runner))
}

/// Submits an operation on these tenants in the fleet's own name. Without tenants it does nothing.
async fn submit_for_fleet(runner: &Runner, params: OperationParams, tenants: &[TenantId], reason: &str) -> Result<()> {
    if tenants.is_empty() {
        return Ok(());
    }
    let names = tenants.iter().map(TenantId::to_string).collect();
    let mut submission =
        Submission::new(params, TenantSelection { names, automatic: true, ..TenantSelection::default() });
    submission.reason = Some(reason.to_owned());
    let caller = AuditCaller { actor: "fleet".to_owned(), request_id: None, once: None };
    match runner.submit_operation(&caller, submission, SubmitMode::Run).await {
        // A tenant changed a moment ago, or this process is stopping. The next round sees which tenants are left.
        Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::ShuttingDown) => {
            Ok(())
        }
        submitted => submitted.map(drop),
    }
}

fn spawn_periodic<F>(tasks: &ProcessTasks, turn: TaskLease, run: impl Fn(Arc<StepContext>) -> F + Send + 'static)
where
    F: Future<Output = Result<()>> + Send,
{
    spawn_when_due(tasks, turn, |_| std::future::ready(true), run);
}

/// Starts a periodic task with a check. The check costs less than a lease, and decides whether there is work.
fn spawn_when_due<D, F>(
    tasks: &ProcessTasks,
    turn: TaskLease,
    is_due: impl Fn(Arc<StepContext>) -> D + Send + 'static,
    run: impl Fn(Arc<StepContext>) -> F + Send + 'static,
) where
    D: Future<Output = bool> + Send,
    F: Future<Output = Result<()>> + Send,
{
    let stopping = tasks.stopping_token().clone();
    tasks.spawn_task(async move {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return turn.release_lease().await,
                () = tokio::time::sleep(turn.period) => {}
            }
            if !is_due(Arc::clone(&turn.context)).await {
                continue;
            }
            if let Err(error) = turn.run_if_owner(run(Arc::clone(&turn.context))).await {
                tracing::warn!(task = turn.name, code = %error.code(), %error, "a periodic task failed; it runs again");
            }
        }
    });
}
