//! What this process remembers about each server: how many engine operations may work on it at once, a few idle
//! connections to its maintenance database, whether its roles exist, and its templates.
//!
//! Every operation takes all its slots at once, for its whole run, so operations cannot deadlock. The connections that
//! it opens are values ([`AdminConnection`]) that are closed with it. So a process has at most [`SLOTS`] working
//! connections to a server, and [`IDLE_MAX`] that are idle for less than a minute. For each long wait it briefly opens
//! one more, to ask whether the server is alive.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::admin_connection::{AdminConnection, WaitLimits};
use super::server::PostgresServer;
use crate::engine::DatabaseTemplate;
use crate::error::{Error, ErrorKind, Result};
use crate::migration::MigrationSet;

/// Connections of engine operations at once, per server and process. More do not make a server of few cores faster:
/// creating and dropping databases does not scale at all.
const SLOTS: usize = 8;
/// Idle connections to the maintenance database: one for each slot.
const IDLE_MAX: usize = SLOTS;
/// A little less than the server's own limit, after which it ends unused connections.
const IDLE_AGE_MAX: Duration = Duration::from_secs(50);
/// Pause between two attempts to connect to a full server. The first pause is as long as a closed session takes to end
/// there. Later pauses are long enough that many waiting operations cost the server nothing.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Maximum number of remembered servers; a fleet has tens. Beyond it all are forgotten, which costs a few connections.
const SITES_MAX: usize = 256;

/// All servers that this process has worked on.
#[derive(Debug, Default)]
pub(in crate::postgres) struct PostgresServerStates(Mutex<HashMap<[u8; 32], Arc<PostgresServerState>>>);

/// One server, with one connection string, key and claim.
pub(in crate::postgres) struct PostgresServerState {
    pub(in crate::postgres) server: Arc<PostgresServer>,
    pub(in crate::postgres) patience: WaitLimits,
    slots: Semaphore,
    idle: Mutex<Vec<(Instant, AdminConnection)>>,
    /// True when [`super::claim::require_claim`] has found that this fleet may use the server.
    pub(super) claimed: tokio::sync::Mutex<bool>,
    /// True when [`super::prepare::ensure_roles`] has run.
    pub(super) prepared: tokio::sync::Mutex<bool>,
    /// Whether the maintenance role reads every row in spite of policies; known when the server is prepared.
    pub(in crate::postgres) sees_all_rows: AtomicBool,
    /// Locked while a template is built, so that a process builds each template once.
    pub(in crate::postgres) templates: tokio::sync::Mutex<VecDeque<KnownTemplate>>,
}

/// A template and the set from which it was built.
pub(in crate::postgres) struct KnownTemplate {
    pub(in crate::postgres) template: Arc<DatabaseTemplate>,
    pub(in crate::postgres) set: MigrationSet,
}

impl PostgresServerStates {
    /// The state of this server. Another connection string, key or claim of one server has a state, and connections, of
    /// its own.
    pub(in crate::postgres) fn for_server(
        &self,
        server: &Arc<PostgresServer>,
        patience: WaitLimits,
    ) -> Arc<PostgresServerState> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(server.secret_text().expose_secret().as_bytes());
        hasher.update(server.fleet_claims().newest_id().unwrap_or_default().as_bytes());
        let key = *hasher.finalize().as_bytes();
        let mut sites = lock_ignoring_poison(&self.0);
        if sites.len() >= SITES_MAX && !sites.contains_key(&key) {
            sites.clear();
        }
        Arc::clone(sites.entry(key).or_insert_with(|| Arc::new(PostgresServerState::new(server, patience))))
    }
}

impl PostgresServerState {
    fn new(server: &Arc<PostgresServer>, patience: WaitLimits) -> Self {
        Self {
            server: Arc::clone(server),
            patience,
            slots: Semaphore::new(SLOTS),
            idle: Mutex::default(),
            claimed: tokio::sync::Mutex::default(),
            prepared: tokio::sync::Mutex::default(),
            sees_all_rows: AtomicBool::new(false),
            templates: tokio::sync::Mutex::default(),
        }
    }

    /// Waits for the right to run one engine operation with one connection at a time. Callers are served in order, and
    /// each operation before is bounded by its own timeouts.
    pub(in crate::postgres) async fn take_slot(&self) -> Result<SemaphorePermit<'_>> {
        self.take_slots(1).await
    }

    /// As [`PostgresServerState::take_slot`], for an operation that runs a program with a connection of its own.
    pub(in crate::postgres) async fn slot_with_program(&self) -> Result<SemaphorePermit<'_>> {
        self.take_slots(2).await
    }

    /// As [`PostgresServerState::slot_with_program`], for an operation that also reads rows at the same time, over a
    /// second connection.
    pub(in crate::postgres) async fn slot_with_program_and_reader(&self) -> Result<SemaphorePermit<'_>> {
        self.take_slots(3).await
    }

    async fn take_slots(&self, connections: u32) -> Result<SemaphorePermit<'_>> {
        let slots = self.slots.acquire_many(connections).await;
        let slots = slots.map_err(|_| Error::new(ErrorKind::Closed, "the engine is shutting down"))?;
        super::claim::require_claim(self).await?;
        Ok(slots)
    }

    /// A new connection of the maintenance role. Waits while the server accepts no more connections.
    pub(in crate::postgres) async fn open_connection(&self, database: &str) -> Result<AdminConnection> {
        self.when_not_full(|| self.enter_now(database)).await
    }

    /// A new connection of the maintenance role, without waiting.
    pub(in crate::postgres) async fn enter_now(&self, database: &str) -> Result<AdminConnection> {
        AdminConnection::as_maintenance(&self.server, self.patience, database).await
    }

    /// Repeats an attempt to connect while the server is full, for as long as an operation waits for a lock. Idle
    /// connections of this process are closed first.
    pub(super) async fn when_not_full<T, F>(&self, connect: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let (begun, mut pause) = (Instant::now(), PAUSE_MIN);
        loop {
            match connect().await {
                Err(error) if error.kind() == ErrorKind::ServerFull && begun.elapsed() + pause < self.patience.lock => {
                    if let Some(idle) = self.take_idle() {
                        idle.close().await;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                connected => return connected,
            }
        }
    }

    /// A connection of the maintenance role to the maintenance database; reuses an idle one if possible.
    pub(in crate::postgres) async fn maintenance_connection(&self) -> Result<AdminConnection> {
        while let Some(mut left) = self.take_idle() {
            if left.check_connection().await.is_ok() {
                return Ok(left);
            }
        }
        self.open_connection(&self.server.server_dsn().database_name()).await
    }

    /// Returns a connection of [`PostgresServerState::maintenance_connection`] for reuse. It must be in no transaction
    /// and have no changed settings. A connection that is dropped instead is closed.
    pub(in crate::postgres) fn return_connection(&self, work: AdminConnection) {
        let mut idle = lock_ignoring_poison(&self.idle);
        if idle.len() < IDLE_MAX {
            idle.push((Instant::now(), work));
        }
    }

    fn take_idle(&self) -> Option<AdminConnection> {
        let mut idle = lock_ignoring_poison(&self.idle);
        idle.retain(|(since, _)| since.elapsed() < IDLE_AGE_MAX);
        idle.pop().map(|(_, work)| work)
    }
}

impl fmt::Debug for PostgresServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresServerState").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Code that holds the lock never panics.
fn lock_ignoring_poison<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
