//! SQLite: one file per tenant.
//!
//! A folder imports only from folders to its left, and from the files beside this one; a test enforces it. The files
//! beside this one import from no folder.
//!
//! ```text
//! limits  ◀──  storage  ◀──  migrations  ◀──  requests  ◀──  actions
//! ```
//!
//! - `limits/` bounds what SQLite computes for a text, a schema or the process.
//! - `storage/` is the file of a database: its bytes, its disk, and why no data is lost.
//! - `migrations/` applies one version to one open database.
//! - `requests/` has the connections and transactions of tenants' requests, and the threads of all SQLite calls.
//! - `actions/` has a file for each method of [`Engine`].

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::disk::DiskGauge;
use crate::engine::{DatabaseTemplate, Engine, MigrationOutcome};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::DatabaseFingerprint;
use crate::identity::{ExpectedIdentity, Identity};
use crate::inspection::{Inspection, InspectionDepth};
use crate::listing::{ListedObject, ServerListing};
use crate::migration::MigrationSet;
use crate::placement::{EngineKind, Placement};
use crate::pool::Pool;
use crate::server::{DatabaseServer, ServerSurvey};
use crate::snapshot::{RestoreOutcome, Snapshot, SnapshotImage};
use crate::statement::AccessMode;

use actions::{
    databases, drop, fingerprint, inspect, migrate, provision, quarantine, restore, snapshot, stamp, survey, template,
};
use limits::{heap, temp_files};
use requests::budget::DescriptorBudget;
use requests::streaming::STREAMS_MAX;
use requests::transaction_deadlines::TransactionDeadlines;
use requests::workers::{ThreadPriority, WorkerLane, WorkerThreads};
use storage::disks::ServerDisks;
use storage::shared_state;
use tokio::sync::Semaphore;

mod actions;
pub(crate) mod error;
pub(crate) mod identity;
mod limits;
mod locks;
mod migrations;
mod requests;
mod storage;

#[cfg(feature = "test-util")]
pub(crate) use actions::memory;
pub(crate) use migrations::rules::migration_refusals;
pub(crate) use storage::image::content_hash;

pub use error::from_rusqlite;
pub use requests::lent::RusqliteTx;
pub use requests::pool::SqlitePool;
pub use requests::session::SqliteSession;
pub use requests::transaction::SqliteTx;

/// Settings of the SQLite engine; the defaults are for a machine without other programs.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Blocking worker threads that all tenants share; `None`: max(8, 4 × cores).
    pub workers: Option<usize>,
    /// Connections that requests and engine operations of this process may hold open, at three descriptors each;
    /// `None`: a share of the process's limit of open files.
    pub connections_max: Option<usize>,
    /// Maximum memory of SQLite in this process in bytes, at least 256 MiB; `None`: half of the machine's memory.
    pub memory_bytes_max: Option<u64>,
    /// Directory for SQLite's temporary files and for snapshots that are too large for memory; its disk must have free
    /// space.
    pub scratch: PathBuf,
}

impl SqliteOptions {
    /// The default settings, with this scratch directory.
    #[must_use]
    pub fn new(scratch: impl Into<PathBuf>) -> Self {
        Self { workers: None, connections_max: None, memory_bytes_max: None, scratch: scratch.into() }
    }
}

/// The first SQLite whose write-ahead log cannot be reset under a reader; older ones may corrupt a database.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// Engine operations have this many threads fewer than requests.
const REQUEST_THREADS_MIN: usize = 2;

/// How long the workers may take to end: longer than the statements of requests may run.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);

/// Engine operations per thread that already have their place, so that no thread waits for the next operation.
const VERBS_QUEUED: usize = 4;

/// Engine operations hold at most one in this many places, because requests need the others.
const VERBS_SHARE: usize = 4;

/// How long an engine operation waits for its turn and its place. Usually this takes milliseconds, unless every
/// connection is in a long transaction. The runner tries again later anyway.
const PLACE_WAIT: Duration = Duration::from_secs(30);

/// The SQLite engine. Clones share the workers and the connection budget.
#[derive(Debug, Clone)]
pub struct SqliteEngine {
    inner: Arc<SqliteEngineInner>,
}

#[derive(Debug)]
struct SqliteEngineInner {
    /// The threads of requests.
    workers: WorkerThreads,
    /// The threads of engine operations.
    operation_workers: WorkerThreads,
    /// The lane of all work other than requests: provision, migrate, snapshot, restore …
    verbs: WorkerLane,
    /// Limits the engine operations that hold a place for a connection, running or queued.
    verb_turns: Semaphore,
    budget: DescriptorBudget,
    /// Free space and reserve under each server's directory.
    disks: ServerDisks,
    /// The disk of temporary files.
    temp: DiskGauge,
    clock: TransactionDeadlines,
    /// The places of streams, which have threads of their own.
    streams: Arc<Semaphore>,
    /// Number of requests that were answered at their deadline while a worker is still stuck in them.
    stuck: Arc<AtomicUsize>,
    /// The state that engine operations keep between calls.
    shared: shared_state::SharedState,
    options: SqliteOptions,
}

