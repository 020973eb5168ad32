//! A bounded cache with one look-up in flight per key. Its answers are never older than the last change seen.
//!
//! Used for the directory, the roles, the principals and the servers. It does not know the meaning of its entries.
//!
//! An answer of the catalog is as old as the last read of the change feed, if the feed has not named its tenant since.
//! So every cached answer serves for its full age after the catalog becomes unavailable.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use catalog::TenantId;
use moka::future::Cache;

use crate::error::{Error, Result};

/// Number of counters for tenants. Two tenants with one counter are forgotten together, which only costs a look-up.
const COUNTERS: usize = 4_096;

/// Counts the changes seen: all of them, and those of each tenant.
///
/// A change is counted before anything is forgotten. A look-up that began earlier sees the new count, and does not
/// store its answer. Each change counts twice among all changes: before its tenants' counts are raised, and after. So
/// an answer is current if no change was in progress when its look-up began, and none has begun since.
#[derive(Debug, Clone)]
pub(crate) struct ChangeCounter(Arc<ChangeCounts>);

#[derive(Debug)]
struct ChangeCounts {
    begun: AtomicU64,
    ended: AtomicU64,
    everything: AtomicU64,
    tenants: Box<[AtomicU64]>,
    started: Instant,
    /// The time of the last complete read of the feed, in milliseconds since `started`.
    confirmed_ms: AtomicU64,
}

/// How many changes of a tenant, and resets of everything, have been seen. It only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TenantMark(u64);

impl TenantMark {
    pub(crate) fn count(self) -> u64 {
        self.0
    }
}

impl Default for ChangeCounter {
    fn default() -> Self {
        let tenants = (0..COUNTERS).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(ChangeCounts {
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            everything: AtomicU64::new(0),
            tenants,
            started: Instant::now(),
            confirmed_ms: AtomicU64::new(0),
        }))
    }
}

impl ChangeCounter {
    /// How many changes of any kind have been seen.
    pub(crate) fn change_count(&self) -> u64 {
        self.0.ended.load(Ordering::SeqCst)
    }

    /// True when nothing has changed since the count of all changes was `before`, and no change is in progress.
    pub(crate) fn is_unchanged_since(&self, before: u64) -> bool {
        self.0.begun.load(Ordering::SeqCst) == before
    }

    /// How often everything was forgotten.
    pub(crate) fn reset_count(&self) -> u64 {
        self.0.everything.load(Ordering::SeqCst)
    }

    /// How many changes of this tenant have been seen.
    pub(crate) fn tenant_mark(&self, tenant: TenantId) -> TenantMark {
        let everything = self.0.everything.load(Ordering::SeqCst);
        TenantMark(everything + self.tenant_counter(tenant).load(Ordering::SeqCst))
    }

    /// The tenant's mark; `None` when anything changed since the count of all changes was `before`.
    pub(crate) fn tenant_mark_since(&self, tenant: TenantId, before: u64) -> Option<TenantMark> {
        let mark = self.tenant_mark(tenant);
        self.is_unchanged_since(before).then_some(mark)
    }

    /// Counts a change of these tenants.
    pub(crate) fn count_change<'a>(&self, tenants: impl IntoIterator<Item = &'a TenantId>) {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        for tenant in tenants {
            self.tenant_counter(*tenant).fetch_add(1, Ordering::SeqCst);
        }
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a change that may concern every tenant.
    pub(crate) fn count_reset(&self) {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        self.0.everything.fetch_add(1, Ordering::SeqCst);
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Records that a read of the feed that began at `at` has reported every change until then.
    pub(crate) fn confirm_reading(&self, at: Instant) {
        let at = u64::try_from(at.duration_since(self.0.started).as_millis()).unwrap_or(u64::MAX);
        self.0.confirmed_ms.fetch_max(at, Ordering::AcqRel);
    }

    /// Time since the last read of the feed that reported every change until then.
    pub(crate) fn time_since_confirmed(&self) -> Duration {
        self.last_confirmed().elapsed()
    }

    /// The time until which every change is known.
    pub(crate) fn last_confirmed(&self) -> Instant {
        self.0.started + Duration::from_millis(self.0.confirmed_ms.load(Ordering::Acquire))
    }

    fn tenant_counter(&self, tenant: TenantId) -> &AtomicU64 {
        // The last bits of a v7 id are random.
        let place = tenant.uuid().as_u128() % COUNTERS as u128;
        &self.0.tenants[place as usize]
    }
}

/// Whether the change feed reports every change of a cache's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidationSource {
    /// The feed reports every change: the answers are the catalog's.
    ByFeed,
    /// Not every change is reported: the application answers, or the answer is "not found".
    ByTimeAlone,
}

/// An answer of the catalog is looked up again after this time, even when the feed reports no change.
const FEED_AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// A bounded cache with one look-up in flight per key; see the module.
pub(crate) struct SingleFlightCache<K, V> {
    known: Cache<K, CachedAnswer<V>>,
    change_counter: ChangeCounter,
    told: InvalidationSource,
    age_max: Duration,
}

