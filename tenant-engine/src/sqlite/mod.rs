//! SQLite: one file per tenant.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::disk::DiskGauge;
use crate::engine::{Engine, Migrated, Template};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Fingerprint;
use crate::found::{Found, Listing};
use crate::identity::{Expected, Identity};
use crate::inspection::{Depth, Inspection};
use crate::migration::MigrationSet;
use crate::placement::{EngineKind, Placement};
use crate::pool::{Access, Pool};
use crate::server::{Server, Survey};
use crate::snapshot::{Image, Restored, Snapshot};

use budget::Budget;
use clock::Clock;
use disks::Disks;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::sync::Semaphore;
use workers::{Lane, Workers};

mod apply;
mod budget;
mod clock;
mod complexity;
mod connection;
mod databases;
mod descriptors;
mod disks;
mod drop;
mod durability;
pub(crate) mod error;
mod fate;
mod files;
mod fingerprint;
mod foreign_keys;
mod full;
mod functions;
mod heap;
pub(crate) mod identity;
mod image;
mod inspect;
mod lanes;
mod lease;
mod ledger;
mod log;
#[cfg(feature = "test-util")]
pub(crate) mod memory;
mod migrate;
mod open;
mod pool;
mod pragmas;
mod provision;
mod quarantine;
mod references;
mod restore;
mod row_contents;
mod sandbox;
mod schema;
mod script;
mod session;
mod snapshot;
mod stamp;
mod statement;
mod steps;
mod survey;
mod temp_files;
mod tokens;
mod transaction;
mod verbs;
mod views;
mod watch;
pub(crate) mod workers;
mod writer;

pub(crate) use image::content_hash;

pub use pool::SqlitePool;
pub use session::SqliteSession;
pub use transaction::SqliteTx;

/// Settings of the engine; the defaults fit a machine of its own.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Blocking workers shared by all tenants; `None`: max(8, 4 × cores).
    pub workers: Option<usize>,
    /// Connections that requests and verbs of this process may hold open, at three descriptors each; `None`: from the
    /// raised RLIMIT_NOFILE.
    pub connections_max: Option<usize>,
    /// Memory that SQLite may take in this process, bytes, at least 256 MiB; `None`: half of the machine's.
    pub memory_bytes_max: Option<u64>,
    /// Where snapshots too large for memory and SQLite's temporary files are written; must be on a disk with room.
    pub scratch: PathBuf,
}

impl SqliteOptions {
    /// The defaults, with this directory.
    #[must_use]
    pub fn new(scratch: impl Into<PathBuf>) -> Self {
        Self { workers: None, connections_max: None, memory_bytes_max: None, scratch: scratch.into() }
    }
}

/// The first SQLite whose write-ahead log cannot be reset under a reader; older ones may corrupt a database.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// Threads that the verbs leave to requests, so that a long backup or migration never delays every tenant.
const REQUEST_THREADS_MIN: usize = 2;

/// How long the workers may take to end: longer than the statements of requests may run.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);

/// Verbs per thread that have their place already, so that no thread waits for the next one.
const VERBS_QUEUED: usize = 4;

/// Verbs hold at most one place in so many: requests need the others.
const VERBS_SHARE: usize = 4;

/// How long a verb waits for its turn and its place. It is a matter of milliseconds unless every connection is in a
/// long transaction; the runner tries again later anyway.
const PLACE_WAIT: Duration = Duration::from_secs(30);

/// The SQLite engine. Clones share the workers and the connection budget.
#[derive(Debug, Clone)]
pub struct SqliteEngine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    workers: Workers,
    /// Everything that is not a request: provision, migrate, snapshot, restore …
    verbs: Lane,
    /// Verbs that hold a place for a connection, running or queued.
    verb_turns: Semaphore,
    budget: Budget,
    /// Room and reserve under each server's directory.
    disks: Disks,
    /// The disk of temporary files.
    temp: DiskGauge,
    clock: Clock,
    /// Requests that were answered at their deadline while a worker is still stuck in them.
    stuck: Arc<AtomicUsize>,
    /// What the verbs remember between calls.
    shared: verbs::Verbs,
    options: SqliteOptions,
}

