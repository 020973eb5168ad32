//! One server, as the pools of this process share it: its budget behind a lock, and the execution of the budget's
//! actions.
//!
//! `pool.rs` asks for connections here, leases are returned here, and `opener.rs` opens and closes connections. A
//! server needs one task while it has idle connections or waiting requests, and none otherwise. A pool needs none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

use super::budget::{BudgetAction, ConnectionBudget, ConnectionUse};
use super::connection::{ConnectTarget, PostgresTenantConnection, ping_idle};
use super::connection_metrics::ConnectionMetrics;
use super::counters::CloseReason;
use super::lease::{ConnectionPhase, LeaseOwner, PostgresLease};
use super::opener;
use super::server_health::ServerHealth;
use super::tenant_share::{TenantShareId, WaitTicket};
use crate::error::Result;

/// A connection that was idle for longer may have been cut off somewhere in the network.
const PING_AFTER: Duration = Duration::from_secs(30);
/// A connection that does not answer in this time counts as cut off.
const PING_MAX: Duration = Duration::from_secs(1);

/// How often the timer task wakes while there are requests. Requests set timers. A timer that is earlier than all
/// others wakes the runtime's driver, which costs more than the rest of taking a connection. While this timer is
/// pending, theirs are never the earliest.
const BEAT: Duration = Duration::from_millis(100);

/// Wakes one waiting request.
type LeaseSender = oneshot::Sender<Result<PostgresLease>>;

#[derive(Debug)]
pub(super) struct ServerPool {
    /// The server's version when the first connection was opened, such as 150018.
    version: u32,
    state: Mutex<ServerPoolState>,
    runtime: Handle,
    /// Wakes the timer task when it should run earlier than planned.
    earlier: Arc<Notify>,
    ending: watch::Sender<bool>,
    meters: ConnectionMetrics,
}

#[derive(Debug)]
struct ServerPoolState {
    budget: ConnectionBudget<PostgresTenantConnection, LeaseSender>,
    targets: HashMap<TenantShareId, Arc<ConnectTarget>>,
    /// When the timer task runs next; `None` when there is no task.
    keeper_looks_at: Option<Instant>,
    /// True when connections were returned since its last run.
    busy: bool,
}

impl ServerPool {
    /// A server with at most `connections` connections. Call it in a runtime, which runs the background work.
    pub(super) fn new(address: &str, connections: usize, version: u32) -> Arc<Self> {
        let mut chance = [0; 8];
        getrandom::fill(&mut chance).expect("the system has random numbers");
        let budget = ConnectionBudget::new(connections, ServerHealth::new(u64::from_le_bytes(chance)));
        Arc::new(Self {
            version,
            state: Mutex::new(ServerPoolState { budget, targets: HashMap::new(), keeper_looks_at: None, busy: false }),
            runtime: Handle::current(),
            earlier: Arc::default(),
            ending: watch::Sender::new(false),
            meters: ConnectionMetrics::new(address),
        })
    }

    pub(super) fn server_version(&self) -> u32 {
        self.version
    }

    pub(super) fn runtime_handle(&self) -> &Handle {
        &self.runtime
    }