/// A cached answer.
#[derive(Debug, Clone)]
struct CachedAnswer<V> {
    /// The count when its look-up began: of all changes, or of its tenant's changes.
    count: u64,
    /// The time when its look-up began.
    asked_at: Instant,
    value: V,
}

impl<V> CachedAnswer<V> {
    /// Time since the answer was last known to be true: since its look-up, or since the feed reported every change.
    fn age_since_confirmed(&self, confirmed: Instant, now: Instant) -> Duration {
        now.saturating_duration_since(self.asked_at.max(confirmed))
    }
}

impl<K, V> SingleFlightCache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Keeps at most `entries_max` answers, each for at most `age_max` since it was last known to be true.
    pub(crate) fn new(counter: &ChangeCounter, entries_max: u64, age_max: Duration, told: InvalidationSource) -> Self {
        let kept = if told == InvalidationSource::ByFeed { FEED_AGE_MAX.max(age_max) } else { age_max };
        let known = Cache::builder().max_capacity(entries_max).time_to_live(kept).build();
        Self { known, change_counter: counter.clone(), told, age_max }
    }

    /// The cached answer, if it is not too old.
    async fn fresh_answer(&self, key: &K) -> Option<CachedAnswer<V>> {
        let known = self.known.get(key).await?;
        if self.told == InvalidationSource::ByTimeAlone
            || known.age_since_confirmed(self.change_counter.last_confirmed(), Instant::now()) < self.age_max
        {
            return Some(known);
        }
        self.forget_answer(key).await;
        None
    }

    /// The cached answer, or the result of `look_up`. Callers that ask meanwhile wait for the same result. An answer
    /// stays until it is forgotten, but is not stored when anything changed during its look-up.
    pub(crate) async fn get_or_look_up<F>(&self, key: K, look_up: impl Fn() -> F) -> Result<V>
    where
        F: Future<Output = Result<V>>,
    {
        match self.fresh_answer(&key).await {
            Some(known) => Ok(known.value),
            None => {
                self.look_up_once(
                    key,
                    look_up,
                    || self.change_counter.change_count(),
                    |at| self.change_counter.is_unchanged_since(at),
                )
                .await
            }
        }
    }

    /// As [`SingleFlightCache::get_or_look_up`], for an answer about one tenant: it stays until that tenant changes.
    pub(crate) async fn get_or_look_up_for<F>(&self, tenant: TenantId, key: K, look_up: impl Fn() -> F) -> Result<V>
    where
        F: Future<Output = Result<V>>,
    {
        let count = || self.change_counter.tenant_mark(tenant).0;
        match self.fresh_answer(&key).await {
            Some(known) if known.count == count() => return Ok(known.value),
            Some(_) => self.forget_answer(&key).await,
            None => {}
        }
        self.look_up_once(key, look_up, count, |at| count() == at).await
    }

    /// Looks up, or waits for a running look-up. A running look-up may have begun before a change that was seen when
    /// this caller came. Its answer is then outdated, and is looked up again.
    async fn look_up_once<F>(
        &self,
        key: K,
        look_up: impl Fn() -> F,
        count: impl Fn() -> u64,
        is_current: impl Fn(u64) -> bool,
    ) -> Result<V>
    where
        F: Future<Output = Result<V>>,
    {
        let before = count();
        loop {
            let begun = async {
                let (count, asked_at) = (count(), Instant::now());
                Ok::<_, Error>(CachedAnswer { count, asked_at, value: look_up().await? })
            };
            let answer =
                self.known.try_get_with_by_ref(&key, begun).await.map_err(|error| Error::share_error(&error))?;
            if is_current(answer.count) {
                return Ok(answer.value);
            }
            self.forget_answer(&key).await;
            if answer.count >= before {
                return Ok(answer.value);
            }
        }
    }

    /// Stores an answer that was read when the count of all changes was `count_before`, unless anything changed since.
    pub(crate) async fn store_answer(&self, key: K, value: V, count_before: u64) {
        self.known.insert(key.clone(), CachedAnswer { count: count_before, asked_at: Instant::now(), value }).await;
        if !self.change_counter.is_unchanged_since(count_before) {
            self.forget_answer(&key).await;
        }
    }

    /// Stores an answer about a tenant that was read at `mark`. It stays until the tenant changes.
    pub(crate) async fn store_tenant_answer(&self, key: K, value: V, mark: TenantMark) {
        self.known.insert(key, CachedAnswer { count: mark.0, asked_at: Instant::now(), value }).await;
    }

    /// True when the answer is in the cache.
    pub(crate) fn is_known(&self, key: &K) -> bool {
        self.known.contains_key(key)
    }

    /// Forgets one answer.
    pub(crate) async fn forget_answer(&self, key: &K) {
        self.known.invalidate(key).await;
    }

    /// Forgets every answer.
    pub(crate) fn forget_all(&self) {
        self.known.invalidate_all();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn memo(counter: &ChangeCounter) -> SingleFlightCache<u8, u8> {
        SingleFlightCache::new(counter, 10, Duration::from_secs(60), InvalidationSource::ByTimeAlone)
    }

    #[test]
    fn an_answer_is_as_old_as_the_last_reading_of_the_feed() {
        let (counter, start) = (ChangeCounter::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let answer = CachedAnswer { count: 0, asked_at: after(10), value: () };
        assert_eq!(answer.age_since_confirmed(counter.last_confirmed(), after(40)), Duration::from_secs(30));
        counter.confirm_reading(after(35));
        counter.confirm_reading(after(20));
        let age = answer.age_since_confirmed(counter.last_confirmed(), after(40));
        assert!(age >= Duration::from_secs(5) && age < Duration::from_secs(6), "an older reading counts less: {age:?}");
        assert_eq!(answer.age_since_confirmed(counter.last_confirmed(), after(10)), Duration::ZERO);
    }

    #[tokio::test]
    async fn an_answer_is_looked_up_once() {
        let memo = memo(&ChangeCounter::default());
        assert_eq!(memo.get_or_look_up(1, async || Ok(7)).await.unwrap(), 7);
        assert_eq!(memo.get_or_look_up(1, async || panic!("it is known")).await.unwrap(), 7);
        memo.forget_answer(&1).await;
        assert_eq!(memo.get_or_look_up(1, async || Ok(8)).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn an_answer_read_before_a_change_does_not_outlive_it() {
        let counter = ChangeCounter::default();
        let memo = memo(&counter);
        let old = memo.get_or_look_up(1, async || {
            counter.count_change([&tenant(1)]);
            Ok(7)
        });
        assert_eq!(old.await.unwrap(), 7);
        assert_eq!(memo.get_or_look_up(1, async || Ok(8)).await.unwrap(), 8);
        memo.store_answer(2, 7, counter.change_count() - 1).await;
        assert!(!memo.is_known(&2));
    }

    /// A caller that comes after a change must not get the answer of a look-up that began before it.
    #[tokio::test]
    async fn who_comes_after_a_change_waits_for_no_older_look_up() {
        let counter = ChangeCounter::default();
        let (memo, go_on) = (memo(&counter), Notify::new());
        let older = async || {
            go_on.notified().await;
            Ok(7)
        };
        let later = async {
            counter.count_change([&tenant(1)]);
            let asked = memo.get_or_look_up_for(tenant(1), 1, async || Ok(8));
            go_on.notify_one();
            asked.await
        };
        // The first future is polled first, so its look-up is running when the second one starts.
        let (first, second) = tokio::join!(biased; memo.get_or_look_up_for(tenant(1), 1, older), later);
        assert_eq!((first.unwrap(), second.unwrap()), (7, 8));
        assert_eq!(memo.get_or_look_up_for(tenant(1), 1, async || panic!("it is known")).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn errors_are_not_remembered() {
        let memo = memo(&ChangeCounter::default());
        let failed = memo.get_or_look_up(1, async || Err(crate::ErrorKind::CatalogUnavailable.into())).await;
        assert_eq!(failed.unwrap_err().kind(), crate::ErrorKind::CatalogUnavailable);
        assert_eq!(memo.get_or_look_up(1, async || Ok(8)).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn changes_of_another_tenant_leave_an_answer_and_its_own_do_not() {
        let (counter, ours, other) = (ChangeCounter::default(), tenant(1), tenant(2));
        let memo = memo(&counter);
        let next = AtomicU64::new(0);
        let count = async || Ok(u8::try_from(next.fetch_add(1, Ordering::SeqCst)).unwrap());
        let ask = async || memo.get_or_look_up_for(ours, 1, count).await.unwrap();
        assert_eq!(ask().await, 0);
        counter.count_change([&other]);
        assert_eq!(ask().await, 0);
        counter.count_change([&ours]);
        assert_eq!((ask().await, ask().await), (1, 1));
        counter.count_reset();
        assert_eq!((ask().await, ask().await), (2, 2));
        let mark = counter.tenant_mark(ours);
        memo.store_tenant_answer(1, 77, mark).await;
        assert_eq!(ask().await, 77);
        counter.count_change([&ours]);
        memo.store_tenant_answer(1, 78, mark).await;
        assert_eq!(ask().await, 3, "read before the change");
    }

    #[test]
    fn a_mark_is_of_one_tenant_and_of_everything() {
        let (counter, ours, other) = (ChangeCounter::default(), tenant(1), tenant(2));
        let before = counter.change_count();
        let mark = counter.tenant_mark_since(ours, before).unwrap();
        counter.count_change([&other]);
        assert_eq!((counter.tenant_mark(ours), counter.tenant_mark_since(ours, before)), (mark, None));
        counter.count_change([&ours]);
        let changed = counter.tenant_mark(ours);
        counter.count_reset();
        assert!(mark < changed && changed < counter.tenant_mark(ours));
    }
}
