//! The connections of one tenant's file: plain values that the shared workers use.
//!
//! A pool has a few slots for readers and one for the writer. Callers wait for a slot in order, and the owner of a slot
//! may use an idle connection or open one. Sessions (`session.rs`) take connections out as leases (`lease.rs`). A pool
//! needs no thread and no task.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::connection::{ConnectionCounter, SqliteTenantConnection};
use super::lease::SqliteLease;
use super::log::WriteAheadLog;
use super::session::{SqliteSession, with_transaction};
use super::streaming::{TENANT_STREAMS_MAX, stream_rows};
use super::transaction::SqliteTx;
use super::workers::{WorkerJob, WorkerLane};
use crate::answers::AnswerShare;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::ExpectedIdentity;
use crate::placement::Placement;
use crate::row_reader::RowReader;
use crate::row_stream::RowStream;
use crate::sqlite::SqliteEngineInner;
use crate::sqlite::error::about_file;
use crate::sqlite::identity::IdentityFence;
use crate::sqlite::locks::lock_ignoring_poison;
use crate::sqlite::storage::disks::ServerDisk;
use crate::statement::{AccessMode, SessionLimits, SqlStatement};

/// Readers of one tenant at once. A point read takes microseconds. More readers would only help scans, and scans must
/// not occupy every worker.
const READERS_MAX: usize = 4;

/// Callers that may wait for a slot of one tenant. At 10 µs per read and 1 ms per write, this is a second of writes.
/// Later callers are refused at once instead of after a timeout.
const WAITING_MAX: usize = 1_024;

/// Read connections and one writer slot of one tenant. Clones are one pool.
#[derive(Debug, Clone)]
pub struct SqlitePool {
    inner: Arc<SqlitePoolInner>,
    answers: AnswerShare,
}

impl SqlitePool {
    /// Opens one reader and checks the identity of the database.
    pub(in crate::sqlite) async fn open_pool(
        engine: Arc<SqliteEngineInner>,
        at: &Placement,
        expected: &ExpectedIdentity,
    ) -> Result<Self> {
        let lane = WorkerLane::new((engine.workers.thread_count() / 4).max(2));
        let inner = Arc::new(SqlitePoolInner {
            path: at.file_path(),
            disk: engine.disks.under_root(at.server_root()),
            log: WriteAheadLog::for_database(&at.file_path()),
            fence: IdentityFence::new(expected.clone()),
            lane,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            writer: Arc::new(Semaphore::new(1)),
            streams: Arc::new(Semaphore::new(TENANT_STREAMS_MAX)),
            waiting: AtomicUsize::new(0),
            idle: Mutex::new(IdleConnections::default()),
            counter: Arc::default(),
            used: AtomicBool::new(true),
            engine,
        });
        inner.engine.budget.register_pool(&inner);
        let pool = Self { inner, answers: AnswerShare::default() };
        pool.with_transaction(AccessMode::Read, SessionLimits::default(), |_| Ok(())).await?;
        Ok(pool)
    }

    /// Runs a closure with many statements in one call to a worker and one transaction. The transaction is committed
    /// when the closure returns `Ok`, and rolled back when it returns `Err` or panics. The closure blocks a worker: it
    /// must not wait for anything but the database.
    ///
    /// # Errors
    /// The closure's; those of [`crate::DatabaseSession::run_statements`].
    pub async fn with_transaction<T: Send + 'static>(
        &self,
        access: AccessMode,
        limits: SessionLimits,
        work: impl FnOnce(&SqliteTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        with_transaction(&self.inner, access, limits, &self.answers, work).await
    }

    pub(crate) fn new_session(&self, access: AccessMode, limits: SessionLimits) -> SqliteSession {
        SqliteSession::new(Arc::clone(&self.inner), access, limits, self.answers.clone())
    }

    pub(crate) async fn read_rows<R: RowReader>(
        &self,
        statement: SqlStatement,
        limits: SessionLimits,
        mut reader: R,
    ) -> Result<R> {
        let read = move |tx: &SqliteTx<'_>| tx.read_query(&statement, &mut reader).map(|()| reader);
        self.with_transaction(AccessMode::Read, limits, read).await
    }

