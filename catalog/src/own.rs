//! What this process itself changed, remembered by itself: a router obeys it at once, without asking the catalog, which may
//! be away by then. Counted in commits of this process; the change feed has numbers of its own.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::TenantId;

/// So many tenants are remembered; who is further behind drops everything.
const TENANTS_MAX: usize = 10_000;

/// What one transaction appended to the feed.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub(crate) tenants: Vec<TenantId>,
    pub(crate) everything: bool,
    /// How a server is entered.
    pub(crate) servers: bool,
}

/// What this process changed since a reader last looked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnChanges {
    /// Where the reader is now, in commits of this process.
    pub seen: u64,
    /// Of these tenants, each once; `None`: of all, or of who knows how many.
    pub tenants: Option<BTreeSet<TenantId>>,
    /// How a server is entered.
    pub servers: bool,
}

/// The newest commits of this process.
#[derive(Debug, Default)]
pub(crate) struct Own {
    commits: AtomicU64,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    /// What the commits before the newest touched, oldest first.
    touched: VecDeque<Touched>,
    tenants: usize,
}

impl Own {
    /// How many there were. One load.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    /// Remembers one more; also one of which nobody knows whether it was done.
    pub(crate) fn note(&self, touched: Touched) {
        if touched.tenants.is_empty() && !touched.everything {
            return;
        }
        let mut recent = self.recent();
        recent.tenants += touched.tenants.len();
        recent.touched.push_back(touched);
        while recent.tenants > TENANTS_MAX || recent.touched.len() > TENANTS_MAX {
            let Some(oldest) = recent.touched.pop_front() else { break };
            recent.tenants -= oldest.tenants.len();
        }
        self.commits.fetch_add(1, Ordering::Release);
    }

    /// What came after so many.
    pub(crate) fn since(&self, seen: u64) -> OwnChanges {
        let recent = self.recent();
        let commits = self.commits();
        let behind = usize::try_from(commits.saturating_sub(seen)).unwrap_or(usize::MAX);
        let Some(known) = recent.touched.len().checked_sub(behind) else {
            return OwnChanges { seen: commits, tenants: None, servers: true };
        };
        let news = || recent.touched.range(known..);
        let all = news().any(|touched| touched.everything);
        let ids = || news().flat_map(|touched| touched.tenants.iter().copied()).collect();
        let servers = news().any(|touched| touched.servers);
        OwnChanges { seen: commits, tenants: (!all).then(ids), servers }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tenants: &[TenantId]) -> Touched {
        Touched { tenants: tenants.to_vec(), ..Touched::default() }
    }

    fn told(seen: u64, tenants: &[TenantId]) -> OwnChanges {
        OwnChanges { seen, tenants: Some(tenants.iter().copied().collect()), servers: false }
    }

    fn all(seen: u64, servers: bool) -> OwnChanges {
        OwnChanges { seen, tenants: None, servers }
    }

    #[test]
    fn each_commit_is_told_until_it_was_seen() {
        let (own, ids) = (Own::default(), [TenantId::generate(), TenantId::generate()]);
        own.note(Touched::default());
        assert_eq!((own.commits(), own.since(0)), (0, told(0, &[])));
        own.note(of(&ids[..1]));
        own.note(of(&ids));
        assert_eq!((own.commits(), own.since(0)), (2, told(2, &ids)));
        own.note(of(&ids[1..]));
        assert_eq!(own.since(2), told(3, &ids[1..]));
        assert_eq!(own.since(3), told(3, &[]));
        own.note(Touched { everything: true, ..Touched::default() });
        own.note(of(&ids[1..]));
        assert_eq!((own.since(3), own.since(4)), (all(5, false), told(5, &ids[1..])));
        own.note(Touched { everything: true, servers: true, ..Touched::default() });
        assert_eq!((own.since(4), own.since(6)), (all(6, true), told(6, &[])));
    }

    #[test]
    fn whoever_is_too_far_behind_drops_everything() {
        let (own, id) = (Own::default(), TenantId::generate());
        let many: Vec<TenantId> = (0..TENANTS_MAX).map(|_| TenantId::generate()).collect();
        own.note(of(&[id]));
        own.note(of(&many));
        assert_eq!((own.since(0), own.since(1)), (all(2, true), told(2, &many)));
        // One that is longer than the list is remembered by nobody.
        own.note(of(&[many, vec![id]].concat()));
        assert_eq!((own.since(2), own.since(3)), (all(3, true), told(3, &[])));
    }
}