impl SqliteEngine {
    /// Starts the workers, and sets SQLite's memory limit and the directory of its temporary files, both for the whole
    /// process. Refuses a SQLite older than 3.51.3. Umask, limits and signals of the process stay as they are.
    ///
    /// # Errors
    /// When the library is too old, a thread cannot be started, or the options allow too little memory.
    pub fn new(options: SqliteOptions) -> Result<Self> {
        require_version(rusqlite::version_number())?;
        let threads = options.workers.unwrap_or_else(default_workers).max(REQUEST_THREADS_MIN + 1);
        heap::limit_heap(options.memory_bytes_max)?;
        let budget = DescriptorBudget::new(options.connections_max);
        let turns = (VERBS_QUEUED * threads).min(budget.connections_max() / VERBS_SHARE).max(1);
        let inner = SqliteEngineInner {
            workers: WorkerThreads::start_threads(threads, ThreadPriority::Normal)?,
            operation_workers: WorkerThreads::start_threads(threads - REQUEST_THREADS_MIN, ThreadPriority::Low)?,
            verbs: WorkerLane::of_verbs(threads - REQUEST_THREADS_MIN),
            verb_turns: Semaphore::new(turns),
            budget,
            disks: ServerDisks::default(),
            temp: temp_files::keep_in(&options.scratch),
            clock: TransactionDeadlines::start_thread()?,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            stuck: Arc::default(),
            shared: shared_state::SharedState::default(),
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Refuses new work, lets running work finish and ends the workers. A worker that is stuck in a statement is
    /// abandoned after `SHUTDOWN_PATIENCE`: it has not committed, and its transaction ends with the process.
    pub async fn shut_down(&self) {
        let both = async { tokio::join!(self.inner.workers.shut_down(), self.inner.operation_workers.shut_down()) };
        let _ = tokio::time::timeout(SHUTDOWN_PATIENCE, both).await;
    }

    /// True when so many workers are stuck in statements beyond their deadlines that the engine should get no requests.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.inner.stuck.load(Ordering::Relaxed) >= self.inner.workers.thread_count()
    }

    fn scratch_directory(&self) -> &std::path::Path {
        &self.inner.options.scratch
    }

    fn shared_state(&self) -> &shared_state::SharedState {
        &self.inner.shared
    }

    /// Runs the blocking part of an engine operation on the threads of operations, at most `workers - 2` of them at once.
    /// Dropping the future before the work begins prevents it; work that has begun runs to its end.
    ///
    /// # Errors
    /// Those of `work`; [`ErrorKind::Closed`] after [`SqliteEngine::shut_down`].
    pub(crate) async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.inner.operation_workers.run_job(&self.inner.verbs, work).await
    }

    /// As [`SqliteEngine::run_blocking`], for work that opens one connection at a time to the database at a placement:
    /// its descriptors are counted.
    ///
    /// # Errors
    /// Those of `work`; [`ErrorKind::ConnectionsMax`] when no descriptors became free in time.
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
        let place = self.inner.budget.take_place(&at.file_path(), AccessMode::Write, deadline).await?;
        self.run_blocking(move || {
            let done = work();
            drop(place);
            done
        })
        .await
    }
}

/// Enough threads that a few tenants waiting for the disk do not delay the others.
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
    async fn survey_server(&self, server: &DatabaseServer) -> Result<ServerSurvey> {
        survey::survey_server(self, server).await
    }
    async fn prepare_template(&self, _on: &DatabaseServer, set: &MigrationSet) -> Result<Arc<DatabaseTemplate>> {
        template::prepare_template(self, set).await
    }
    async fn provision_database(&self, at: &Placement, template: &DatabaseTemplate, identity: &Identity) -> Result<()> {
        provision::provision_database(self, at, template, identity).await
    }
    async fn open_pool(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<Pool> {
        SqlitePool::open_pool(Arc::clone(&self.inner), at, expected).await.map(Pool::Sqlite)
    }
    async fn migrate_database(
        &self,
        at: &Placement,
        expected: &ExpectedIdentity,
        set: &MigrationSet,
        target: Option<i64>,
    ) -> Result<MigrationOutcome> {
        migrate::migrate_database(self, at, expected, set, target).await
    }
    async fn take_snapshot(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<Snapshot> {
        snapshot::take_snapshot(self, at, expected).await
    }
    async fn restore_database(
        &self,
        at: &Placement,
        image: SnapshotImage,
        source: crate::TenantId,
        identity: &Identity,
    ) -> Result<RestoreOutcome> {
        restore::restore_database(self, at, image, source, identity).await
    }
    async fn stamp_identity(&self, at: &Placement, expected: &ExpectedIdentity, identity: &Identity) -> Result<()> {
        stamp::stamp_identity(self, at, expected, identity).await
    }
    async fn freeze_database(&self, at: &Placement, expected: &ExpectedIdentity, identity: &Identity) -> Result<()> {
        stamp::freeze_database(self, at, expected, identity).await
    }
    async fn drop_database(&self, at: &Placement, expected: Option<&ExpectedIdentity>) -> Result<()> {
        drop::drop_database(self, at, expected).await
    }
    async fn list_databases(&self, on: &DatabaseServer, of: Option<crate::TenantId>) -> Result<ServerListing> {
        databases::list_databases(self, on, of).await
    }
    async fn quarantine_object(
        &self,
        on: &DatabaseServer,
        found: &ListedObject,
        expected: Option<&ExpectedIdentity>,
        label: &str,
    ) -> Result<String> {
        quarantine::quarantine_object(self, on, found, expected, label).await
    }
    async fn database_size(&self, at: &Placement) -> Result<u64> {
        inspect::database_size(self, at).await
    }

    async fn inspect_database(
        &self,
        at: &Placement,
        expected: Option<&ExpectedIdentity>,
        depth: InspectionDepth,
    ) -> Result<Inspection> {
        inspect::inspect_database(self, at, expected, depth).await
    }
    async fn compute_fingerprint(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<DatabaseFingerprint> {
        fingerprint::compute_fingerprint(self, at, expected).await
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
