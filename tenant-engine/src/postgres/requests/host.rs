//! One server, as the pools of this process share it: the budget behind its lock, and what the budget's actions mean.
//!
//! `pool.rs` asks for connections here; leases come back here; `opener.rs` opens and closes. A server costs one task
//! while it has idle connections or waiting requests, and none otherwise; a pool costs none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

use super::account::{AccountId, Ticket};
use super::budget::{Action, Budget, Use};
use super::connection::{Conn, Target, ping};
use super::lease::{Lease, Owner, Phase};
use super::meters::Meters;
use super::opener;
use super::pace::Pace;
use super::tally::Reason;
use crate::error::Result;

/// A connection that was idle for longer may have been cut off by something between us and the server.
const PING_AFTER: Duration = Duration::from_secs(30);
/// How long the answer may take before it counts as cut off.
const PING_MAX: Duration = Duration::from_secs(1);

/// How often the keeper looks while there are requests. They set timers, and one that is earlier than all others wakes
/// the runtime's driver, which costs more than the rest of a check-out; with this one pending theirs never are.
const BEAT: Duration = Duration::from_millis(100);

/// Wakes one waiting request.
type Wakes = oneshot::Sender<Result<Lease>>;

#[derive(Debug)]
pub(super) struct Host {
    /// Of its first connection's moment, for instance 150018.
    version: u32,
    state: Mutex<State>,
    runtime: Handle,
    /// Wakes the keeper when it should look earlier than it planned.
    earlier: Arc<Notify>,
    ending: watch::Sender<bool>,
    meters: Meters,
}

#[derive(Debug)]
struct State {
    budget: Budget<Conn, Wakes>,
    targets: HashMap<AccountId, Arc<Target>>,
    /// When the keeper looks next; `None`: there is none.
    keeper_looks_at: Option<Instant>,
    /// Connections came back since it last looked.
    busy: bool,
}

impl Host {
    /// A server where `connections` may be held. In a runtime, which does the work nobody waits for.
    pub(super) fn new(address: &str, connections: usize, version: u32) -> Arc<Self> {
        let mut chance = [0; 8];
        aws_lc_rs::rand::fill(&mut chance).expect("the system has random numbers");
        let budget = Budget::new(connections, Pace::new(u64::from_le_bytes(chance)));
        Arc::new(Self {
            version,
            state: Mutex::new(State { budget, targets: HashMap::new(), keeper_looks_at: None, busy: false }),
            runtime: Handle::current(),
            earlier: Arc::default(),
            ending: watch::Sender::new(false),
            meters: Meters::new(address),
        })
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Turns true when the process ends.
    pub(super) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    pub(super) fn meters(&self) -> &Meters {
        &self.meters
    }

    pub(super) fn register(&self, target: Arc<Target>) -> AccountId {
        let mut state = self.lock();
        let id = state.budget.register();
        state.targets.insert(id, target);
        id
    }

    /// A connection of this owner's login, until `deadline`.
    ///
    /// # Errors
    /// Those of [`Budget::wait`] and [`Budget::blame`]; those of connecting.
    pub(super) async fn check_out(self: &Arc<Self>, owner: &Owner, deadline: Instant) -> Result<Lease> {
        while let Some((mut lease, idle_for)) = self.take_idle(owner)? {
            if idle_for < PING_AFTER {
                return Ok(lease);
            }
            let conn = lease.conn(Phase::Setting);
            let answer = tokio::time::timeout_at(deadline.min(Instant::now() + PING_MAX).into(), ping(conn)).await;
            if let Ok(Ok(())) = answer {
                lease.mark(Phase::Clean);
                return Ok(lease);
            }
            lease.close(Reason::Broken);
        }
        self.wait(owner, deadline).await
    }

    fn take_idle(self: &Arc<Self>, owner: &Owner) -> Result<Option<(Lease, Duration)>> {
        let taken = self.lock().budget.take_idle(owner.account, owner.login, Instant::now())?;
        Ok(taken.map(|taken| (Lease::new(owner.clone(), taken.conn, taken.charged), taken.idle_for)))
    }

    async fn wait(self: &Arc<Self>, owner: &Owner, deadline: Instant) -> Result<Lease> {
        let begun = Instant::now();
        let (wakes, woken) = oneshot::channel();
        let ticket = self.with(begun, |state| state.budget.wait(owner.account, owner.login, wakes, begun))?;
        // However this ends, it waits no longer; a connection that was sent already goes back when `woken` is dropped.
        let waiting = Waiting { owner, ticket };
        let answer = tokio::time::timeout_at(deadline.into(), woken).await;
        self.meters.waited(begun.elapsed());
        match answer {
            Ok(Ok(lease)) => lease,
            Ok(Err(_)) => Err(super::pool::closed()),
            Err(_) => Err(self.lock().budget.blame(waiting.owner.account, waiting.owner.login).into()),
        }
    }

    pub(super) fn release(self: &Arc<Self>, owner: &Owner, conn: Conn, used: Use) {
        let now = Instant::now();
        self.with(now, |state| {
            state.busy = true;
            state.budget.release(owner.account, owner.login, conn, used, now);
        });
    }

    pub(super) fn close_used(self: &Arc<Self>, owner: &Owner, conn: Conn, used: Use, reason: Reason) {
        let now = Instant::now();
        self.with(now, |state| state.budget.begin_close(owner.account, used, reason));
        opener::close(self, owner.account, conn);
    }

    /// The other idle connections of a login are likely to be as dead as the one that was found so.
    pub(super) fn forget_idle(self: &Arc<Self>, owner: &Owner) {
        let now = Instant::now();
        self.with(now, |state| state.budget.forget_idle(owner.account, owner.login, Reason::Broken));
    }

    pub(super) fn close_account(self: &Arc<Self>, account: AccountId, reason: Reason) {
        self.with(Instant::now(), |state| state.budget.close_account(account, reason));
    }

    /// Closes every account; leases that are out are closed when they come back.
    pub(super) fn end(self: &Arc<Self>) {
        self.ending.send_replace(true);
        self.with(Instant::now(), |state| {
            for account in state.budget.account_ids() {
                state.budget.close_account(account, Reason::Shutdown);
            }
        });
    }

    pub(super) fn set_target(self: &Arc<Self>, connections: usize) {
        let now = Instant::now();
        self.with(now, |state| state.budget.set_target(connections, now));
    }

    /// Looks at the budget without changing anything.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Budget<Conn, oneshot::Sender<Result<Lease>>>) -> T) -> T {
        look(&self.lock().budget)
    }

