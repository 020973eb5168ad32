//! The connections of requests: [`RequestConnections`], with which the engine opens pools, and the pool itself.
//!
//! [`RequestConnections`] holds one budget per server (`server_pool.rs`), which is determined when the server is first
//! used. A pool is a share in that budget and a target to connect to. It holds no connection itself, and needs no task.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use super::capacity;
use super::connection::{ConnectTarget, LastTimeouts, SessionTimeouts};
use super::counters::CloseReason;
use super::lease::{LeaseOwner, PostgresLease};
use super::lent::PostgresLentTx;
use super::report::ServerReport;
use super::server_limits::query_limits;
use super::server_pool::ServerPool;
use super::session::PostgresSession;
use super::streaming;
use super::tenant_share::TenantShareId;
use crate::answers::AnswerShare;
use crate::engine::ConnectionUsage;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::ExpectedIdentity;
use crate::placement::Placement;
use crate::postgres::servers::server::PostgresServer;
use crate::row_stream::RowStream;
use crate::statement::{AccessMode, SessionLimits, SqlStatement};

/// Longest time for the first connection of a pool.
const FIRST_MAX: Duration = Duration::from_secs(5);

/// How long [`RequestConnections::shut_down`] waits for requests to end: longer than a statement may take by default.
const SHUTDOWN_MAX: Duration = Duration::from_secs(7);
/// How often it checks.
const SHUTDOWN_LOOK: Duration = Duration::from_millis(5);
/// Cost of a request, out of the 128 units of work after which a task must let others run.
const REQUEST_WEIGHT: usize = 16;

/// Settings of [`RequestConnections`].
#[derive(Debug, Clone, Default)]
pub struct RequestOptions {
    /// Connections that this process may hold to one server. `None`: the number that the server allows to ordinary
    /// roles, minus a reserve for fleet work and other programs. [`RequestConnections::set_slice`] changes it for one
    /// server.
    pub connections_max: Option<usize>,
}

/// All connections of this process for tenants' requests on Postgres servers. Clones share them.
#[derive(Debug, Clone)]
pub struct RequestConnections {
    inner: Arc<RequestConnectionsInner>,
}

#[derive(Debug)]
struct RequestConnectionsInner {
    options: RequestOptions,
    /// The servers by address; as many as the fleet has.
    servers: Mutex<ServerEntries>,
}

#[derive(Debug, Default)]
struct ServerEntries {
    by_address: HashMap<String, Arc<ServerEntry>>,
    closed: bool,
}

/// A server that was named in a call; it may not have been reached yet.
#[derive(Debug, Default)]
struct ServerEntry {
    host: OnceCell<(Arc<ServerPool>, usize)>,
    slice: Mutex<Option<usize>>,
}

impl RequestConnections {
    /// Opens no connection yet.
    #[must_use]
    pub fn new(options: RequestOptions) -> Self {
        Self { inner: Arc::new(RequestConnectionsInner { options, servers: Mutex::default() }) }
    }

    /// Opens the database at `at` for requests: logs in once, checks the identity of the database, and keeps that
    /// connection. Call it inside the runtime of the requests.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`], [`ErrorKind::Fenced`] or [`ErrorKind::WrongTenant`] when it is not the expected
    /// database; [`ErrorKind::ServerUnreachable`] and the other kinds about servers; the errors of waiting for a
    /// connection.
    pub async fn open_pool(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<PostgresPool> {
        let Some((server, database)) = at.postgres_database() else {
            return Err(Error::new(ErrorKind::Internal, "a placement of another engine"));
        };
        let host = self.server_pool(server).await?;
        let target = Arc::new(ConnectTarget {
            server: Arc::clone(server),
            database: database.to_owned(),
            expected: expected.clone(),
            timeouts: LastTimeouts::new(SessionTimeouts::from_limits(&SessionLimits::default())),
            gone: tokio::sync::Notify::new(),
        });
        let account = host.register_target(Arc::clone(&target));
        let pool = PostgresPool {
            inner: Arc::new(PostgresPoolInner { host, account, target, own_tables: AtomicBool::new(false) }),
            answers: AnswerShare::default(),
        };
        pool.inner.check_out(AccessMode::Read, Instant::now() + FIRST_MAX).await?;
        Ok(pool)
    }

    /// Sets how many connections this process may hold to a server from now on, when several processes share it. A
    /// number above the server's limit counts as that limit. When more are open, idle connections are closed at once
    /// and others when they are returned.
    pub fn set_slice(&self, server: &PostgresServer, connections: usize) {
        let entry = self.server_entry(server);
        *lock_ignoring_poison(&entry.slice) = Some(connections);
        if let Some((host, allowed)) = entry.host.get() {
            host.set_target(connections.min(*allowed));
        }
    }

    /// Connections that all processes together may hold to a server, and those that this process holds. `None` before
    /// the server was first reached.
    #[must_use]
    pub fn connection_usage(&self, server: &PostgresServer) -> Option<ConnectionUsage> {
        let entry = self.server_entry(server);
        let (host, allowed) = entry.host.get()?;
        let open = host.with_budget(|budget| budget.connection_counters().open_count());
        Some(ConnectionUsage { budget: *allowed as u64, open: open as u64 })
    }

    /// A report for each server that was reached.
    #[must_use]
    pub fn server_reports(&self) -> Vec<ServerReport> {
        let servers = lock_ignoring_poison(&self.inner.servers);
        let hosts = servers.by_address.iter().filter_map(|(address, entry)| Some((address, entry.host.get()?)));
        hosts
            .map(|(address, (host, _))| host.with_budget(|budget| ServerReport::from_budget(address, budget)))
            .collect()
    }

    /// Refuses new requests and ends open transactions. Returns when every connection is closed, or after some seconds.
    pub async fn shut_down(&self) {
        let hosts: Vec<_> = {
            let mut servers = lock_ignoring_poison(&self.inner.servers);
            servers.closed = true;
            servers.by_address.values().filter_map(|entry| Some(Arc::clone(&entry.host.get()?.0))).collect()
        };
        let deadline = Instant::now() + SHUTDOWN_MAX;
        hosts.iter().for_each(ServerPool::close_all);
        for host in hosts {
            while host.with_budget(|budget| budget.connection_counters().open_count()) > 0 && Instant::now() < deadline
            {
                tokio::time::sleep(SHUTDOWN_LOOK).await;
            }
        }
    }

    /// The shared connections of the server. The first call asks the server for its limits.
    async fn server_pool(&self, server: &Arc<PostgresServer>) -> Result<Arc<ServerPool>> {
        let entry = self.server_entry(server);
        let (host, _) = entry.host.get_or_try_init(|| self.reach_server(server, &entry)).await?;
        if lock_ignoring_poison(&self.inner.servers).closed {
            return Err(pool_closed());
        }
        Ok(Arc::clone(host))
    }

    async fn reach_server(&self, server: &PostgresServer, entry: &ServerEntry) -> Result<(Arc<ServerPool>, usize)> {
        let facts = query_limits(server).await?;
        let allowed = capacity::for_requests(&facts);
        let allowed = self.inner.options.connections_max.map_or(allowed, |max| max.min(allowed));
        let connections = lock_ignoring_poison(&entry.slice).map_or(allowed, |slice| slice.min(allowed));
        Ok((ServerPool::new(server.host_and_port(), connections, facts.version), allowed))
    }

    fn server_entry(&self, server: &PostgresServer) -> Arc<ServerEntry> {
        let mut servers = lock_ignoring_poison(&self.inner.servers);
        Arc::clone(servers.by_address.entry(server.host_and_port().to_owned()).or_default())
    }
}

/// The connections of one database, of both its logins. Clones are one pool.
#[derive(Debug, Clone)]
pub struct PostgresPool {
    inner: Arc<PostgresPoolInner>,
    answers: AnswerShare,
}

impl PostgresPool {
    pub(crate) fn new_session(&self, access: AccessMode, limits: SessionLimits) -> PostgresSession {
        PostgresSession::new(Arc::clone(&self.inner), access, limits, self.answers.clone())
    }

