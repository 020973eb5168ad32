//! A bounded cache with one lookup in flight per key, whose answers are not older than the last change heard of.
//!
//! The directory, the roles, the principals and the servers each keep one. It knows nothing of what it keeps.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use catalog::TenantId;
use moka::future::Cache;

use crate::error::{Error, Result};

/// Counters of tenants. Two tenants that share one are forgotten together, which costs a look-up and nothing else.
const COUNTERS: usize = 4_096;

/// Counts the changes heard of: all of them, and those of each tenant.
///
/// A change is counted before anything is forgotten: a lookup that began earlier sees the count, and does not leave its answer
/// behind. A change counts twice among all changes: when its tenants' counts begin to go up, and when all of them are up.
/// What was looked up is current if no change was between the two then, and none has begun since.
#[derive(Debug, Clone)]
pub(crate) struct Epoch(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
    everything: AtomicU64,
    tenants: Box<[AtomicU64]>,
}

/// How many changes of a tenant, and of everything, had been heard of. It only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TenantMark(u64);

impl Default for Epoch {
    fn default() -> Self {
        let tenants = (0..COUNTERS).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Counts {
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            everything: AtomicU64::new(0),
            tenants,
        }))
    }
}

impl Epoch {
    /// How many changes of anything were heard of.
    pub(crate) fn now(&self) -> u64 {
        self.0.ended.load(Ordering::SeqCst)
    }

    /// True when nothing has changed since all changes were `before`, and nothing changes now.
    pub(crate) fn is_still(&self, before: u64) -> bool {
        self.0.begun.load(Ordering::SeqCst) == before
    }

    /// How often everything was forgotten.
    pub(crate) fn everything(&self) -> u64 {
        self.0.everything.load(Ordering::SeqCst)
    }

    /// How many changes of this tenant were heard of.
    pub(crate) fn mark(&self, tenant: TenantId) -> TenantMark {
        let everything = self.0.everything.load(Ordering::SeqCst);
        TenantMark(everything + self.counter(tenant).load(Ordering::SeqCst))
    }

    /// The tenant's mark, unless anything changed since all changes were `before`.
    pub(crate) fn mark_since(&self, tenant: TenantId, before: u64) -> Option<TenantMark> {
        let mark = self.mark(tenant);
        self.is_still(before).then_some(mark)
    }

    /// These tenants changed.
    pub(crate) fn advance<'a>(&self, tenants: impl IntoIterator<Item = &'a TenantId>) {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        for tenant in tenants {
            self.counter(*tenant).fetch_add(1, Ordering::SeqCst);
        }
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Everything may have changed.
    pub(crate) fn advance_all(&self) {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        self.0.everything.fetch_add(1, Ordering::SeqCst);
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }

    fn counter(&self, tenant: TenantId) -> &AtomicU64 {
        // The last bits of a v7 id are random.
        let place = tenant.uuid().as_u128() % COUNTERS as u128;
        &self.0.tenants[place as usize]
    }
}

/// See the module.
pub(crate) struct Memo<K, V> {
    /// Each with the count at which its look-up began: of all changes, or of its tenant's.
    known: Cache<K, (u64, V)>,
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

    /// What is known, or what `look_up` answers; everybody who asks meanwhile waits for the same answer. An answer stays
    /// until it is forgotten, but is not kept at all when anything changed during its look-up.
    pub(crate) async fn get_or<F>(&self, key: K, look_up: impl Fn() -> F) -> Result<V>
    where
        F: Future<Output = Result<V>>,
    {
        match self.known.get(&key).await {
            Some((_, value)) => Ok(value),
            None => self.ask(key, look_up, || self.epoch.now(), |at| self.epoch.is_still(at)).await,
        }
    }

    /// The same for an answer about one tenant: it is known until that tenant changes.
    pub(crate) async fn get_or_of<F>(&self, tenant: TenantId, key: K, look_up: impl Fn() -> F) -> Result<V>
    where
        F: Future<Output = Result<V>>,
    {
        let count = || self.epoch.mark(tenant).0;
        match self.known.get(&key).await {
            Some((at, value)) if at == count() => return Ok(value),
            Some(_) => self.forget(&key).await,
            None => {}
        }
        self.ask(key, look_up, count, |at| count() == at).await
    }