impl SqliteEngine {
    /// Starts the workers, raises RLIMIT_NOFILE, sets umask 077, SQLite's limit on memory and the directory of its temporary
    /// files, and refuses a SQLite older than 3.51.3.
    ///
    /// # Errors
    /// When the library is too old, a thread cannot be started, or the options allow too little memory.
    pub fn new(options: SqliteOptions) -> Result<Self> {
        require_version(rusqlite::version_number())?;
        let threads = options.workers.unwrap_or_else(default_workers).max(REQUEST_THREADS_MIN + 1);
        umask(Mode::RWXG | Mode::RWXO);
        heap::limit(options.memory_bytes_max)?;
        let budget = Budget::new(options.connections_max);
        let turns = (VERBS_QUEUED * threads).min(budget.connections_max() / VERBS_SHARE).max(1);
        let inner = Inner {
            workers: Workers::start(threads)?,
            verbs: Lane::of_verbs(threads - REQUEST_THREADS_MIN),
            verb_turns: Semaphore::new(turns),
            budget,
            disks: Disks::default(),
            temp: temp_files::keep_in(&options.scratch),
            clock: Clock::start()?,
            stuck: Arc::default(),
            shared: verbs::Verbs::default(),
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Refuses new work, lets running work finish and ends the workers. A worker that is stuck in a statement is left
    /// behind after `SHUTDOWN_PATIENCE`: it has not committed, and its transaction ends with the process.
    pub async fn shutdown(&self) {
        let _ = tokio::time::timeout(SHUTDOWN_PATIENCE, self.inner.workers.shutdown()).await;
    }

    /// Whether so many workers are stuck in statements, beyond their deadlines, that the engine should get no requests.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.inner.stuck.load(Ordering::Relaxed) >= self.inner.workers.threads()
    }

    fn scratch(&self) -> &std::path::Path {
        &self.inner.options.scratch
    }

    fn verbs(&self) -> &verbs::Verbs {
        &self.inner.shared
    }

    /// Runs a verb's blocking part on the shared workers, at most `workers - 2` of them at once.
    /// Dropping the future before the work begins prevents it; work that has begun runs to its end.
    ///
    /// # Errors
    /// Those of `work`; [`ErrorKind::Closed`] after [`SqliteEngine::shutdown`].
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.inner.workers.run(&self.inner.verbs, work).await
    }

    /// As [`SqliteEngine::blocking`], for work that opens the database at a placement, once at a time: its descriptors
    /// are counted.
    ///
    /// # Errors
    /// Those of `work`; [`ErrorKind::ConnectionsMax`] when no descriptors came free in time.
    pub(crate) async fn blocking_on<T: Send + 'static>(
        &self,
        at: &Placement,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let deadline = Instant::now() + PLACE_WAIT;
        let _turn = match tokio::time::timeout_at(deadline.into(), self.inner.verb_turns.acquire()).await {
            Ok(Ok(turn)) => turn,
            _ => return Err(Error::new(ErrorKind::Busy, "the other work on databases takes too long")),
        };
        let place = self.inner.budget.place(&at.path(), Access::Write, deadline).await?;
        self.blocking(move || {
            let done = work();
            drop(place);
            done
        })
        .await
    }
}

/// Enough that a few tenants waiting for the disk do not hold up the others.
fn default_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (4 * cores).max(8)
}

fn require_version(found: i32) -> Result<()> {
    if found >= SQLITE_VERSION_MIN {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Internal,
        format!("this program was built with SQLite {found}; it needs {SQLITE_VERSION_MIN} (3.51.3) or newer"),
    ))
}

#[async_trait]
impl Engine for SqliteEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Sqlite
    }
    async fn survey(&self, server: &Server) -> Result<Survey> {
        survey::survey(self, server).await
    }
    async fn template(&self, _on: &Server, set: &MigrationSet) -> Result<Arc<Template>> {
        provision::template(self, set).await
    }
    async fn provision(&self, at: &Placement, template: &Template, identity: &Identity) -> Result<()> {
        provision::provision(self, at, template, identity).await
    }
    async fn connect(&self, at: &Placement, expected: &Expected) -> Result<Pool> {
        SqlitePool::connect(Arc::clone(&self.inner), at, expected).await.map(Pool::Sqlite)
    }
    async fn migrate(
        &self,
        at: &Placement,
        expected: &Expected,
        set: &MigrationSet,
        target: Option<i64>,
    ) -> Result<Migrated> {
        migrate::migrate(self, at, expected, set, target).await
    }
    async fn snapshot(&self, at: &Placement, expected: &Expected) -> Result<Snapshot> {
        snapshot::snapshot(self, at, expected).await
    }
    async fn restore(
        &self,
        at: &Placement,
        image: Image,
        source: crate::TenantId,
        identity: &Identity,
    ) -> Result<Restored> {
        restore::restore(self, at, image, source, identity).await
    }
    async fn stamp(&self, at: &Placement, expected: &Expected, identity: &Identity) -> Result<()> {
        stamp::stamp(self, at, expected, identity).await
    }
    async fn freeze(&self, at: &Placement, expected: &Expected, identity: &Identity) -> Result<()> {
        stamp::freeze(self, at, expected, identity).await
    }
    async fn drop_database(&self, at: &Placement, expected: Option<&Expected>) -> Result<()> {
        drop::drop_database(self, at, expected).await
    }
    async fn databases(&self, on: &Server, of: Option<crate::TenantId>) -> Result<Listing> {
        databases::databases(self, on, of).await
    }
    async fn quarantine(&self, on: &Server, found: &Found, expected: Option<&Expected>, label: &str) -> Result<String> {
        quarantine::quarantine(self, on, found, expected, label).await
    }
    async fn size(&self, at: &Placement) -> Result<u64> {
        inspect::size(self, at).await
    }

    async fn inspect(&self, at: &Placement, expected: Option<&Expected>, depth: Depth) -> Result<Inspection> {
        inspect::inspect(self, at, expected, depth).await
    }
    async fn fingerprint(&self, at: &Placement, expected: &Expected) -> Result<Fingerprint> {
        fingerprint::fingerprint(self, at, expected).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_new_enough_and_an_old_one_is_refused() {
        assert!(rusqlite::version_number() >= SQLITE_VERSION_MIN);
        assert!(require_version(rusqlite::version_number()).is_ok());
        assert!(require_version(3_051_002).is_err());
    }
}
