//! What this process itself changed, remembered by itself: a router obeys it at once, without asking the catalog, which may
//! be away by then. Counted in commits of this process; the change feed has numbers of its own.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::changes::Changes;
use crate::ids::TenantId;

/// So many tenants are remembered; who is further behind drops everything.
const TENANTS_MAX: usize = 10_000;

/// What one transaction appended to the feed.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub(crate) tenants: Vec<TenantId>,
    pub(crate) everything: bool,
}

impl Touched {
    pub(crate) fn nothing(&self) -> bool {
        self.tenants.is_empty() && !self.everything
    }
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
        if touched.nothing() {
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
    pub(crate) fn since(&self, seen: u64) -> Changes {
        let recent = self.recent();
        let commits = self.commits();
        let seq = i64::try_from(commits).unwrap_or(i64::MAX);
        let behind = usize::try_from(commits.saturating_sub(seen)).unwrap_or(usize::MAX);
        let Some(known) = recent.touched.len().checked_sub(behind) else { return Changes::Everything { seq } };
        let mut ids = BTreeSet::new();
        for touched in recent.touched.range(known..) {
            if touched.everything {
                return Changes::Everything { seq };
            }
            ids.extend(touched.tenants.iter().copied());
        }
        Changes::Tenants { seq, ids: ids.into_iter().collect() }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tenants: &[TenantId]) -> Touched {
        Touched { tenants: tenants.to_vec(), everything: false }
    }

    #[test]
    fn each_commit_is_told_until_it_was_seen() {
        let (own, mut ids) = (Own::default(), [TenantId::generate(), TenantId::generate()]);
        ids.sort();
        own.note(Touched::default());
        assert_eq!((own.commits(), own.since(0)), (0, Changes::Tenants { seq: 0, ids: vec![] }));
        own.note(of(&ids[..1]));
        own.note(of(&ids));
        assert_eq!((own.commits(), own.since(0)), (2, Changes::Tenants { seq: 2, ids: ids.to_vec() }));
        own.note(of(&ids[1..]));
        assert_eq!(own.since(2), Changes::Tenants { seq: 3, ids: vec![ids[1]] });
        assert_eq!(own.since(3), Changes::Tenants { seq: 3, ids: vec![] });
        own.note(Touched { everything: true, ..Touched::default() });
        own.note(of(&ids[1..]));
        assert_eq!(own.since(3), Changes::Everything { seq: 5 });
        assert_eq!(own.since(4), Changes::Tenants { seq: 5, ids: vec![ids[1]] });
    }

    #[test]
    fn whoever_is_too_far_behind_drops_everything() {
        let (own, id) = (Own::default(), TenantId::generate());
        let all: Vec<TenantId> = (0..TENANTS_MAX).map(|_| TenantId::generate()).collect();
        own.note(of(&[id]));
        own.note(of(&all));
        assert_eq!(own.since(0), Changes::Everything { seq: 2 });
        assert!(matches!(own.since(1), Changes::Tenants { seq: 2, ids } if ids.len() == TENANTS_MAX));
        // One that is longer than the list is remembered by nobody.
        own.note(of(&[all, vec![id]].concat()));
        assert_eq!(own.since(2), Changes::Everything { seq: 3 });
        assert_eq!(own.since(3), Changes::Tenants { seq: 3, ids: vec![] });
    }
}
