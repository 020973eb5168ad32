//! The connections of requests: what the engine opens pools with, and one pool.
//!
//! [`Requests`] holds one budget per server (`host.rs`), found out when the server is first used. A pool is an account
//! in that budget and a target to connect to; it holds no connection itself, and costs no task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use super::account::AccountId;
use super::capacity;
use super::connection::{LastTimeouts, Target, Timeouts};
use super::facts::facts;
use super::host::Host;
use super::lease::{Lease, Owner};
use super::report::ServerReport;
use super::server::PostgresServer;
use super::session::PostgresSession;
use super::tally::Reason;
use crate::answers::AnswerShare;
use crate::engine::Connections;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Expected;
use crate::placement::Placement;
use crate::pool::{Access, Limits};

/// How long the first connection of a pool may take.
const FIRST_MAX: Duration = Duration::from_secs(5);

/// How long [`Requests::shutdown`] waits for requests to end: longer than a statement may take by default.
const SHUTDOWN_MAX: Duration = Duration::from_secs(7);
/// How often it looks.
const SHUTDOWN_LOOK: Duration = Duration::from_millis(5);
/// Of the 128 units of work that a task may do without letting others run.
const REQUEST_WEIGHT: usize = 16;

/// Settings of [`Requests`].
#[derive(Debug, Clone, Default)]
pub struct RequestOptions {
    /// Connections this process may hold to one server; `None`: what the server allows to roles like ours, less a
    /// reserve for fleet work and for others. [`Requests::set_slice`] changes it for one server.
    pub connections_max: Option<usize>,
}

/// Every connection this process uses for tenants' requests on Postgres servers. Clones are one.
#[derive(Debug, Clone)]
pub struct Requests {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: RequestOptions,
    /// By address. As many as there are servers.
    servers: Mutex<Servers>,
}

#[derive(Debug, Default)]
struct Servers {
    by_address: HashMap<String, Arc<Entry>>,
    closed: bool,
}

/// A server that was named here, perhaps not yet reached.
#[derive(Debug, Default)]
struct Entry {
    host: OnceCell<(Arc<Host>, usize)>,
    slice: Mutex<Option<usize>>,
}

impl Requests {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(options: RequestOptions) -> Self {
        Self { inner: Arc::new(Inner { options, servers: Mutex::default() }) }
    }

    /// Opens the database at `at` for requests: logs in once, proves whose database it is, and keeps that connection.
    /// Call it inside the runtime that the requests run in.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`], [`ErrorKind::Fenced`] or [`ErrorKind::WrongTenant`] when it is not the expected
    /// database; [`ErrorKind::ServerUnreachable`] and the other kinds about servers; those of waiting for a connection.
    pub async fn connect(&self, at: &Placement, expected: &Expected) -> Result<PostgresPool> {
        let Some((server, database)) = at.database() else {
            return Err(Error::new(ErrorKind::Internal, "a placement of another engine"));
        };
        let host = self.host(server).await?;
        let target = Arc::new(Target {
            server: Arc::clone(server),
            database: database.to_owned(),
            expected: expected.clone(),
            timeouts: LastTimeouts::new(Timeouts::of(&Limits::default())),
            gone: tokio::sync::Notify::new(),
        });
        let account = host.register(Arc::clone(&target));
        let pool =
            PostgresPool { inner: Arc::new(PoolInner { host, account, target }), answers: AnswerShare::default() };
        pool.inner.check_out(Access::Read, Instant::now() + FIRST_MAX).await?;
        Ok(pool)
    }

    /// How many connections this process may hold to a server, from now on: of several processes, each is given a
    /// slice. More than the server allows counts as what it allows. When it is fewer than are open, idle ones are closed
    /// at once and others when they come back.
    pub fn set_slice(&self, server: &PostgresServer, connections: usize) {
        let entry = self.entry(server);
        *lock(&entry.slice) = Some(connections);
        if let Some((host, allowed)) = entry.host.get() {
            host.set_target(connections.min(*allowed));
        }
    }

    /// How many connections all processes together may hold to a server, and how many this one does; `None` until it
    /// was reached.
    #[must_use]
    pub fn connections(&self, server: &PostgresServer) -> Option<Connections> {
        let entry = self.entry(server);
        let (host, allowed) = entry.host.get()?;
        let open = host.look(|budget| budget.tally().open());
        Some(Connections { budget: *allowed as u64, open: open as u64 })
    }

