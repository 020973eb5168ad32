//! The changes of this process's own commits, kept in memory. A router applies them at once, without reading the
//! catalog, which may be unavailable. They are counted in commits of this process, not in numbers of the change feed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::TenantId;

/// Maximum number of remembered tenants. A reader that is further behind drops everything.
const TENANTS_MAX: usize = 10_000;

/// The entries that one transaction appended to the feed.
#[derive(Debug, Default)]
pub(crate) struct TransactionChanges {
    pub(crate) tenants: Vec<TenantId>,
    pub(crate) everything: bool,
    /// True when the connection data of a server changed.
    pub(crate) servers: bool,
}

/// The changes of this process since a reader's last read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalChanges {
    /// The reader's new position, in commits of this process.
    pub seen: u64,
    /// The changed tenants, each once; `None` when any tenant may have changed.
    pub tenants: Option<BTreeSet<TenantId>>,
    /// True when the connection data of a server changed.
    pub servers: bool,
}

/// The last commits of this process.
#[derive(Debug, Default)]
pub(crate) struct LocalChangeLog {
    commits: AtomicU64,
    recent: Mutex<RecentCommits>,
}

#[derive(Debug, Default)]
struct RecentCommits {
    /// The changes of the last commits, oldest first.
    touched: VecDeque<TransactionChanges>,
    tenants: usize,
}

impl LocalChangeLog {
    /// Number of commits. One load.
    pub(crate) fn commit_count(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    /// Records a commit, even if its result is unknown.
    pub(crate) fn record_commit(&self, touched: TransactionChanges) {
        if touched.tenants.is_empty() && !touched.everything {
            return;
        }
        let mut recent = self.lock_recent();
        recent.tenants += touched.tenants.len();
        recent.touched.push_back(touched);
        while recent.tenants > TENANTS_MAX || recent.touched.len() > TENANTS_MAX {
            let Some(oldest) = recent.touched.pop_front() else { break };
            recent.tenants -= oldest.tenants.len();
        }
        self.commits.fetch_add(1, Ordering::Release);
    }

    /// The changes after this number of commits.
    pub(crate) fn changes_since(&self, seen: u64) -> LocalChanges {
        let recent = self.lock_recent();
        let commits = self.commit_count();
        let behind = usize::try_from(commits.saturating_sub(seen)).unwrap_or(usize::MAX);
        let Some(known) = recent.touched.len().checked_sub(behind) else {
            return LocalChanges { seen: commits, tenants: None, servers: true };
        };
        let news = || recent.touched.range(known..);
        let all = news().any(|touched| touched.everything);
        let ids = || news().flat_map(|touched| touched.tenants.iter().copied()).collect();
        let servers = news().any(|touched| touched.servers);
        LocalChanges { seen: commits, tenants: (!all).then(ids), servers }
    }

    fn lock_recent(&self) -> MutexGuard<'_, RecentCommits> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tenants: &[TenantId]) -> TransactionChanges {
        TransactionChanges { tenants: tenants.to_vec(), ..TransactionChanges::default() }
    }

    fn told(seen: u64, tenants: &[TenantId]) -> LocalChanges {
        LocalChanges { seen, tenants: Some(tenants.iter().copied().collect()), servers: false }
    }

    fn all(seen: u64, servers: bool) -> LocalChanges {
        LocalChanges { seen, tenants: None, servers }
    }

    #[test]
    fn each_commit_is_told_until_it_was_seen() {
        let (own, ids) = (LocalChangeLog::default(), [TenantId::generate(), TenantId::generate()]);
        own.record_commit(TransactionChanges::default());
        assert_eq!((own.commit_count(), own.changes_since(0)), (0, told(0, &[])));
        own.record_commit(of(&ids[..1]));
        own.record_commit(of(&ids));
        assert_eq!((own.commit_count(), own.changes_since(0)), (2, told(2, &ids)));
        own.record_commit(of(&ids[1..]));
        assert_eq!(own.changes_since(2), told(3, &ids[1..]));
        assert_eq!(own.changes_since(3), told(3, &[]));
        own.record_commit(TransactionChanges { everything: true, ..TransactionChanges::default() });
        own.record_commit(of(&ids[1..]));
        assert_eq!((own.changes_since(3), own.changes_since(4)), (all(5, false), told(5, &ids[1..])));
        own.record_commit(TransactionChanges { everything: true, servers: true, ..TransactionChanges::default() });
        assert_eq!((own.changes_since(4), own.changes_since(6)), (all(6, true), told(6, &[])));
    }

    #[test]
    fn whoever_is_too_far_behind_drops_everything() {
        let (own, id) = (LocalChangeLog::default(), TenantId::generate());
        let many: Vec<TenantId> = (0..TENANTS_MAX).map(|_| TenantId::generate()).collect();
        own.record_commit(of(&[id]));
        own.record_commit(of(&many));
        assert_eq!((own.changes_since(0), own.changes_since(1)), (all(2, true), told(2, &many)));
        // A commit with more tenants than the list allows is not remembered.
        own.record_commit(of(&[many, vec![id]].concat()));
        assert_eq!((own.changes_since(2), own.changes_since(3)), (all(3, true), told(3, &[])));
    }
}
