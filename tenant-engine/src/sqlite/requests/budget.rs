//! Limits the connections that the process holds open, over all pools and engine operations.
//!
//! A connection costs file descriptors, and running out of them breaks the whole process, not one tenant. A pool or an
//! operation asks here before it opens a connection. When too few descriptors are free, idle connections of a pool that
//! was not used lately are closed. The pool is found by the clock algorithm: about the least recently used, without an
//! ordered list. `storage/descriptors.rs` counts the descriptors that each connection really holds.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::pool::SqlitePoolInner;
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::locks::lock_ignoring_poison;
use crate::sqlite::storage::descriptors::{ConnectionPlace, OpenFiles, PER_CONNECTION};
use crate::statement::AccessMode;

/// The part of the descriptors that databases may use; the rest is for sockets, the catalog, backups and logs.
const DESCRIPTORS_SHARE: (u64, u64) = (3, 4);

/// Maximum without a limit on descriptors: memory is then the bound (about 120 KB per connection).
const CONNECTIONS_MAX: u64 = 20_000;

/// One writer and one reader, otherwise no request can be served.
const CONNECTIONS_MIN: u64 = 2;

/// How often a waiting pool looks for idle connections again: one may have been returned just after it looked.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The free descriptors, and the pools whose idle connections may be closed.
#[derive(Debug)]
pub(in crate::sqlite) struct DescriptorBudget {
    free: Arc<Semaphore>,
    total: usize,
    files: Arc<OpenFiles>,
    waiting: AtomicUsize,
    pools: Mutex<VecDeque<Weak<SqlitePoolInner>>>,
}

impl DescriptorBudget {
    /// A budget for `connections_max` connections; `None`: as many as the process's limit of open files allows.
    pub(in crate::sqlite) fn new(connections_max: Option<usize>) -> Self {
        let connections = connections_max.unwrap_or_else(|| connections_for(getrlimit(Resource::Nofile).current));
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

    /// Makes the pool's idle connections available to other pools.
    pub(super) fn register_pool(&self, pool: &Arc<SqlitePoolInner>) {
        let mut pools = lock_ignoring_poison(&self.pools);
        // Each time the queue would have to grow, closed pools are removed first: constant work per pool.
        if pools.len() == pools.capacity() {
            pools.retain(|pool| pool.strong_count() > 0);
        }
        pools.push_back(Arc::downgrade(pool));
    }

    /// Maximum number of connections at one time.
    pub(in crate::sqlite) fn connections_max(&self) -> usize {
        self.total / PER_CONNECTION
    }

    /// Takes a place for one more connection to `path`; waits until `deadline`.
    ///
    /// # Errors
    /// [`ErrorKind::ConnectionsMax`] when no place became free in time.
    pub(in crate::sqlite) async fn take_place(
        &self,
        path: &Path,
        access: AccessMode,
        deadline: Instant,
    ) -> Result<ConnectionPlace> {
        let mut place = ConnectionPlace::begin_place(&self.files, path.to_path_buf(), access);
        let rest = self.take_descriptors(place.missing_count(), deadline).await?;
        place.complete_place(rest);
        Ok(place)
    }

    async fn take_descriptors(&self, wanted: usize, deadline: Instant) -> Result<OwnedSemaphorePermit> {
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        if let Ok(free) = Arc::clone(&self.free).try_acquire_many_owned(wanted) {
            return Ok(free);
        }
        let _waiting = DescriptorWait::start_waiting(&self.waiting);
        let free = Arc::clone(&self.free).acquire_many_owned(wanted);
        tokio::pin!(free);
        while Instant::now() < deadline {
            self.close_idle_of_one();
            let look_again = deadline.min(Instant::now() + LOOK_AGAIN);
            if let Ok(free) = tokio::time::timeout_at(look_again.into(), &mut free).await {
                return free.map_err(|_| connections_full());
            }
        }
        Err(connections_full())
    }

    /// True while a caller waits: a returned connection should then be closed.
    pub(super) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Closes the idle connections of the first pool that was not used since the clock hand last passed it.
    fn close_idle_of_one(&self) {
        let mut pools = lock_ignoring_poison(&self.pools);
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

/// Counts the caller as waiting until it is dropped.
struct DescriptorWait<'a>(&'a AtomicUsize);

impl<'a> DescriptorWait<'a> {
    fn start_waiting(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for DescriptorWait<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn connections_full() -> Error {
    Error::new(
        ErrorKind::ConnectionsMax,
        "every database connection this process may open is in use; raise the limit on open files or try again",
    )
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
