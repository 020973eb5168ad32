//! The tenant that a name leads to, and its record in the catalog. Cached with a limit, and dropped by the change feed.
//!
//! Called by `router.rs`. Answers only the router: `authorize.rs` decides what callers may learn.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, TenantId, TenantName, TenantRecord, tenants};

use crate::error::{ErrorKind, Result};
use crate::metrics::RouterMetrics;
use crate::single_flight_cache::{ChangeCounter, InvalidationSource, SingleFlightCache, TenantMark};

/// How many tenants are cached: about 60 MB when full. Others cost a look-up of 0.1 ms.
const TENANTS_MAX: u64 = 100_000;

/// How long a record may be used while the change feed cannot be read. It may be stale, but that is safe: the identity
/// inside the database decides.
const RECORD_AGE_MAX: Duration = Duration::from_secs(60);

/// How many unknown names are cached. Their cache is separate, so that guessed names do not evict known ones.
const MISSING_MAX: u64 = 10_000;

/// How long an unknown name stays cached, if the change feed does not report its creation earlier.
const MISSING_AGE_MAX: Duration = Duration::from_secs(2);

/// The tenant that a name leads to, with its mark: a deleted tenant frees its name. The mark is `None` when anything
/// changed during the look-up.
type NamedTenant = (TenantId, Option<TenantMark>);

/// The part of the catalog that requests need, cached.
pub(crate) struct TenantDirectory {
    catalog: Catalog,
    change_counter: ChangeCounter,
    names: SingleFlightCache<TenantName, Option<NamedTenant>>,
    missing: SingleFlightCache<TenantName, ()>,
    records: SingleFlightCache<TenantId, Option<Arc<TenantRecord>>>,
    meters: Arc<RouterMetrics>,
}

impl TenantDirectory {
    pub(crate) fn new(catalog: Catalog, counter: &ChangeCounter, meters: Arc<RouterMetrics>) -> Self {
        Self {
            catalog,
            change_counter: counter.clone(),
            names: SingleFlightCache::new(counter, TENANTS_MAX, RECORD_AGE_MAX, InvalidationSource::ByFeed),
            missing: SingleFlightCache::new(counter, MISSING_MAX, MISSING_AGE_MAX, InvalidationSource::ByTimeAlone),
            records: SingleFlightCache::new(counter, TENANTS_MAX, RECORD_AGE_MAX, InvalidationSource::ByFeed),
            meters,
        }
    }

    /// The tenant that all these names lead to; `None` when the only name is unknown. Every name is looked up and a
    /// record is always read, so that unknown names take the same steps as known ones.
    ///
    /// # Errors
    /// [`ErrorKind::TenantAmbiguous`] when two names do not lead to one tenant, even if one of them is unknown.
    /// Otherwise the answer would reveal which names exist.
    pub(crate) async fn by_names(&self, names: &[TenantName]) -> Result<Option<Arc<TenantRecord>>> {
        let Some((first, others)) = names.split_first() else { return Ok(None) };
        let id = self.id_of(first).await?;
        let mut one_tenant = id.is_some() || others.is_empty();
        for other in others {
            one_tenant &= self.id_of(other).await? == id;
        }
        let record = self.by_id(id.unwrap_or_else(nonexistent_tenant)).await?;
        if one_tenant { Ok(record) } else { Err(ErrorKind::TenantAmbiguous.into()) }
    }

    /// The tenant's record, cached or read; `None` when the tenant does not exist.
    pub(crate) async fn by_id(&self, id: TenantId) -> Result<Option<Arc<TenantRecord>>> {
        self.records.get_or_look_up_for(id, id, || self.read_record(id)).await
    }

    /// The tenant's current record in the catalog. Ignores the cache.
    pub(crate) async fn by_id_now(&self, id: TenantId) -> Result<Option<Arc<TenantRecord>>> {
        let mark = self.change_counter.tenant_mark(id);
        let record = self.read_record(id).await?;
        self.records.store_tenant_answer(id, record.clone(), mark).await;
        Ok(record)
    }

    /// Drops the cached entries of changed tenants and all unknown names, because a changed tenant may be a new one.
    pub(crate) async fn forget_tenants(&self, tenants: impl IntoIterator<Item = &TenantId>) {
        for id in tenants {
            self.records.forget_answer(id).await;
        }
        self.missing.forget_all();
    }

    /// Empties all caches of the directory.
    pub(crate) fn forget_all(&self) {
        self.records.forget_all();
        self.names.forget_all();
        self.missing.forget_all();
    }

    async fn id_of(&self, name: &TenantName) -> Result<Option<TenantId>> {
        if self.missing.is_known(name) {
            return Ok(None);
        }
        let count_before = self.change_counter.change_count();
        let mut named = self.names.get_or_look_up(name.clone(), || self.read_name(name)).await?;
        if named.is_some_and(|(id, mark)| mark != Some(self.change_counter.tenant_mark(id))) {
            self.names.forget_answer(name).await;
            named = self.names.get_or_look_up(name.clone(), || self.read_name(name)).await?;
        }
        if named.is_none() {
            self.names.forget_answer(name).await;
            self.missing.store_answer(name.clone(), (), count_before).await;
        }
        Ok(named.map(|(id, _)| id))
    }

    async fn read_name(&self, name: &TenantName) -> Result<Option<NamedTenant>> {
        self.meters.lookups.increment(1);
        let count_before = self.change_counter.change_count();
        let record = tenants::by_name(&mut self.catalog.read().await?, name).await?.map(Arc::new);
        let Some(record) = record else { return Ok(None) };
        let id = record.id;
        let mark = self.change_counter.tenant_mark_since(id, count_before);
        if let Some(mark) = mark {
            self.records.store_tenant_answer(id, Some(record), mark).await;
        }
        Ok(Some((id, mark)))
    }

    async fn read_record(&self, id: TenantId) -> Result<Option<Arc<TenantRecord>>> {
        self.meters.lookups.increment(1);
        Ok(tenants::get(&mut self.catalog.read().await?, id).await?.map(Arc::new))
    }
}

/// An id that no tenant has: a v7 id is never all zero.
pub(crate) fn nonexistent_tenant() -> TenantId {
    TenantId::from_uuid(uuid::Uuid::nil())
}