    /// Becomes true when the process ends.
    pub(super) fn ending_signal(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    pub(super) fn connection_metrics(&self) -> &ConnectionMetrics {
        &self.meters
    }

    pub(super) fn register_target(&self, target: Arc<ConnectTarget>) -> TenantShareId {
        let mut state = self.lock_state();
        let id = state.budget.register_share();
        state.targets.insert(id, target);
        id
    }

    /// Takes a connection of this owner's login, waiting until `deadline`.
    ///
    /// # Errors
    /// Those of [`ConnectionBudget::wait_for_connection`] and [`ConnectionBudget::explain_timeout`]; those of
    /// connecting.
    pub(super) async fn check_out(self: &Arc<Self>, owner: &LeaseOwner, deadline: Instant) -> Result<PostgresLease> {
        while let Some((mut lease, idle_for)) = self.take_idle(owner)? {
            if idle_for < PING_AFTER {
                return Ok(lease);
            }
            let conn = lease.use_connection(ConnectionPhase::Setting);
            let answer = tokio::time::timeout_at(deadline.min(Instant::now() + PING_MAX).into(), ping_idle(conn)).await;
            if let Ok(Ok(())) = answer {
                lease.mark_phase(ConnectionPhase::Clean);
                return Ok(lease);
            }
            lease.close(CloseReason::Broken);
        }
        self.wait_for_lease(owner, deadline).await
    }

    fn take_idle(self: &Arc<Self>, owner: &LeaseOwner) -> Result<Option<(PostgresLease, Duration)>> {
        let taken = self.lock_state().budget.take_idle(owner.account, owner.login, Instant::now())?;
        Ok(taken.map(|taken| (PostgresLease::new(owner.clone(), taken.conn, taken.charged), taken.idle_for)))
    }

    async fn wait_for_lease(self: &Arc<Self>, owner: &LeaseOwner, deadline: Instant) -> Result<PostgresLease> {
        let begun = Instant::now();
        let (wakes, woken) = oneshot::channel();
        let ticket = self
            .change_state(begun, |state| state.budget.wait_for_connection(owner.account, owner.login, wakes, begun))?;
        // In every case the wait ends here. A connection that was already sent is returned when `woken` is dropped.
        let waiting = PendingRequest { owner, ticket };
        let answer = tokio::time::timeout_at(deadline.into(), woken).await;
        self.meters.record_wait(begun.elapsed());
        match answer {
            Ok(Ok(lease)) => lease,
            Ok(Err(_)) => Err(super::pool::pool_closed()),
            Err(_) => Err(self.lock_state().budget.explain_timeout(waiting.owner.account, waiting.owner.login).into()),
        }
    }

    pub(super) fn release_connection(
        self: &Arc<Self>,
        owner: &LeaseOwner,
        conn: PostgresTenantConnection,
        used: ConnectionUse,
    ) {
        let now = Instant::now();
        self.change_state(now, |state| {
            state.busy = true;
            state.budget.release_connection(owner.account, owner.login, conn, used, now);
        });
    }

    pub(super) fn close_used(
        self: &Arc<Self>,
        owner: &LeaseOwner,
        conn: PostgresTenantConnection,
        used: ConnectionUse,
        reason: CloseReason,
    ) {
        let now = Instant::now();
        self.change_state(now, |state| state.budget.begin_close(owner.account, used, reason));
        opener::close_in_background(self, owner.account, conn);
    }

    /// When one idle connection of a login is dead, its other idle connections probably are, too.
    pub(super) fn forget_idle(self: &Arc<Self>, owner: &LeaseOwner) {
        let now = Instant::now();
        self.change_state(now, |state| state.budget.forget_idle(owner.account, owner.login, CloseReason::Broken));
    }

    pub(super) fn close_account(self: &Arc<Self>, account: TenantShareId, reason: CloseReason) {
        self.change_state(Instant::now(), |state| state.budget.close_account(account, reason));
    }

    /// Closes every share; leases in use are closed when they are returned.
    pub(super) fn close_all(self: &Arc<Self>) {
        self.ending.send_replace(true);
        self.change_state(Instant::now(), |state| {
            for account in state.budget.account_ids() {
                state.budget.close_account(account, CloseReason::Shutdown);
            }
        });
    }

    pub(super) fn set_target(self: &Arc<Self>, connections: usize) {
        let now = Instant::now();
        self.change_state(now, |state| state.budget.set_target(connections, now));
    }

    /// Reads the budget without changing it.
    pub(super) fn with_budget<T>(
        &self,
        look: impl FnOnce(&ConnectionBudget<PostgresTenantConnection, oneshot::Sender<Result<PostgresLease>>>) -> T,
    ) -> T {
        look(&self.lock_state().budget)
    }

    /// Changes the budget and performs the resulting actions.
    pub(super) fn change_budget<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut ConnectionBudget<PostgresTenantConnection, LeaseSender>, Instant) -> T,
    ) -> T {
        let now = Instant::now();
        self.change_state(now, |state| change(&mut state.budget, now))
    }

    fn change_state<T>(self: &Arc<Self>, now: Instant, change: impl FnOnce(&mut ServerPoolState) -> T) -> T {
        let mut state = self.lock_state();
        let value = change(&mut state);
        let actions = state.budget.take_actions();
        self.plan_next_look(&mut state, now);
        self.meters.publish_counters(state.budget.connection_counters());
        let todo: Vec<_> = actions.into_iter().map(|action| state.resolve_target(action)).collect();
        drop(state);
        // Outside the lock, because a lease that no request waits for any more is returned here.
        todo.into_iter().for_each(|(action, target)| self.perform_action(action, target));
        value
    }

    fn perform_action(
        self: &Arc<Self>,
        action: BudgetAction<PostgresTenantConnection, LeaseSender>,
        target: Option<Arc<ConnectTarget>>,
    ) {
        match action {
            BudgetAction::Grant { account, login, wakes, conn, charged } => {
                let owner = LeaseOwner { host: Arc::clone(self), account, login };
                // If the request is gone, the lease is dropped, which returns the connection.
                let _ = wakes.send(Ok(PostgresLease::new(owner, conn, charged)));
            }
            BudgetAction::Open { account, login, instead_of } => {
                opener::open_in_background(LeaseOwner { host: Arc::clone(self), account, login }, target, instead_of);
            }
            BudgetAction::Close { account, conn } => opener::close_in_background(self, account, conn),
            BudgetAction::Fail { wakes, failure } => {
                let _ = wakes.send(Err(failure.into()));
            }
            BudgetAction::Gone { .. } => {
                if let Some(target) = target {
                    target.gone.notify_waiters();
                }
            }
        }
    }

    /// Starts the timer task, or wakes it when something happens earlier than its next run.
    fn plan_next_look(self: &Arc<Self>, state: &mut ServerPoolState, now: Instant) {
        let Some(at) = state.next_look(now) else { return };
        match state.keeper_looks_at {
            Some(planned) if planned <= at => {}
            Some(_) => {
                state.keeper_looks_at = Some(at);
                self.earlier.notify_one();
            }
            None => {
                state.keeper_looks_at = Some(at);
                self.runtime.spawn(run_timer(Arc::downgrade(self), Arc::clone(&self.earlier)));
            }
        }
    }

    /// When the timer task must run again; `None` when it is no longer needed.
    fn next_timer_wakeup(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        if let Some(at) = self.lock_state().keeper_looks_at.filter(|at| *at > now) {
            return Some(at);
        }
        self.change_state(now, |state| {
            state.budget.pass_time(now);
            // Also keeps `plan_next_look` from waking the task that is asking.
            state.keeper_looks_at = state.next_look(now);
            state.busy = false;
            state.keeper_looks_at
        })
    }

    fn lock_state(&self) -> MutexGuard<'_, ServerPoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerPoolState {
    fn next_look(&self, now: Instant) -> Option<Instant> {
        let event = self.budget.next_event(now)?;
        Some(if self.busy { event.min(now + BEAT) } else { event })
    }

    /// The action with the target of its share.
    fn resolve_target(
        &mut self,
        action: BudgetAction<PostgresTenantConnection, LeaseSender>,
    ) -> (BudgetAction<PostgresTenantConnection, LeaseSender>, Option<Arc<ConnectTarget>>) {
        let target = match &action {
            BudgetAction::Open { account, .. } => self.targets.get(account).cloned(),
            BudgetAction::Gone { account } => self.targets.remove(account),
            BudgetAction::Grant { .. } | BudgetAction::Close { .. } | BudgetAction::Fail { .. } => None,
        };
        (action, target)
    }
}

impl Drop for ServerPool {
    fn drop(&mut self) {
        self.earlier.notify_one();
    }
}

/// The timer task: sleeps until the budget has work that depends on time alone.
async fn run_timer(host: Weak<ServerPool>, earlier: Arc<Notify>) {
    while let Some(at) = host.upgrade().and_then(|host| host.next_timer_wakeup()) {
        let _ = tokio::time::timeout_at(at.into(), earlier.notified()).await;
    }
}

/// A waiting request; dropping it ends the wait.
struct PendingRequest<'a> {
    owner: &'a LeaseOwner,
    ticket: WaitTicket,
}

impl Drop for PendingRequest<'_> {
    fn drop(&mut self) {
        let LeaseOwner { host, account, login } = self.owner;
        host.change_budget(|budget, _| budget.cancel_wait(*account, *login, self.ticket));
    }
}
