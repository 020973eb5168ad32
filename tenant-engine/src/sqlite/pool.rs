//! The connections of one tenant's file: plain values, run by the shared workers.
//!
//! A pool has a few slots for readers and one for the writer; a slot is waited for in order, and whoever has one may
//! use an idle connection or open one. Sessions (`session.rs`) check connections out as leases (`lease.rs`). A pool
//! costs no thread and no task.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::Inner;
use super::connection::{Conn, Counter};
use super::disks::Disk;
use super::identity::Fence;
use super::lease::Lease;
use super::log::Log;
use super::session::{SqliteSession, with};
use super::transaction::SqliteTx;
use super::workers::{Job, Lane, lock};
use crate::answers::AnswerShare;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Expected;
use crate::placement::Placement;
use crate::pool::{Access, Limits};

/// Readers of one tenant at once. A point read takes microseconds: more would only help scans, and those are what
/// must not take every worker.
const READERS_MAX: usize = 4;

/// Callers that may wait for a slot of one tenant. At 10 µs a read and 1 ms a write this is a second of writes; who
/// comes later is told at once instead of after a timeout.
const WAITING_MAX: usize = 1_024;

/// Read connections and one writer slot of one tenant. Clones are one pool.
#[derive(Debug, Clone)]
pub struct SqlitePool {
    inner: Arc<PoolInner>,
    answers: AnswerShare,
}

impl SqlitePool {
    /// Opens one reader and checks whose database it is.
    pub(super) async fn connect(engine: Arc<Inner>, at: &Placement, expected: &Expected) -> Result<Self> {
        let lane = Lane::new((engine.workers.threads() / 4).max(2));
        let inner = Arc::new(PoolInner {
            path: at.path(),
            disk: engine.disks.of(at.root()),
            log: Log::of(&at.path()),
            fence: Fence::new(expected.clone()),
            lane,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            writer: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
            idle: Mutex::new(Idle::default()),
            counter: Arc::default(),
            used: AtomicBool::new(true),
            engine,
        });
        inner.engine.budget.register(&inner);
        let pool = Self { inner, answers: AnswerShare::default() };
        pool.with(Access::Read, Limits::default(), |_| Ok(())).await?;
        Ok(pool)
    }

    /// Runs a closure with many statements in one hop and one transaction, which is committed when it returns `Ok`
    /// and rolled back when it returns `Err` or panics. The closure blocks a worker: it must not wait for anything
    /// but the database.
    ///
    /// # Errors
    /// The closure's; those of [`crate::Session::run`].
    pub async fn with<T: Send + 'static>(
        &self,
        access: Access,
        limits: Limits,
        work: impl FnOnce(&SqliteTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        with(&self.inner, access, limits, &self.answers, work).await
    }

    pub(crate) fn session(&self, access: Access, limits: Limits) -> SqliteSession {
        SqliteSession::new(Arc::clone(&self.inner), access, limits, self.answers.clone())
    }

    pub(crate) fn counting(self, answers: AnswerShare) -> Self {
        Self { answers, ..self }
    }

    pub(crate) fn answers(&self) -> &AnswerShare {
        &self.answers
    }

    pub(crate) async fn close(&self) {
        self.inner.close();
        self.inner.counter.drained().await;
    }

    pub(crate) fn close_idle(&self) {
        self.inner.close_idle();
    }

    pub(crate) fn connections(&self) -> usize {
        self.inner.counter.open()
    }
}

/// What the clones of a pool and its sessions share.
#[derive(Debug)]
pub(super) struct PoolInner {
    path: PathBuf,
    disk: Arc<Disk>,
    log: Log,
    fence: Fence,
    lane: Lane,
    readers: Arc<Semaphore>,
    writer: Arc<Semaphore>,
    waiting: AtomicUsize,
    idle: Mutex<Idle>,
    counter: Arc<Counter>,
    /// Set by every checkout, cleared by the budget's passing hand.
    used: AtomicBool,
    engine: Arc<Inner>,
}

/// Connections nobody uses.
#[derive(Debug, Default)]
struct Idle {
    /// Last in, first out: the warmest cache is used again, the others age.
    readers: Vec<Conn>,
    writer: Option<Conn>,
    closed: bool,
}

impl Idle {
    fn take_all(&mut self) -> Vec<Conn> {
        let mut all = std::mem::take(&mut self.readers);
        // The writer is closed last: as the last connection it cleans up the write-ahead log.
        all.extend(self.writer.take());
        all
    }
}

