//! Claims steps, runs them, and records their outcomes. It knows nothing of what an operation does.
//!
//! ```text
//! submit ──▶ catalog ──▶ dispatch (claims a batch) ──▶ worker (one task per step: phase after phase)
//!               ▲                                          │ outcome
//!               └──────── record (many outcomes, one transaction) ◀┘
//! ```
//! `lease` renews what this process holds, and cancels what it lost. A process that dies leaves rows whose lease
//! expires. Another process then claims them with a new epoch. Later reports of the dead process are refused.

pub mod control;
pub mod submit;

mod catalog_health;
mod dispatch;
mod effects;
mod lease;
mod opening;
pub(crate) mod reached_versions;
mod record;
mod select;
mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::operations::{OperationRecord, OperationState};
use catalog::{OperationId, ServerId, TenantId, TenantRecord, TenantState};
use fleet_api::bounded_number::STEPS_MAX;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::ProcessRole;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{OperationRegistry, StepContext};
use crate::plan::TenantSelection;
use crate::tasks::ProcessTasks;

/// How often an idle runner looks for operations of other processes, and a waiting one for their progress.
const POLL: Duration = Duration::from_secs(1);

/// The runner of one process.
#[derive(Debug)]
pub struct Runner {
    context: Arc<StepContext>,
    operations: OperationRegistry,
    tasks: ProcessTasks,
    /// The name in this process's claims. No other process ever has the same.
    owner: String,
    /// Signals that there may be steps to claim.
    wake: Notify,
    /// Counts recorded batches. A task that waits for an operation looks again after each.
    progress: watch::Sender<u64>,
    outcomes: mpsc::Sender<record::StepReport>,
    steps: Arc<Semaphore>,
    /// Maximum number of steps at once, in this process and on one server.
    steps_max: usize,
    servers: Mutex<HashMap<ServerId, Arc<Semaphore>>>,
    state: Mutex<RunnerState>,
    dispatching: AtomicBool,
    trouble: catalog_health::CatalogHealth,
}

#[derive(Debug, Default)]
struct RunnerState {
    /// In an embedded process: the operations that it was asked to run.
    mine: HashSet<OperationId>,
    /// Steps claimed by this process, each with its cancellation token.
    held: HashMap<(OperationId, TenantId), HeldStep>,
    /// Operations that are being opened or closed.
    closing: HashSet<OperationId>,
}

#[derive(Debug)]
struct HeldStep {
    epoch: i64,
    /// Whether the step runs without other steps of its operation, because processes died in it.
    alone: bool,
    lost: CancellationToken,
}

impl Runner {
    /// Starts the runner's tasks. The configuration may set a number of concurrent steps other than `steps_max`.
    #[must_use]
    pub fn start_runner(
        context: Arc<StepContext>,
        operations: OperationRegistry,
        tasks: ProcessTasks,
        steps_max: usize,
    ) -> Arc<Self> {
        let (outcomes, reports) = mpsc::channel(record::QUEUE_MAX);
        let steps_max = context.config.concurrency.unwrap_or(steps_max).max(1);
        let runner = Arc::new(Self {
            context,
            operations,
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
            trouble: catalog_health::CatalogHealth::default(),
        });
        runner.tasks.spawn_task(Arc::clone(&runner).dispatch_loop());
        runner.tasks.spawn_task(Arc::clone(&runner).renew_leases());
        runner.tasks.spawn_task(Arc::clone(&runner).record_loop(reports));
        runner
    }

    /// Whether steps are claimed, run and recorded.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.dispatching.load(Ordering::Acquire) && self.trouble.check_health().is_ok()
    }

    /// Makes an embedded process run this operation.
    pub fn run_only(&self, op: OperationId) {
        if self.context.config.role == ProcessRole::Embedded {
            self.lock_state().mine.insert(op);
        }
        self.wake.notify_one();
    }

    /// Runs the operation in this process. Returns its record when it has ended or is paused, or its present record
    /// after `timeout`.
    ///
    /// # Errors
    /// `not_found`; `catalog_unavailable` when the catalog has refused writes for a while; those of the catalog.
    pub async fn wait_for_operation(&self, op: OperationId, timeout: Duration) -> Result<OperationRecord> {
        self.run_only(op);
        let mut progress = self.progress.subscribe();
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            progress.mark_unchanged();
            let found = catalog::operations::get(&mut self.context.catalog.read().await?, op).await?;
            let found = found.ok_or_else(|| not_found(op))?;
            let ended = found.finished_at.is_some() || found.state == OperationState::Paused;
            if ended || tokio::time::Instant::now() >= deadline {
                return Ok(found);
            }
            self.trouble.check_health()?;
            // If another process runs the operation, nothing changes here, and only the poll finds out.
            let again = deadline.min(tokio::time::Instant::now() + POLL);
            let _ = tokio::time::timeout_at(again, self.wait_for_progress(&mut progress)).await;
        }
    }

    /// Waits until an operation may have ended. Recorded steps alone do not count: a long operation has hundreds of
    /// batches.
    async fn wait_for_progress(&self, progress: &mut watch::Receiver<u64>) {
        if progress.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The active tenants of a selection, with labels, in the order of their ids.
    ///
    /// # Errors
    /// `selection_empty`, `not_found` naming the first unknown name, and those of the catalog.
    pub async fn select_tenants(&self, selection: &TenantSelection) -> Result<Vec<TenantRecord>> {
        self.select_in(selection, &[TenantState::Active]).await
    }

    /// The tenants of a selection that are in one of these states.
    ///
    /// # Errors
    /// As [`Runner::select_tenants`].
    pub async fn select_in(&self, selection: &TenantSelection, states: &[TenantState]) -> Result<Vec<TenantRecord>> {
        let mut tx = self.context.catalog.read().await?;
        select::select_all(&mut tx, selection, states).await
    }

    /// Passes the active tenants of a selection to `look`, page by page. Memory does not grow with the selection.
    ///
    /// # Errors
    /// As [`Runner::select_tenants`].
    pub async fn for_each_page(
        &self,
        selection: &TenantSelection,
        mut look: impl FnMut(Vec<TenantRecord>) + Send,
    ) -> Result<()> {
        let mut tx = self.context.catalog.read().await?;
        let mut pages = select::SelectionPages::open_pages(&mut tx, selection, &[TenantState::Active]).await?;
        while let Some(page) = pages.next_page(&mut tx).await? {
            look(page);
        }
        Ok(())
    }

    /// Whether this process holds steps or may still claim some.
    fn may_still_report(&self) -> bool {
        self.dispatching.load(Ordering::Acquire) || !self.lock_state().held.is_empty()
    }

    /// Records that this process exits normally. Another process can then claim its remaining steps without counting a
    /// death.
    pub(crate) async fn expect_exit(&self) {
        let noted = async {
            let mut tx = self.context.catalog.write().await?;
            catalog::steps::expect_exit(&mut tx, &self.owner).await?;
            tx.commit().await
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, "steps that were still running will be counted as deaths of this process");
        }
    }

    /// The tenants whose steps of an operation this process holds.
    pub(crate) fn held(&self, op: OperationId) -> Vec<TenantId> {
        self.lock_state().held.keys().filter(|(of, _)| *of == op).map(|(_, tenant)| *tenant).collect()
    }

    fn lock_state(&self) -> MutexGuard<'_, RunnerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The permits for steps that run at once on one server.
    fn server_permits(&self, id: ServerId) -> Arc<Semaphore> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(servers.entry(id).or_insert_with(|| Arc::new(Semaphore::new(self.steps_max))))
    }
}

fn not_found(op: OperationId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no operation {op}")).try_next("fleetctl op list")
}