    /// What is going on, one line per server that was reached.
    #[must_use]
    pub fn report(&self) -> Vec<ServerReport> {
        let servers = lock(&self.inner.servers);
        let hosts = servers.by_address.iter().filter_map(|(address, entry)| Some((address, entry.host.get()?)));
        hosts.map(|(address, (host, _))| host.look(|budget| ServerReport::of(address, budget))).collect()
    }

    /// Refuses new requests, ends open transactions, and returns when every connection is closed, or after some
    /// seconds.
    pub async fn shutdown(&self) {
        let hosts: Vec<_> = {
            let mut servers = lock(&self.inner.servers);
            servers.closed = true;
            servers.by_address.values().filter_map(|entry| Some(Arc::clone(&entry.host.get()?.0))).collect()
        };
        let deadline = Instant::now() + SHUTDOWN_MAX;
        hosts.iter().for_each(Host::end);
        for host in hosts {
            while host.look(|budget| budget.tally().open()) > 0 && Instant::now() < deadline {
                tokio::time::sleep(SHUTDOWN_LOOK).await;
            }
        }
    }

    /// The server's budget; the first time the server is asked how large it is.
    async fn host(&self, server: &Arc<PostgresServer>) -> Result<Arc<Host>> {
        let entry = self.entry(server);
        let (host, _) = entry.host.get_or_try_init(|| self.reach(server, &entry)).await?;
        if lock(&self.inner.servers).closed {
            return Err(closed());
        }
        Ok(Arc::clone(host))
    }

    async fn reach(&self, server: &PostgresServer, entry: &Entry) -> Result<(Arc<Host>, usize)> {
        let facts = facts(server).await?;
        let allowed = capacity::for_requests(&facts);
        let allowed = self.inner.options.connections_max.map_or(allowed, |max| max.min(allowed));
        let connections = lock(&entry.slice).map_or(allowed, |slice| slice.min(allowed));
        Ok((Host::new(server.address(), connections, facts.version), allowed))
    }

    fn entry(&self, server: &PostgresServer) -> Arc<Entry> {
        let mut servers = lock(&self.inner.servers);
        Arc::clone(servers.by_address.entry(server.address().to_owned()).or_default())
    }
}

/// The connections of one database, of both its logins. Clones are one pool.
#[derive(Debug, Clone)]
pub struct PostgresPool {
    inner: Arc<PoolInner>,
    answers: AnswerShare,
}

impl PostgresPool {
    pub(crate) fn session(&self, access: Access, limits: Limits) -> PostgresSession {
        PostgresSession::new(Arc::clone(&self.inner), access, limits, self.answers.clone())
    }

    pub(crate) fn counting(self, answers: AnswerShare) -> Self {
        Self { answers, ..self }
    }

    pub(crate) fn answers(&self) -> &AnswerShare {
        &self.answers
    }

    pub(crate) async fn close(&self) {
        self.inner.host.close_account(self.inner.account, Reason::PoolClosed);
        loop {
            let gone = self.inner.target.gone.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            if self.connections() == 0 {
                return;
            }
            gone.await;
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.inner.host.look(|budget| budget.connections(self.inner.account))
    }
}

/// What the clones of a pool and its sessions share.
#[derive(Debug)]
pub(super) struct PoolInner {
    host: Arc<Host>,
    account: AccountId,
    target: Arc<Target>,
}

impl PoolInner {
    pub(super) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) async fn check_out(&self, login: Access, deadline: Instant) -> Result<Lease> {
        weigh().await;
        self.host.check_out(&self.owner(login), deadline).await
    }

    /// Closes the idle connections of a login, after one of them was found dead.
    pub(super) fn forget_idle(&self, login: Access) {
        self.host.forget_idle(&self.owner(login));
    }

    fn owner(&self, login: Access) -> Owner {
        Owner { host: Arc::clone(&self.host), account: self.account, login }
    }
}

impl Drop for PoolInner {
    fn drop(&mut self) {
        self.host.close_account(self.account, Reason::PoolClosed);
    }
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the connections to this database are being closed")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets other tasks run when this one never has to wait. A near server answers before its answer is asked for, so a task
/// could go on for a hundred requests in one turn, and everybody else's answers would lie there meanwhile.
async fn weigh() {
    for _ in 0..REQUEST_WEIGHT {
        tokio::task::coop::consume_budget().await;
    }
}
