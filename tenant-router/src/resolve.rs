//! Which tenant a name leads to, and what the catalog says of it; bounded, and dropped as the change feed tells.
//!
//! Called by `router.rs`. Tells the truth about tenants to the router only: who may know is decided in `authorize.rs`.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, Name, TenantId, TenantRecord, tenants};

use crate::error::{ErrorKind, Result};
use crate::memo::{Epoch, Memo, TenantMark};
use crate::metrics::Meters;

/// How many tenants are remembered: about 60 MB when full, and then the rare ones cost a lookup of 0.1 ms.
const TENANTS_MAX: u64 = 100_000;

/// How long a record may be used while the change feed cannot be read. It may be stale then, but not wrong: the
/// identity inside the database decides.
const RECORD_AGE_MAX: Duration = Duration::from_secs(60);

/// How many unknown names are remembered, apart from the known ones so that guessing does not push those out.
const MISSING_MAX: u64 = 10_000;

/// How long an unknown name stays unknown, should the change feed not tell of its creation before.
const MISSING_AGE_MAX: Duration = Duration::from_secs(2);

/// The tenant that a name leads to, with its mark: a tenant that was given up frees its name. Without a mark when something
/// changed during the look-up.
type NamedTenant = (TenantId, Option<TenantMark>);

/// What the catalog knows, as far as requests need it.
pub(crate) struct Directory {
    catalog: Catalog,
    epoch: Epoch,
    names: Memo<Name, Option<NamedTenant>>,
    missing: Memo<Name, ()>,
    records: Memo<TenantId, Option<Arc<TenantRecord>>>,
    meters: Arc<Meters>,
}

impl Directory {
    pub(crate) fn new(catalog: Catalog, epoch: &Epoch, meters: Arc<Meters>) -> Self {
        Self {
            catalog,
            epoch: epoch.clone(),
            names: Memo::new(epoch, TENANTS_MAX, RECORD_AGE_MAX),
            missing: Memo::new(epoch, MISSING_MAX, MISSING_AGE_MAX),
            records: Memo::new(epoch, TENANTS_MAX, RECORD_AGE_MAX),
            meters,
        }
    }

    /// The tenant that all these names lead to, `None` when the only name leads nowhere. Every name is looked up, and a
    /// record is always asked for: an unknown name takes the same steps as a known one.
    ///
    /// # Errors
    /// [`ErrorKind::TenantAmbiguous`] when two names do not lead to one tenant, be it that one of them leads nowhere:
    /// otherwise the answer would tell which names exist.
    pub(crate) async fn by_names(&self, names: &[Name]) -> Result<Option<Arc<TenantRecord>>> {
        let Some((first, others)) = names.split_first() else { return Ok(None) };
        let id = self.id_of(first).await?;
        let mut one_tenant = id.is_some() || others.is_empty();
        for other in others {
            one_tenant &= self.id_of(other).await? == id;
        }
        let record = self.by_id(id.unwrap_or_else(nobodys_tenant)).await?;
        if one_tenant { Ok(record) } else { Err(ErrorKind::TenantAmbiguous.into()) }
    }

    /// What is known of a tenant.
    pub(crate) async fn by_id(&self, id: TenantId) -> Result<Option<Arc<TenantRecord>>> {
        self.records.get_or_of(id, id, || self.read_record(id)).await
    }

    /// What the catalog says right now, whatever was remembered.
    pub(crate) async fn by_id_now(&self, id: TenantId) -> Result<Option<Arc<TenantRecord>>> {
        let mark = self.epoch.mark(id);
        let record = self.read_record(id).await?;
        self.records.put_of(id, record.clone(), mark).await;
        Ok(record)
    }

    /// Frees what is known of tenants that changed, and forgets which names are unknown: one of these tenants may have
    /// been created.
    pub(crate) async fn forget(&self, tenants: impl IntoIterator<Item = &TenantId>) {
        for id in tenants {
            self.records.forget(id).await;
        }
        self.missing.forget_all();
    }

    /// Forgets everything.
    pub(crate) fn forget_all(&self) {
        self.records.forget_all();
        self.names.forget_all();
        self.missing.forget_all();
    }

    async fn id_of(&self, name: &Name) -> Result<Option<TenantId>> {
        if self.missing.knows(name) {
            return Ok(None);
        }
        let epoch = self.epoch.now();
        let mut named = self.names.get_or(name.clone(), || self.read_name(name)).await?;
        if named.is_some_and(|(id, mark)| mark != Some(self.epoch.mark(id))) {
            self.names.forget(name).await;
            named = self.names.get_or(name.clone(), || self.read_name(name)).await?;
        }
        if named.is_none() {
            self.names.forget(name).await;
            self.missing.put(name.clone(), (), epoch).await;
        }
        Ok(named.map(|(id, _)| id))
    }

    async fn read_name(&self, name: &Name) -> Result<Option<NamedTenant>> {
        self.meters.lookups.increment(1);
        let epoch = self.epoch.now();
        let record = tenants::by_name(&mut self.catalog.read().await?, name).await?.map(Arc::new);
        let Some(record) = record else { return Ok(None) };
        let id = record.id;
        let mark = self.epoch.mark_since(id, epoch);
        if let Some(mark) = mark {
            self.records.put_of(id, Some(record), mark).await;
        }
        Ok(Some((id, mark)))
    }

    async fn read_record(&self, id: TenantId) -> Result<Option<Arc<TenantRecord>>> {
        self.meters.lookups.increment(1);
        Ok(tenants::get(&mut self.catalog.read().await?, id).await?.map(Arc::new))
    }
}

/// An id that no tenant has: a v7 id is never all zero.
pub(crate) fn nobodys_tenant() -> TenantId {
    TenantId::from_uuid(uuid::Uuid::nil())
}