    pub(crate) async fn stream_rows(&self, statement: SqlStatement, limits: SessionLimits) -> Result<RowStream> {
        stream_rows(&self.inner, limits, &self.answers, statement).await
    }

    pub(crate) fn with_answer_share(self, answers: AnswerShare) -> Self {
        Self { answers, ..self }
    }

    pub(crate) fn answer_share(&self) -> &AnswerShare {
        &self.answers
    }

    pub(crate) async fn close(&self) {
        self.inner.close();
        self.inner.counter.wait_until_drained().await;
    }

    pub(crate) fn close_idle(&self) {
        self.inner.close_idle();
    }

    pub(crate) fn connection_count(&self) -> usize {
        self.inner.counter.open_count()
    }
}

/// The state that the clones of a pool and its sessions share.
#[derive(Debug)]
pub(super) struct SqlitePoolInner {
    path: PathBuf,
    disk: Arc<ServerDisk>,
    log: WriteAheadLog,
    fence: IdentityFence,
    lane: WorkerLane,
    readers: Arc<Semaphore>,
    writer: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    waiting: AtomicUsize,
    idle: Mutex<IdleConnections>,
    counter: Arc<ConnectionCounter>,
    /// Set by every checkout, cleared by the clock hand of the budget.
    used: AtomicBool,
    engine: Arc<SqliteEngineInner>,
}

/// Connections that are not in use.
#[derive(Debug, Default)]
struct IdleConnections {
    /// Last in, first out: the connection with the warmest cache is used again, the others age.
    readers: Vec<SqliteTenantConnection>,
    writer: Option<SqliteTenantConnection>,
    closed: bool,
}

impl IdleConnections {
    fn take_all(&mut self) -> Vec<SqliteTenantConnection> {
        let mut all = std::mem::take(&mut self.readers);
        // The writer is closed last, because the last connection cleans up the write-ahead log.
        all.extend(self.writer.take());
        all
    }
}

impl SqlitePoolInner {
    pub(super) fn engine_inner(&self) -> &SqliteEngineInner {
        &self.engine
    }

    /// The places of this tenant's streams.
    pub(super) fn streams(&self) -> &Arc<Semaphore> {
        &self.streams
    }

    pub(super) fn worker_lane(&self) -> &WorkerLane {
        &self.lane
    }

    pub(super) fn file_path(&self) -> &Path {
        &self.path
    }

    pub(super) fn identity_fence(&self) -> &IdentityFence {
        &self.fence
    }

    /// Refuses a write that would fill the disk, or when the log has reached its limit. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::DiskLow`], [`ErrorKind::LogMax`].
    pub(super) fn may_write(&self, conn: &SqliteTenantConnection) -> Result<()> {
        self.disk.gauge.require_free_room()?;
        self.log.bound_size(conn)
    }

    /// Queues a job on this tenant's lane.
    pub(super) fn submit_job(&self, job: WorkerJob) -> Result<()> {
        self.engine.workers.submit_job(&self.lane, job)
    }

    /// Waits for a slot and takes an idle connection, or the right to open one, until `deadline`.
    pub(super) async fn check_out(self: &Arc<Self>, access: AccessMode, deadline: Instant) -> Result<SqliteLease> {
        self.used.store(true, Ordering::Relaxed);
        let slot = self.take_slot(access, deadline).await?;
        if let Some(conn) = self.take_idle(access)? {
            return Ok(SqliteLease::of_idle(Arc::clone(self), access, slot, conn));
        }
        let place = self.engine.budget.take_place(&self.path, access, deadline).await?;
        Ok(SqliteLease::to_open(Arc::clone(self), access, slot, place))
    }