    /// Looks up, or waits for a look-up that runs already. If that one began before a change that was heard of when this
    /// caller came, its answer is not good enough, and it is looked up again.
    async fn ask<F>(
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
                let at = count();
                Ok::<_, Error>((at, look_up().await?))
            };
            let (at, value) =
                self.known.try_get_with_by_ref(&key, begun).await.map_err(|error| Error::shared(&error))?;
            if is_current(at) {
                return Ok(value);
            }
            self.forget(&key).await;
            if at >= before {
                return Ok(value);
            }
        }
    }

    /// Keeps an answer that was read when all changes were `epoch`, unless anything changed since.
    pub(crate) async fn put(&self, key: K, value: V, epoch: u64) {
        self.known.insert(key.clone(), (epoch, value)).await;
        if !self.epoch.is_still(epoch) {
            self.forget(&key).await;
        }
    }

    /// Keeps an answer about a tenant that was read at `mark`; it is known until the tenant changes.
    pub(crate) async fn put_of(&self, key: K, value: V, mark: TenantMark) {
        self.known.insert(key, (mark.0, value)).await;
    }

    /// True when the answer is known.
    pub(crate) fn knows(&self, key: &K) -> bool {
        self.known.contains_key(key)
    }

    /// Forgets one answer.
    pub(crate) async fn forget(&self, key: &K) {
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

    fn memo(epoch: &Epoch) -> Memo<u8, u8> {
        Memo::new(epoch, 10, Duration::from_secs(60))
    }

    #[tokio::test]
    async fn an_answer_is_looked_up_once() {
        let memo = memo(&Epoch::default());
        assert_eq!(memo.get_or(1, async || Ok(7)).await.unwrap(), 7);
        assert_eq!(memo.get_or(1, async || panic!("it is known")).await.unwrap(), 7);
        memo.forget(&1).await;
        assert_eq!(memo.get_or(1, async || Ok(8)).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn an_answer_read_before_a_change_does_not_outlive_it() {
        let epoch = Epoch::default();
        let memo = memo(&epoch);
        let old = memo.get_or(1, async || {
            epoch.advance([&tenant(1)]);
            Ok(7)
        });
        assert_eq!(old.await.unwrap(), 7);
        assert_eq!(memo.get_or(1, async || Ok(8)).await.unwrap(), 8);
        memo.put(2, 7, epoch.now() - 1).await;
        assert!(!memo.knows(&2));
    }

    /// Who comes after a change must not be given the answer of a look-up that began before it.
    #[tokio::test]
    async fn who_comes_after_a_change_waits_for_no_older_look_up() {
        let epoch = Epoch::default();
        let (memo, go_on) = (memo(&epoch), Notify::new());
        let older = async || {
            go_on.notified().await;
            Ok(7)
        };
        let later = async {
            epoch.advance([&tenant(1)]);
            let asked = memo.get_or_of(tenant(1), 1, async || Ok(8));
            go_on.notify_one();
            asked.await
        };
        // The first is polled first, so its look-up runs when the second comes.
        let (first, second) = tokio::join!(biased; memo.get_or_of(tenant(1), 1, older), later);
        assert_eq!((first.unwrap(), second.unwrap()), (7, 8));
        assert_eq!(memo.get_or_of(tenant(1), 1, async || panic!("it is known")).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn errors_are_not_remembered() {
        let memo = memo(&Epoch::default());
        let failed = memo.get_or(1, async || Err(crate::ErrorKind::CatalogUnavailable.into())).await;
        assert_eq!(failed.unwrap_err().kind(), crate::ErrorKind::CatalogUnavailable);
        assert_eq!(memo.get_or(1, async || Ok(8)).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn changes_of_another_tenant_leave_an_answer_and_its_own_do_not() {
        let (epoch, ours, other) = (Epoch::default(), tenant(1), tenant(2));
        let memo = memo(&epoch);
        let next = AtomicU64::new(0);
        let count = async || Ok(u8::try_from(next.fetch_add(1, Ordering::SeqCst)).unwrap());
        let ask = async || memo.get_or_of(ours, 1, count).await.unwrap();
        assert_eq!(ask().await, 0);
        epoch.advance([&other]);
        assert_eq!(ask().await, 0);
        epoch.advance([&ours]);
        assert_eq!((ask().await, ask().await), (1, 1));
        epoch.advance_all();
        assert_eq!((ask().await, ask().await), (2, 2));
        let mark = epoch.mark(ours);
        memo.put_of(1, 77, mark).await;
        assert_eq!(ask().await, 77);
        epoch.advance([&ours]);
        memo.put_of(1, 78, mark).await;
        assert_eq!(ask().await, 3, "read before the change");
    }

    #[test]
    fn a_mark_is_of_one_tenant_and_of_everything() {
        let (epoch, ours, other) = (Epoch::default(), tenant(1), tenant(2));
        let before = epoch.now();
        let mark = epoch.mark_since(ours, before).unwrap();
        epoch.advance([&other]);
        assert_eq!((epoch.mark(ours), epoch.mark_since(ours, before)), (mark, None));
        epoch.advance([&ours]);
        let changed = epoch.mark(ours);
        epoch.advance_all();
        assert!(mark < changed && changed < epoch.mark(ours));
    }
}
