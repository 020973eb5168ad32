//! A bounded cache of values of any type, with one load in flight per key. A value that was loaded before a change is never
//! answered after it.

use std::any::Any;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;

/// The count of all changes that end a value. It only grows.
pub(super) type ChangeStamp = u64;

/// Where the stamps of a key come from, and whether cached values may be used now.
pub(super) trait StampSource {
    /// The present stamp of the key.
    fn current_stamp(&self) -> ChangeStamp;
    /// False while changes may be missed.
    fn is_up_to_date(&self) -> bool;
}

pub(super) struct LoadingCache<K> {
    known: Cache<K, LoadedValue>,
}

#[derive(Debug, Clone)]
struct LoadedValue {
    /// The stamp when the load began.
    stamp: ChangeStamp,
    loaded_at: Instant,
    age_max: Duration,
    value: Arc<dyn Any + Send + Sync>,
}

/// The load of this caller or of another one has failed. Only the caller whose load failed has the error.
#[derive(Debug)]
struct LoadFailed;

impl LoadedValue {
    fn is_current(&self, source: &impl StampSource) -> bool {
        self.stamp == source.current_stamp() && self.loaded_at.elapsed() < self.age_max && source.is_up_to_date()
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> LoadingCache<K> {
    /// Keeps at most `entries_max` values.
    pub(super) fn new(entries_max: u64) -> Self {
        Self { known: Cache::builder().max_capacity(entries_max).expire_after(EndOfAge).build() }
    }

    /// The cached value, if nothing ended it.
    pub(super) async fn current_value<V: Send + Sync + 'static>(
        &self,
        key: &K,
        source: &impl StampSource,
    ) -> Option<Arc<V>> {
        let known = self.known.get(key).await.filter(|known| known.is_current(source))?;
        known.value.downcast().ok()
    }

    /// The cached value, or the result of `load`. Callers that come meanwhile wait for the same load, unless something
    /// changed since it began. If it fails, each of them loads for itself.
    pub(super) async fn value_or_load<V, E, F>(
        &self,
        key: &K,
        age_max: Duration,
        source: &impl StampSource,
        load: impl FnOnce() -> F,
    ) -> Result<Arc<V>, E>
    where
        V: Send + Sync + 'static,
        F: Future<Output = Result<V, E>>,
    {
        let came_at = source.current_stamp();
        let (mut load, mut error) = (Some(load), None);
        loop {
            if let Some(known) = self.known.get(key).await
                && !known.is_current(source)
            {
                self.known.invalidate(key).await;
            }
            let begun = async {
                let (stamp, loaded_at) = (source.current_stamp(), Instant::now());
                let Some(load) = load.take() else { return Err(LoadFailed) };
                match load().await {
                    Ok(value) => Ok(LoadedValue { stamp, loaded_at, age_max, value: Arc::new(value) }),
                    Err(own) => {
                        error = Some(own);
                        Err(LoadFailed)
                    }
                }
            };
            let loaded = self.known.try_get_with_by_ref(key, begun).await;
            if let Some(error) = error.take() {
                return Err(error);
            }
            let Ok(loaded) = loaded else { continue };
            if loaded.stamp != source.current_stamp() {
                // Something changed during the load: no later caller may get this value.
                self.known.invalidate(key).await;
            }
            // The type is a part of every key, so the value has this type.
            if loaded.stamp >= came_at
                && let Ok(value) = loaded.value.downcast()
            {
                return Ok(value);
            }
        }
    }
}

/// Frees the memory of a value when its age ends.
struct EndOfAge;

impl<K> Expiry<K, LoadedValue> for EndOfAge {
    fn expire_after_create(&self, _: &K, value: &LoadedValue, _: Instant) -> Option<Duration> {
        Some(value.age_max)
    }
}
