//! What this process keeps about each server: how many verbs may work on it at once, a few idle connections to its
//! maintenance database, whether its roles are there, and the templates it holds.
//!
//! Every verb takes its slots at once, for its whole run, so they cannot deadlock; the connections it opens are values
//! ([`Work`]) that go away with it. So a process has at most [`SLOTS`] connections at work on a server, [`IDLE_MAX`] that
//! are idle for less than a minute, and for moments one per long wait that asks whether the server lives.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::server::PostgresServer;
use super::template::Known;
use super::work::{Patience, Work};
use crate::error::{Error, ErrorKind, Result};

/// Connections of verbs at once per server and process: more make a server of few cores no faster (creating and dropping
/// databases does not scale at all).
const SLOTS: usize = 8;
/// Idle connections to the maintenance database: one for each slot.
const IDLE_MAX: usize = SLOTS;
/// A little less than the server's own limit, which ends them when nobody comes back for them.
const IDLE_AGE_MAX: Duration = Duration::from_secs(50);
/// Servers remembered; a fleet has tens. Past it the memory starts over, which costs a few connections.
const SITES_MAX: usize = 256;

/// All servers this process has worked on.
#[derive(Debug, Default)]
pub(super) struct Sites(Mutex<HashMap<[u8; 32], Arc<Site>>>);

/// One server, entered in one way.
pub(super) struct Site {
    pub(super) server: Arc<PostgresServer>,
    pub(super) patience: Patience,
    slots: Semaphore,
    idle: Mutex<Vec<(Instant, Work)>>,
    /// Whether [`super::prepare::ensure`] has run.
    pub(super) prepared: tokio::sync::Mutex<bool>,
    /// Whether the maintenance role reads every row, whatever a policy says; known when it is prepared.
    pub(super) sees_all_rows: AtomicBool,
    /// Held while one is built, so that a process builds each once.
    pub(super) templates: tokio::sync::Mutex<VecDeque<Known>>,
}

impl Sites {
    /// Another connection string or another key of the same server is another site: its connections are its own.
    pub(super) fn of(&self, server: &Arc<PostgresServer>, patience: Patience) -> Arc<Site> {
        let key = *blake3::hash(server.secret().expose_secret().as_bytes()).as_bytes();
        let mut sites = lock(&self.0);
        if sites.len() >= SITES_MAX && !sites.contains_key(&key) {
            sites.clear();
        }
        Arc::clone(sites.entry(key).or_insert_with(|| Arc::new(Site::new(server, patience))))
    }
}

impl Site {
    fn new(server: &Arc<PostgresServer>, patience: Patience) -> Self {
        Self {
            server: Arc::clone(server),
            patience,
            slots: Semaphore::new(SLOTS),
            idle: Mutex::default(),
            prepared: tokio::sync::Mutex::default(),
            sees_all_rows: AtomicBool::new(false),
            templates: tokio::sync::Mutex::default(),
        }
    }

    /// The right to run one verb, with one connection at a time. Waits in line; everybody before is bounded by its own
    /// timeouts.
    pub(super) async fn slot(&self) -> Result<SemaphorePermit<'_>> {
        self.slots(1).await
    }

    /// The same for a verb that has a program with a connection of its own.
    pub(super) async fn slot_with_program(&self) -> Result<SemaphorePermit<'_>> {
        self.slots(2).await
    }

    /// The same for a verb that also reads rows at the same time, over a second connection.
    pub(super) async fn slot_with_program_and_reader(&self) -> Result<SemaphorePermit<'_>> {
        self.slots(3).await
    }

    async fn slots(&self, connections: u32) -> Result<SemaphorePermit<'_>> {
        let slots = self.slots.acquire_many(connections).await;
        slots.map_err(|_| Error::new(ErrorKind::Closed, "the engine is shutting down"))
    }

    /// A new connection of the maintenance role.
    pub(super) async fn enter(&self, database: &str) -> Result<Work> {
        Work::maintenance(&self.server, self.patience, database).await
    }

    /// A connection of the maintenance role to the maintenance database, perhaps one that was left.
    pub(super) async fn center(&self) -> Result<Work> {
        while let Some(mut left) = self.take() {
            if left.ping().await.is_ok() {
                return Ok(left);
            }
        }
        self.enter(&self.server.dsn().database()).await
    }

    /// Gives a connection of [`Site::center`] back, in no transaction and with nothing set. One that is dropped
    /// instead is closed.
    pub(super) fn leave(&self, work: Work) {
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_MAX {
            idle.push((Instant::now(), work));
        }
    }

    fn take(&self) -> Option<Work> {
        let mut idle = lock(&self.idle);
        idle.retain(|(since, _)| since.elapsed() < IDLE_AGE_MAX);
        idle.pop().map(|(_, work)| work)
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Nothing panics while it is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
