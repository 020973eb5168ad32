//! [`PublicCache`]: values that are the same for every tenant.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::loading_cache::{ChangeStamp, LoadingCache, StampSource};

/// A cache for data without a tenant, such as exchange rates. Nothing of a tenant belongs in it: its keys are plain texts, and
/// every caller finds the same values.
pub struct PublicCache<V> {
    values: LoadingCache<Box<str>>,
    age_max: Duration,
    forgotten: AtomicU64,
    value: std::marker::PhantomData<fn() -> V>,
}

impl<V: Send + Sync + 'static> PublicCache<V> {
    /// Keeps at most `entries_max` values, each for at most `age_max`.
    #[must_use]
    pub fn new(entries_max: u64, age_max: Duration) -> Self {
        let values = LoadingCache::new(entries_max);
        Self { values, age_max, forgotten: AtomicU64::new(0), value: std::marker::PhantomData }
    }

    /// The value of the key, or the result of `load`. Callers that come meanwhile wait for the same load.
    ///
    /// # Errors
    /// The error of `load`. Nothing is kept then.
    pub async fn get_or_load<E, F>(&self, key: &str, load: impl FnOnce() -> F) -> Result<Arc<V>, E>
    where
        F: Future<Output = Result<V, E>>,
    {
        self.values.value_or_load(&key.into(), self.age_max, &self.forgotten, load).await
    }

    /// Forgets every value.
    pub fn clear(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }
}

impl StampSource for AtomicU64 {
    fn current_stamp(&self) -> ChangeStamp {
        self.load(Ordering::SeqCst)
    }

    fn is_up_to_date(&self) -> bool {
        true
    }
}

impl<V> fmt::Debug for PublicCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicCache").field("age_max", &self.age_max).finish_non_exhaustive()
    }
}
