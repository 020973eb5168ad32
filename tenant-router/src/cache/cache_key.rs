//! [`CacheKey`]: the name of one value of one tenant.

use std::fmt::{self, Write as _};

use catalog::{FleetId, TenantRecord};

/// The key of a cached value. [`Tenant::cache_key`](crate::Tenant::cache_key) is its only maker.
///
/// It contains the fleet, the tenant, the generation of the tenant's database, its schema version, the namespace and the
/// parts, each with its length. So no two of them give the same text, and a restored or migrated tenant has other keys. An
/// application with an external cache, such as Redis, uses the text as its key:
///
/// ```
/// # use tenant_router::{Read, Tenant};
/// fn key_of_counts(tenant: &Tenant<Read>, filter: &str) -> String {
///     tenant.cache_key("counts", &[filter]).to_string()
/// }
/// ```
/// The values of an external cache need a time limit, because nothing removes the entries of old generations.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(Box<str>);

impl CacheKey {
    pub(crate) fn new(fleet: FleetId, record: &TenantRecord, namespace: &str, parts: &[&str]) -> Self {
        let version = record.schema_version.map(|version| version.to_string()).unwrap_or_default();
        let (fleet, tenant, generation) = (fleet.to_string(), record.id.to_string(), record.generation.to_string());
        let own = [&*fleet, &*tenant, &*generation, &*version, namespace];
        let mut text = String::with_capacity(128);
        for part in own.into_iter().chain(parts.iter().copied()) {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{}:{part},", part.len());
        }
        Self(text.into())
    }

    /// The text of the key. It may contain any character that the parts contain.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