    /// Changes the budget and does what follows from it.
    pub(super) fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut Budget<Conn, Wakes>, Instant) -> T) -> T {
        let now = Instant::now();
        self.with(now, |state| change(&mut state.budget, now))
    }

    fn with<T>(self: &Arc<Self>, now: Instant, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let value = change(&mut state);
        let actions = state.budget.take_actions();
        self.plan_next_look(&mut state, now);
        self.meters.publish(state.budget.tally());
        let todo: Vec<_> = actions.into_iter().map(|action| state.resolve(action)).collect();
        drop(state);
        // Outside the lock: a lease that nobody waits for any more comes back here.
        todo.into_iter().for_each(|(action, target)| self.act(action, target));
        value
    }

    fn act(self: &Arc<Self>, action: Action<Conn, Wakes>, target: Option<Arc<Target>>) {
        match action {
            Action::Grant { account, login, wakes, conn, charged } => {
                let owner = Owner { host: Arc::clone(self), account, login };
                // Nobody there any more: the lease is dropped, and so given back.
                let _ = wakes.send(Ok(Lease::new(owner, conn, charged)));
            }
            Action::Open { account, login, instead_of } => {
                opener::open(Owner { host: Arc::clone(self), account, login }, target, instead_of);
            }
            Action::Close { account, conn } => opener::close(self, account, conn),
            Action::Fail { wakes, failure } => {
                let _ = wakes.send(Err(failure.into()));
            }
            Action::Gone { .. } => {
                if let Some(target) = target {
                    target.gone.notify_waiters();
                }
            }
        }
    }

    /// Starts the keeper, or wakes it when something happens earlier than it would look.
    fn plan_next_look(self: &Arc<Self>, state: &mut State, now: Instant) {
        let Some(at) = state.next_look(now) else { return };
        match state.keeper_looks_at {
            Some(planned) if planned <= at => {}
            Some(_) => {
                state.keeper_looks_at = Some(at);
                self.earlier.notify_one();
            }
            None => {
                state.keeper_looks_at = Some(at);
                self.runtime.spawn(keep(Arc::downgrade(self), Arc::clone(&self.earlier)));
            }
        }
    }

    /// When the keeper shall look again; `None`: it is not needed any more.
    fn keeper_looks(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        if let Some(at) = self.lock().keeper_looks_at.filter(|at| *at > now) {
            return Some(at);
        }
        self.with(now, |state| {
            state.budget.pass_time(now);
            // Also keeps `plan_next_look` from waking the one who asks.
            state.keeper_looks_at = state.next_look(now);
            state.busy = false;
            state.keeper_looks_at
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_look(&self, now: Instant) -> Option<Instant> {
        let event = self.budget.next_event(now)?;
        Some(if self.busy { event.min(now + BEAT) } else { event })
    }

    /// The action with what it is about.
    fn resolve(&mut self, action: Action<Conn, Wakes>) -> (Action<Conn, Wakes>, Option<Arc<Target>>) {
        let target = match &action {
            Action::Open { account, .. } => self.targets.get(account).cloned(),
            Action::Gone { account } => self.targets.remove(account),
            Action::Grant { .. } | Action::Close { .. } | Action::Fail { .. } => None,
        };
        (action, target)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.earlier.notify_one();
    }
}

/// The keeper: sleeps until the budget has something to do that only time brings about.
async fn keep(host: Weak<Host>, earlier: Arc<Notify>) {
    while let Some(at) = host.upgrade().and_then(|host| host.keeper_looks()) {
        let _ = tokio::time::timeout_at(at.into(), earlier.notified()).await;
    }
}

/// A request that waits; dropped, it does not any more.
struct Waiting<'a> {
    owner: &'a Owner,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Owner { host, account, login } = self.owner;
        host.change(|budget, _| budget.cancel(*account, *login, self.ticket));
    }
}