impl PoolInner {
    pub(super) fn engine(&self) -> &Inner {
        &self.engine
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Refuses a write that would fill the disk, or a log that is as large as it may become. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::DiskLow`], [`ErrorKind::LogMax`].
    pub(super) fn may_write(&self, conn: &Conn) -> Result<()> {
        self.disk.gauge.check()?;
        self.log.bound(conn)
    }

    /// Queues a job on this tenant's lane.
    pub(super) fn submit(&self, job: Job) -> Result<()> {
        self.engine.workers.submit(&self.lane, job)
    }

    /// Waits for a slot and takes an idle connection, or the right to open one, until `deadline`.
    pub(super) async fn check_out(self: &Arc<Self>, access: Access, deadline: Instant) -> Result<Lease> {
        self.used.store(true, Ordering::Relaxed);
        let slot = self.slot(access, deadline).await?;
        if let Some(conn) = self.take_idle(access)? {
            return Ok(Lease::of_idle(Arc::clone(self), access, slot, conn));
        }
        let place = self.engine.budget.place(&self.path, access, deadline).await?;
        Ok(Lease::to_open(Arc::clone(self), access, slot, place))
    }

    /// Opens a connection. Blocks.
    pub(super) fn open(&self, access: Access) -> Result<Conn> {
        // Even a reader makes files beside the database.
        self.disk.reserve.make_room();
        let conn = Conn::open(&self.path, access, &self.fence, &self.counter, self.engine.temp.clone())?;
        if access == Access::Write {
            conn.guard().watch_disk(self.disk.gauge.clone());
        }
        Ok(conn)
    }

    /// Takes a connection back into the pool; one that is not wanted is returned, to be closed on a worker.
    pub(super) fn put(&self, access: Access, conn: Conn) -> Option<Conn> {
        let mut idle = lock(&self.idle);
        if idle.closed || self.engine.budget.is_short() {
            return Some(conn);
        }
        match access {
            Access::Read => idle.readers.push(conn),
            Access::Write => return idle.writer.replace(conn),
        }
        None
    }

    /// True once since the last check-out.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    pub(super) fn has_idle(&self) -> bool {
        let idle = lock(&self.idle);
        idle.writer.is_some() || !idle.readers.is_empty()
    }

    /// Closes what nobody uses, on a worker.
    pub(super) fn close_idle(&self) {
        let conns = lock(&self.idle).take_all();
        self.close_later(conns);
    }

    fn close(&self) {
        let conns = {
            let mut idle = lock(&self.idle);
            idle.closed = true;
            idle.take_all()
        };
        self.readers.close();
        self.writer.close();
        self.close_later(conns);
    }

    fn close_later(&self, conns: Vec<Conn>) {
        if !conns.is_empty() {
            // Refused only at shutdown: then they are closed here and now.
            let _ = self.submit(Box::new(move || drop(conns)));
        }
    }

    fn take_idle(&self, access: Access) -> Result<Option<Conn>> {
        let mut idle = lock(&self.idle);
        if idle.closed {
            return Err(closed());
        }
        Ok(match access {
            Access::Read => idle.readers.pop(),
            Access::Write => idle.writer.take(),
        })
    }

    async fn slot(&self, access: Access, deadline: Instant) -> Result<OwnedSemaphorePermit> {
        let slots = match access {
            Access::Read => &self.readers,
            Access::Write => &self.writer,
        };
        match Arc::clone(slots).try_acquire_owned() {
            Ok(slot) => Ok(slot),
            Err(TryAcquireError::Closed) => Err(closed()),
            Err(TryAcquireError::NoPermits) => self.wait_for_slot(slots, deadline).await,
        }
    }

    async fn wait_for_slot(&self, slots: &Arc<Semaphore>, deadline: Instant) -> Result<OwnedSemaphorePermit> {
        let _waiting = Waiting::begin(&self.waiting)?;
        match tokio::time::timeout_at(deadline.into(), Arc::clone(slots).acquire_owned()).await {
            Ok(slot) => slot.map_err(|_| closed()),
            Err(_) => Err(Error::new(ErrorKind::Busy, "other requests kept this database busy for too long")),
        }
    }
}

impl Drop for PoolInner {
    fn drop(&mut self) {
        self.close_idle();
    }
}

/// Counts the caller as waiting while it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Result<Self> {
        let waiting = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) < WAITING_MAX {
            return Ok(waiting);
        }
        Err(Error::new(ErrorKind::Busy, format!("{WAITING_MAX} requests are already waiting for this database")))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the connections to this database are being closed")
}