    pub(crate) async fn stream_rows(&self, statement: SqlStatement, limits: SessionLimits) -> Result<RowStream> {
        streaming::stream_rows(&self.inner, limits, &self.answers, statement).await
    }

    pub(crate) async fn lend_transaction(&self, access: AccessMode, limits: SessionLimits) -> Result<PostgresLentTx> {
        PostgresLentTx::begin(&self.inner, access, limits).await
    }

    pub(crate) fn with_answer_share(self, answers: AnswerShare) -> Self {
        Self { answers, ..self }
    }

    pub(crate) fn answer_share(&self) -> &AnswerShare {
        &self.answers
    }

    pub(crate) async fn close(&self) {
        self.inner.host.close_account(self.inner.account, CloseReason::PoolClosed);
        loop {
            let gone = self.inner.target.gone.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            if self.connection_count() == 0 {
                return;
            }
            gone.await;
        }
    }

    pub(crate) fn connection_count(&self) -> usize {
        self.inner.host.with_budget(|budget| budget.connections_of(self.inner.account))
    }
}

/// The state that the clones of a pool and its sessions share.
#[derive(Debug)]
pub(super) struct PostgresPoolInner {
    host: Arc<ServerPool>,
    account: TenantShareId,
    target: Arc<ConnectTarget>,
    /// True when the fleet's own tables were found or made in this database.
    own_tables: AtomicBool,
}

impl PostgresPoolInner {
    pub(super) fn own_tables_exist(&self) -> bool {
        self.own_tables.load(Ordering::Relaxed)
    }

    pub(super) fn remember_own_tables(&self) {
        self.own_tables.store(true, Ordering::Relaxed);
    }

    pub(super) fn server_pool(&self) -> &Arc<ServerPool> {
        &self.host
    }

    pub(super) fn connect_target(&self) -> &ConnectTarget {
        &self.target
    }

    pub(super) async fn check_out(&self, login: AccessMode, deadline: Instant) -> Result<PostgresLease> {
        consume_task_budget().await;
        self.host.check_out(&self.lease_owner(login), deadline).await
    }

    /// Closes the idle connections of a login, after one of them was found dead.
    pub(super) fn forget_idle(&self, login: AccessMode) {
        self.host.forget_idle(&self.lease_owner(login));
    }

    fn lease_owner(&self, login: AccessMode) -> LeaseOwner {
        LeaseOwner { host: Arc::clone(&self.host), account: self.account, login }
    }
}

impl Drop for PostgresPoolInner {
    fn drop(&mut self) {
        self.host.close_account(self.account, CloseReason::PoolClosed);
    }
}

pub(super) fn pool_closed() -> Error {
    Error::new(ErrorKind::Closed, "the connections to this database are being closed")
}

fn lock_ignoring_poison<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets other tasks run when this task never has to wait. A near server answers before the task asks for the answer.
/// Without this, a task could run a hundred requests in one turn while the answers for other tasks wait.
async fn consume_task_budget() {
    for _ in 0..REQUEST_WEIGHT {
        tokio::task::coop::consume_budget().await;
    }
}
