//! Periodic tasks of a serving process: idempotent, without input, never retrying inside. One line each in [`start`].
//!
//! Of several processes on one catalog, one runs a task: the one that holds its lease (`turn.rs`).

mod expire;
mod history;
mod purge;
pub(crate) mod reconcile;
mod settle;
mod steady;
mod trim;
mod turn;
mod wake;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use catalog::TenantId;

use crate::error::Result;
use crate::operations::{Fleet, Params};
use crate::plan::Selection;
use crate::runner::Runner;
use crate::runner::submit::{Caller, Mode, Submission};
use crate::tasks::Tasks;
use steady::Steady;
use turn::Turn;

/// Starts them all; the periods are how late each may notice, and twice that when the process that ran it has died.
pub fn start(fleet: &Arc<Fleet>, runner: &Arc<Runner>, tasks: &Tasks) {
    let owner = uuid::Uuid::now_v7().simple().to_string();
    let turn = |name, seconds| Turn::new(Arc::clone(fleet), &owner, name, Duration::from_secs(seconds));
    every(tasks, turn("reconcile", 20), |fleet| async move { reconcile::run(&fleet).await });
    let steady = Arc::new(Steady::default());
    let time = Arc::clone(&steady);
    every(tasks, turn("expire", 300), move |fleet| {
        let time = Arc::clone(&time);
        async move { expire::run(&fleet, time.now(&fleet).await?).await }
    });
    let time = Arc::clone(&steady);
    every(tasks, turn("history", 3_600), move |fleet| {
        let time = Arc::clone(&time);
        async move { history::run(&fleet, time.now(&fleet).await?).await }
    });
    every(tasks, turn("trim", 600), |fleet| async move { trim::run(&fleet).await });
    every(tasks, turn("settle", 20), with(runner, settle::run));
    let purge = move |fleet, runner| purge::run(fleet, runner, Arc::clone(&steady));
    every(tasks, turn("purge", 60), with(runner, purge));
    let is_due = |fleet: Arc<Fleet>| async move { wake::is_due(&fleet).await };
    whenever(tasks, turn("wake", 2), is_due, with(runner, wake::run));
}

/// For tasks that submit operations.
fn with<F>(
    runner: &Arc<Runner>,
    run: impl Fn(Arc<Fleet>, Arc<Runner>) -> F + Send + 'static,
) -> impl Fn(Arc<Fleet>) -> F + Send + 'static {
    let runner = Arc::clone(runner);
    move |fleet| run(fleet, Arc::clone(&runner))
}

/// Submits an operation on these tenants, in the fleet's own name; nothing when there is none.
async fn submit(runner: &Runner, params: Params, tenants: &[TenantId], reason: &str) -> Result<()> {
    if tenants.is_empty() {
        return Ok(());
    }
    let names = tenants.iter().map(TenantId::to_string).collect();
    let mut submission = Submission::new(params, Selection { names, automatic: true, ..Selection::default() });
    submission.reason = Some(reason.to_owned());
    let caller = Caller { actor: "fleet".to_owned(), request_id: None, once: None };
    match runner.submit(&caller, submission, Mode::Run).await {
        // Somebody changed one of them a moment ago: the next round sees who is left.
        Err(error) if matches!(&*error.code, "conflict" | "not_found") => Ok(()),
        submitted => submitted.map(drop),
    }
}

fn every<F>(tasks: &Tasks, turn: Turn, run: impl Fn(Arc<Fleet>) -> F + Send + 'static)
where
    F: Future<Output = Result<()>> + Send,
{
    whenever(tasks, turn, |_| std::future::ready(true), run);
}

/// The same where only a look, which costs less than a turn, says whether there is something to do.
fn whenever<D, F>(
    tasks: &Tasks,
    turn: Turn,
    is_due: impl Fn(Arc<Fleet>) -> D + Send + 'static,
    run: impl Fn(Arc<Fleet>) -> F + Send + 'static,
) where
    D: Future<Output = bool> + Send,
    F: Future<Output = Result<()>> + Send,
{
    let stopping = tasks.stopping().clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return turn.give_back().await,
                () = tokio::time::sleep(turn.period) => {}
            }
            if !is_due(Arc::clone(&turn.fleet)).await {
                continue;
            }
            if let Err(error) = turn.run(run(Arc::clone(&turn.fleet))).await {
                tracing::warn!(task = turn.name, code = %error.code, %error, "a periodic task failed; it runs again");
            }
        }
    });
}
