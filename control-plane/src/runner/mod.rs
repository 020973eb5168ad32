//! Claims steps, runs them, records what came of them. Knows nothing of what an operation does.
//!
//! ```text
//! submit ──▶ catalog ──▶ dispatch (claims a batch) ──▶ worker (one task per step: phase after phase)
//!               ▲                                          │ outcome
//!               └──────── record (many outcomes, one transaction) ◀┘
//! ```
//! `lease` renews what this process holds, and cancels what it lost. A process that dies leaves rows whose lease
//! expires; whoever looks next claims them under another epoch, and nothing the dead one reports is taken any more.

pub mod control;
pub mod submit;

mod dispatch;
mod effects;
mod lease;
pub(crate) mod reached;
mod record;
mod select;
mod trouble;
mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::operations::{OperationRecord, OperationState};
use catalog::{OperationId, ServerId, TenantId, TenantRecord, TenantState};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Role;
use crate::error::{Error, Result};
use crate::operations::Fleet;
use crate::operations::step::LEASE_MS;
use crate::plan::Selection;
use crate::tasks::Tasks;

/// Steps at once that an operation may ask for; a process with few descriptors runs fewer.
pub(crate) const STEPS_MAX: u32 = 128;
/// How often an idle runner looks for operations that other processes wrote, and a waiting one for their progress.
const POLL: Duration = Duration::from_secs(1);

/// The runner of one process.
#[derive(Debug)]
pub struct Runner {
    fleet: Arc<Fleet>,
    tasks: Tasks,
    /// Names this process's claims; another process never has the same.
    owner: String,
    /// Something may be there to be claimed.
    wake: Notify,
    /// Counts what was recorded: whoever waits for an operation looks again.
    progress: watch::Sender<u64>,
    outcomes: mpsc::Sender<record::Report>,
    steps: Arc<Semaphore>,
    /// Steps at once in this process, and on one server.
    steps_max: usize,
    servers: Mutex<HashMap<ServerId, Arc<Semaphore>>>,
    state: Mutex<State>,
    dispatching: AtomicBool,
    trouble: trouble::Trouble,
}

#[derive(Debug, Default)]
struct State {
    /// In an embedded process: the operations it was asked to run.
    mine: HashSet<OperationId>,
    /// Steps claimed by this process, with what cancels them.
    held: HashMap<(OperationId, TenantId), Held>,
    /// Operations being closed.
    closing: HashSet<OperationId>,
}

#[derive(Debug)]
struct Held {
    epoch: i64,
    /// Its processes died: no other step of its operation runs beside it.
    alone: bool,
    lost: CancellationToken,
}

impl Runner {
    /// Starts the runner's tasks. The configuration may say another number of steps at once than `steps_max`.
    #[must_use]
    pub fn start(fleet: Arc<Fleet>, tasks: Tasks, steps_max: usize) -> Arc<Self> {
        let (outcomes, reports) = mpsc::channel(record::QUEUE_MAX);
        let steps_max = fleet.config.concurrency.unwrap_or(steps_max).max(1);
        let runner = Arc::new(Self {
            fleet,
            tasks,
            owner: uuid::Uuid::now_v7().simple().to_string(),
            wake: Notify::new(),
            progress: watch::channel(0).0,
            outcomes,
            steps: Arc::new(Semaphore::new(steps_max)),
            steps_max,
            servers: Mutex::default(),
            state: Mutex::default(),
            dispatching: AtomicBool::new(true),
            trouble: trouble::Trouble::default(),
        });
        runner.tasks.spawn(Arc::clone(&runner).dispatch());
        runner.tasks.spawn(Arc::clone(&runner).renew());
        runner.tasks.spawn(Arc::clone(&runner).record(reports));
        runner
    }

    /// True while steps are claimed, run and recorded.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.dispatching.load(Ordering::Acquire) && self.trouble.check().is_ok()
    }

    /// Makes this process run that operation.
    pub fn run_only(&self, op: OperationId) {
        if self.fleet.config.role == Role::Embedded {
            self.state().mine.insert(op);
        }
        self.wake.notify_one();
    }

    /// Runs the operation here and returns its record when it has ended or is paused, or as it is after `timeout`.
    ///
    /// # Errors
    /// `not_found`; `catalog_unavailable` when it cannot be written for a while; those of the catalog.
    pub async fn wait(&self, op: OperationId, timeout: Duration) -> Result<OperationRecord> {
        self.run_only(op);
        let mut progress = self.progress.subscribe();
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            progress.mark_unchanged();
            let found = catalog::operations::get(&mut self.fleet.catalog.read().await?, op).await?;
            let found = found.ok_or_else(|| not_found(op))?;
            let ended = found.finished_at.is_some() || found.state == OperationState::Paused;
            if ended || tokio::time::Instant::now() >= deadline {
                return Ok(found);
            }
            self.trouble.check()?;
            // Another process may be running it: then nothing here changes, and the poll finds it.
            let again = deadline.min(tokio::time::Instant::now() + POLL);
            let _ = tokio::time::timeout_at(again, self.recorded(&mut progress)).await;
        }
    }

    /// Waits until an operation may have ended; recording alone happens hundreds of times in a long one.
    async fn recorded(&self, progress: &mut watch::Receiver<u64>) {
        if progress.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The active tenants of a selection, with labels, in the order of their ids.
    ///
    /// # Errors
    /// `selection_empty`, `not_found` naming the first unknown name, and those of the catalog.
    pub async fn select(&self, selection: &Selection) -> Result<Vec<TenantRecord>> {
        self.select_in(selection, &[TenantState::Active]).await
    }

    /// The tenants of a selection that are in one of these states.
    ///
    /// # Errors
    /// As [`Runner::select`].
    pub async fn select_in(&self, selection: &Selection, states: &[TenantState]) -> Result<Vec<TenantRecord>> {
        let mut tx = self.fleet.catalog.read().await?;
        select::tenants(&mut tx, selection, states).await
    }

    /// True while this process holds steps or may yet claim some.
    fn may_still_report(&self) -> bool {
        self.dispatching.load(Ordering::Acquire) || !self.state().held.is_empty()
    }

    /// Says that this process exits in order: what it still holds is claimed by another one without counting as a death.
    pub(crate) async fn expect_exit(&self) {
        let noted = async {
            let mut tx = self.fleet.catalog.write().await?;
            catalog::steps::expect_exit(&mut tx, &self.owner).await?;
            tx.commit().await
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, "steps that were still running will be counted as deaths of this process");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The steps at once on one server.
    fn server(&self, id: ServerId) -> Arc<Semaphore> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(servers.entry(id).or_insert_with(|| Arc::new(Semaphore::new(self.steps_max))))
    }
}

fn not_found(op: OperationId) -> Error {
    Error::new(404, "not_found", format!("there is no operation {op}")).try_next("fleetctl op list")
}
