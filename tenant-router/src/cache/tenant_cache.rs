//! [`TenantCache`]: the values of one tenant and one namespace.

use std::any::TypeId;
use std::hash::{BuildHasher as _, RandomState};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use catalog::TenantId;

use super::cache_key::CacheKey;
use super::loading_cache::{ChangeStamp, LoadingCache, StampSource};
use crate::single_flight_cache::ChangeCounter;
use crate::tenant::{AccessLevel, Tenant};

/// Number of counters of forgotten keys. Two keys with one counter are forgotten together, which only costs a load.
const COUNTERS: usize = 16_384;

/// How long cached values serve without news of the change feed, which is read every second.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// A kind of cached values: their name, type and age.
///
/// ```
/// use std::time::Duration;
/// use tenant_router::{CacheNamespace, Error, Read, Tenant};
///
/// const OPEN_TASKS: CacheNamespace<i64> = CacheNamespace::new("open-tasks", Duration::from_secs(60));
///
/// async fn open_tasks(tenant: &Tenant<Read>, assignee: &str) -> Result<i64, Error> {
///     let count = tenant.cache(&OPEN_TASKS).get_or_load(&[assignee], || async {
///         let sql = "select count(*) from tasks where done = 0 and assignee = $1";
///         tenant.query_as(sql, [assignee]).fetch_one().await
///     });
///     Ok(*count.await?)
/// }
/// ```
#[derive(Debug)]
pub struct CacheNamespace<V> {
    name: &'static str,
    age_max: Duration,
    value: PhantomData<fn() -> V>,
}

impl<V: Send + Sync + 'static> CacheNamespace<V> {
    /// Values with this name. Each is used for at most `age_max`, which limits the delay of a write that another process
    /// makes.
    #[must_use]
    pub const fn new(name: &'static str, age_max: Duration) -> Self {
        Self { name, age_max, value: PhantomData }
    }
}

/// The cached values of all tenants.
pub(crate) struct TenantValues {
    values: LoadingCache<TypedKey>,
    forgotten: ForgetCounts,
}

/// A key with the type of its value: two namespaces with one name do not meet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TypedKey {
    key: CacheKey,
    value: TypeId,
}

/// How often keys and whole tenants were forgotten.
struct ForgetCounts {
    hasher: RandomState,
    keys: Box<[AtomicU64]>,
    tenants: Box<[AtomicU64]>,
}

impl TenantValues {
    pub(crate) fn new(entries_max: u64) -> Self {
        let counters = || (0..COUNTERS).map(|_| AtomicU64::new(0)).collect();
        let forgotten = ForgetCounts { hasher: RandomState::new(), keys: counters(), tenants: counters() };
        Self { values: LoadingCache::new(entries_max), forgotten }
    }
}

impl ForgetCounts {
    fn of_key(&self, key: &TypedKey) -> &AtomicU64 {
        &self.keys[self.hasher.hash_one(key) as usize % COUNTERS]
    }

    fn of_tenant(&self, tenant: TenantId) -> &AtomicU64 {
        &self.tenants[self.hasher.hash_one(tenant) as usize % COUNTERS]
    }
}

/// The stamps of one key: everything that has changed its tenant, forgotten its tenant or forgotten the key.
struct KeyStamps<'a> {
    changes: &'a ChangeCounter,
    forgotten: &'a ForgetCounts,
    tenant: TenantId,
    key: &'a TypedKey,
}

impl StampSource for KeyStamps<'_> {
    fn current_stamp(&self) -> ChangeStamp {
        let forgotten = self.forgotten.of_tenant(self.tenant).load(Ordering::SeqCst);
        let forgotten = forgotten + self.forgotten.of_key(self.key).load(Ordering::SeqCst);
        self.changes.tenant_mark(self.tenant).count() + forgotten
    }

    fn is_up_to_date(&self) -> bool {
        self.changes.time_since_confirmed() < SILENCE_MAX
    }
}

/// The cached values of one tenant in one namespace. [`Tenant::cache`] is its only maker.
pub struct TenantCache<'a, V, A: AccessLevel> {
    tenant: &'a Tenant<A>,
    namespace: &'a CacheNamespace<V>,
}

impl<V, A: AccessLevel> Clone for TenantCache<'_, V, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V, A: AccessLevel> Copy for TenantCache<'_, V, A> {}

impl<'a, V: Send + Sync + 'static, A: AccessLevel> TenantCache<'a, V, A> {
    /// The value of the key that these parts name, or the result of `load`. Callers that come meanwhile wait for the same
    /// load. A value that was loaded before a change of the tenant, or before [`TenantCache::forget`], is not kept.
    ///
    /// # Errors
    /// The error of `load`. Nothing is kept then.
    pub fn get_or_load<E, F, L>(
        self,
        parts: &[&str],
        load: L,
    ) -> impl Future<Output = Result<Arc<V>, E>> + use<'a, V, A, E, F, L>
    where
        F: Future<Output = Result<V, E>>,
        L: FnOnce() -> F,
    {
        let key = self.key(parts);
        async move {
            let stamps = self.stamps(&key);
            self.tenant
                .router
                .inner
                .tenant_values
                .values
                .value_or_load(&key, self.namespace.age_max, &stamps, load)
                .await
        }
    }

    /// The value of the key that these parts name, if it is known.
    pub async fn get(self, parts: &[&str]) -> Option<Arc<V>> {
        let key = self.key(parts);
        self.values().values.current_value(&key, &self.stamps(&key)).await
    }

    /// Forgets the value of the key that these parts name, in this process. Call it after the commit of the write that
    /// changes the value.
    pub fn forget(self, parts: &[&str]) {
        self.values().forgotten.of_key(&self.key(parts)).fetch_add(1, Ordering::SeqCst);
    }

    fn values(&self) -> &TenantValues {
        &self.tenant.router.inner.tenant_values
    }

    fn key(&self, parts: &[&str]) -> TypedKey {
        TypedKey { key: self.tenant.cache_key(self.namespace.name, parts), value: TypeId::of::<V>() }
    }

    fn stamps<'k>(&'k self, key: &'k TypedKey) -> KeyStamps<'k> {
        let changes = &self.tenant.router.inner.caches.change_counter;
        KeyStamps { changes, forgotten: &self.values().forgotten, tenant: self.tenant.id(), key }
    }
}

impl<A: AccessLevel> Tenant<A> {
    /// This tenant's values of a namespace, in this process.
    #[must_use]
    pub fn cache<'a, V: Send + Sync + 'static>(&'a self, namespace: &'a CacheNamespace<V>) -> TenantCache<'a, V, A> {
        TenantCache { tenant: self, namespace }
    }

    /// Forgets every cached value of this tenant, in this process. Other tenants' values stay.
    pub fn clear_cache(&self) {
        self.router.inner.tenant_values.forgotten.of_tenant(self.id()).fetch_add(1, Ordering::SeqCst);
    }

    /// The key of a value of this tenant, for a cache outside this process.
    #[must_use]
    pub fn cache_key(&self, namespace: &str, parts: &[&str]) -> CacheKey {
        CacheKey::new(self.router.inner.catalog.fleet_id(), self.record(), namespace, parts)
    }
}
