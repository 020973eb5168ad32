//! A bounded cache with one lookup in flight per key, whose answers are not older than the last change heard of.
//!
//! The directory, the roles, the principals and the servers each keep one. It knows nothing of what it keeps.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::future::Cache;

use crate::error::{Error, Result};

/// Counts the changes heard of. Whoever forgets something counts up *first*: a lookup that began before sees that it
/// did, and does not leave its answer behind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Epoch(Arc<AtomicU64>);

impl Epoch {
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// See the module.
pub(crate) struct Memo<K, V> {
    known: Cache<K, V>,
    epoch: Epoch,
}

impl<K, V> Memo<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Keeps at most `entries_max` answers, each for at most `age_max`.
    pub(crate) fn new(epoch: &Epoch, entries_max: u64, age_max: Duration) -> Self {
        let known = Cache::builder().max_capacity(entries_max).time_to_live(age_max).build();
        Self { known, epoch: epoch.clone() }
    }

    /// What is known, or what `look_up` answers; everybody who asks meanwhile waits for the same answer.
    pub(crate) async fn get_or(&self, key: K, look_up: impl Future<Output = Result<V>>) -> Result<V> {
        if let Some(value) = self.known.get(&key).await {
            return Ok(value);
        }
        let before = self.epoch.now();
        let value = self.known.try_get_with_by_ref(&key, look_up).await.map_err(|error| Error::shared(&error))?;
        if self.epoch.now() != before {
            self.forget(&key).await;
        }
        Ok(value)
    }

    /// Keeps an answer that was read at `epoch`, unless something changed since.
    pub(crate) async fn put(&self, key: K, value: V, epoch: u64) {
        self.known.insert(key.clone(), value).await;
        if self.epoch.now() != epoch {
            self.forget(&key).await;
        }
    }

    /// True when the answer is known.
    pub(crate) fn knows(&self, key: &K) -> bool {
        self.known.contains_key(key)
    }

    /// Forgets one answer.
    pub(crate) async fn forget(&self, key: &K) {
        self.known.invalidate(key).await;
    }

    /// Forgets the answers for which `is_old` says so. Walks through all: for small or rare cases.
    pub(crate) async fn forget_if(&self, is_old: impl Fn(&K, &V) -> bool) {
        for (key, value) in &self.known {
            if is_old(&key, &value) {
                self.known.invalidate(&*key).await;
            }
        }
    }

    /// Forgets every answer.
    pub(crate) fn forget_all(&self) {
        self.known.invalidate_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memo(epoch: &Epoch) -> Memo<u8, u8> {
        Memo::new(epoch, 10, Duration::from_secs(60))
    }

    #[tokio::test]
    async fn an_answer_is_looked_up_once() {
        let memo = memo(&Epoch::default());
        assert_eq!(memo.get_or(1, async { Ok(7) }).await.unwrap(), 7);
        assert_eq!(memo.get_or(1, async { panic!("it is known") }).await.unwrap(), 7);
        memo.forget(&1).await;
        assert_eq!(memo.get_or(1, async { Ok(8) }).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn an_answer_read_before_a_change_does_not_outlive_it() {
        let epoch = Epoch::default();
        let memo = memo(&epoch);
        let old = memo.get_or(1, async {
            epoch.advance();
            Ok(7)
        });
        assert_eq!(old.await.unwrap(), 7);
        assert_eq!(memo.get_or(1, async { Ok(8) }).await.unwrap(), 8);
        memo.put(2, 7, epoch.now() - 1).await;
        assert!(!memo.knows(&2));
    }

    #[tokio::test]
    async fn errors_are_not_remembered() {
        let memo = memo(&Epoch::default());
        let failed = memo.get_or(1, async { Err(crate::ErrorKind::CatalogUnavailable.into()) }).await;
        assert_eq!(failed.unwrap_err().kind(), crate::ErrorKind::CatalogUnavailable);
        assert_eq!(memo.get_or(1, async { Ok(8) }).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn what_is_old_by_some_rule_is_forgotten_and_the_rest_stays() {
        let epoch = Epoch::default();
        let memo = memo(&epoch);
        memo.put(1, 1, epoch.now()).await;
        memo.put(2, 2, epoch.now()).await;
        memo.forget_if(|_, value| *value == 1).await;
        assert_eq!((memo.knows(&1), memo.knows(&2)), (false, true));
    }
}
