//! How many connections the process may hold open, over all pools and verbs.
//!
//! A connection costs file descriptors, and running out of those breaks the whole process, not one tenant. A pool or a
//! verb asks here before it opens a connection; when too few descriptors are free, idle connections of a pool that was
//! not used lately are closed (the clock algorithm: about least recently used, without a list to keep in order).
//! `descriptors.rs` counts what each connection really holds.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::descriptors::{OpenFiles, PER_CONNECTION, Place};
use super::pool::PoolInner;
use super::workers::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::Access;

/// Part of the descriptors that databases may use; the rest is for sockets, the catalog, backups and logs.
const DESCRIPTORS_SHARE: (u64, u64) = (3, 4);

/// When there is no limit on descriptors: memory is then the bound (about 120 KB a connection).
const CONNECTIONS_MAX: u64 = 20_000;

/// One writer and one reader, or nothing works at all.
const CONNECTIONS_MIN: u64 = 2;

/// How often a waiting pool looks for idle connections again: one may have come back just after it looked.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The free descriptors, and the pools whose idle connections can be taken away.
#[derive(Debug)]
pub(super) struct Budget {
    free: Arc<Semaphore>,
    total: usize,
    files: Arc<OpenFiles>,
    waiting: AtomicUsize,
    pools: Mutex<VecDeque<Weak<PoolInner>>>,
}

impl Budget {
    /// A budget for `connections_max` connections; `None`: what the limit on descriptors allows.
    pub(super) fn new(connections_max: Option<usize>) -> Self {
        let connections = connections_max.unwrap_or_else(|| connections_for(raise_descriptor_limit()));
        let connections = connections.clamp(CONNECTIONS_MIN as usize, Semaphore::MAX_PERMITS / PER_CONNECTION);
        let total = connections * PER_CONNECTION;
        Self {
            free: Arc::new(Semaphore::new(total)),
            total,
            files: Arc::default(),
            waiting: AtomicUsize::new(0),
            pools: Mutex::new(VecDeque::new()),
        }
    }

    /// Makes the pool's idle connections available to others in need.
    pub(super) fn register(&self, pool: &Arc<PoolInner>) {
        let mut pools = lock(&self.pools);
        // Each time the queue would have to grow, what is gone is removed first: constant work per pool.
        if pools.len() == pools.capacity() {
            pools.retain(|pool| pool.strong_count() > 0);
        }
        pools.push_back(Arc::downgrade(pool));
    }

    /// Connections that fit at once.
    pub(super) fn connections_max(&self) -> usize {
        self.total / PER_CONNECTION
    }

    /// A place for one more connection to `path`; waits until `deadline`.
    ///
    /// # Errors
    /// [`ErrorKind::ConnectionsMax`] when none came free in time.
    pub(super) async fn place(&self, path: &Path, access: Access, deadline: Instant) -> Result<Place> {
        let mut place = Place::begin(&self.files, path.to_path_buf(), access);
        let rest = self.descriptors(place.missing(), deadline).await?;
        place.complete(rest);
        Ok(place)
    }

    async fn descriptors(&self, wanted: usize, deadline: Instant) -> Result<OwnedSemaphorePermit> {
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        if let Ok(free) = Arc::clone(&self.free).try_acquire_many_owned(wanted) {
            return Ok(free);
        }
        let _waiting = Waiting::begin(&self.waiting);
        let free = Arc::clone(&self.free).acquire_many_owned(wanted);
        tokio::pin!(free);
        while Instant::now() < deadline {
            self.close_idle_of_one();
            let look_again = deadline.min(Instant::now() + LOOK_AGAIN);
            if let Ok(free) = tokio::time::timeout_at(look_again.into(), &mut free).await {
                return free.map_err(|_| full());
            }
        }
        Err(full())
    }

    /// True while somebody waits: a connection that comes back had better be closed.
    pub(super) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Closes the idle connections of the first pool that was not used since the hand last passed.
    fn close_idle_of_one(&self) {
        let mut pools = lock(&self.pools);
        for _ in 0..2 * pools.len() {
            let Some(weak) = pools.pop_front() else { return };
            let Some(pool) = weak.upgrade() else { continue };
            pools.push_back(weak);
            if !pool.take_used() && pool.has_idle() {
                drop(pools);
                return pool.close_idle();
            }
        }
    }
}

/// Counts the caller as waiting while it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn full() -> Error {
    Error::new(
        ErrorKind::ConnectionsMax,
        "every database connection this process may open is in use; raise the limit on open files or try again",
    )
}

/// Raises the soft limit on descriptors to the hard one and returns it; `None`: unlimited.
fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files stays as it is");
            limit.current
        }
    }
}

fn connections_for(descriptors: Option<u64>) -> usize {
    let (share, of) = DESCRIPTORS_SHARE;
    let connections = descriptors.map_or(CONNECTIONS_MAX, |n| n / of * share / PER_CONNECTION as u64);
    usize::try_from(connections.clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_follow_the_limit_on_descriptors() {
        assert_eq!(connections_for(Some(20_000)), 5_000);
        assert_eq!(connections_for(Some(1_024)), 256);
        assert_eq!(connections_for(Some(3)), 2);
        assert_eq!(connections_for(Some(u64::MAX)), 20_000);
        assert_eq!(connections_for(None), 20_000);
    }
}