    /// Opens a connection. Blocks.
    pub(super) fn open_connection(&self, access: AccessMode) -> Result<SqliteTenantConnection> {
        // Even a reader makes files beside the database.
        self.disk.reserve.make_room();
        let conn =
            SqliteTenantConnection::open(&self.path, access, &self.fence, &self.counter, self.engine.temp.clone())
                .map_err(|error| about_file(error, &self.path))?;
        if access == AccessMode::Write {
            conn.sandbox_guard().watch_disk(self.disk.gauge.clone());
        }
        Ok(conn)
    }

    /// Takes a connection back into the pool. A connection that is not wanted is returned, to be closed on a worker.
    pub(super) fn put_back(&self, access: AccessMode, conn: SqliteTenantConnection) -> Option<SqliteTenantConnection> {
        let mut idle = lock_ignoring_poison(&self.idle);
        if idle.closed || self.engine.budget.is_short() {
            return Some(conn);
        }
        match access {
            AccessMode::Read => idle.readers.push(conn),
            AccessMode::Write => return idle.writer.replace(conn),
        }
        None
    }

    /// True when the pool was used since the last call.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    pub(super) fn has_idle(&self) -> bool {
        let idle = lock_ignoring_poison(&self.idle);
        idle.writer.is_some() || !idle.readers.is_empty()
    }

    /// Closes the connections that are not in use, on a worker.
    pub(super) fn close_idle(&self) {
        let conns = lock_ignoring_poison(&self.idle).take_all();
        self.close_later(conns);
    }

    fn close(&self) {
        let conns = {
            let mut idle = lock_ignoring_poison(&self.idle);
            idle.closed = true;
            idle.take_all()
        };
        self.readers.close();
        self.writer.close();
        self.streams.close();
        self.close_later(conns);
    }

    fn close_later(&self, conns: Vec<SqliteTenantConnection>) {
        if !conns.is_empty() {
            // Refused only at shutdown: then they are closed here.
            let _ = self.submit_job(Box::new(move || drop(conns)));
        }
    }

    fn take_idle(&self, access: AccessMode) -> Result<Option<SqliteTenantConnection>> {
        let mut idle = lock_ignoring_poison(&self.idle);
        if idle.closed {
            return Err(pool_closed());
        }
        Ok(match access {
            AccessMode::Read => idle.readers.pop(),
            AccessMode::Write => idle.writer.take(),
        })
    }

    async fn take_slot(&self, access: AccessMode, deadline: Instant) -> Result<OwnedSemaphorePermit> {
        let slots = match access {
            AccessMode::Read => &self.readers,
            AccessMode::Write => &self.writer,
        };
        match Arc::clone(slots).try_acquire_owned() {
            Ok(slot) => Ok(slot),
            Err(TryAcquireError::Closed) => Err(pool_closed()),
            Err(TryAcquireError::NoPermits) => self.wait_for_slot(slots, deadline).await,
        }
    }

    async fn wait_for_slot(&self, slots: &Arc<Semaphore>, deadline: Instant) -> Result<OwnedSemaphorePermit> {
        let _waiting = SlotWait::start_waiting(&self.waiting)?;
        match tokio::time::timeout_at(deadline.into(), Arc::clone(slots).acquire_owned()).await {
            Ok(slot) => slot.map_err(|_| pool_closed()),
            Err(_) => Err(Error::new(ErrorKind::Busy, "other requests kept this database busy for too long")),
        }
    }
}

impl Drop for SqlitePoolInner {
    fn drop(&mut self) {
        self.close_idle();
    }
}

/// Counts the caller as waiting until it is dropped.
struct SlotWait<'a>(&'a AtomicUsize);

impl<'a> SlotWait<'a> {
    fn start_waiting(count: &'a AtomicUsize) -> Result<Self> {
        let waiting = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) < WAITING_MAX {
            return Ok(waiting);
        }
        Err(Error::new(ErrorKind::Busy, format!("{WAITING_MAX} requests are already waiting for this database")))
    }
}

impl Drop for SlotWait<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn pool_closed() -> Error {
    Error::new(ErrorKind::Closed, "the connections to this database are being closed")
}
