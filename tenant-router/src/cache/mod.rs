//! A cache in the process, for values that an application computes from a tenant's data.
//!
//! A key is made from a [`Tenant`] and from nothing else, so no value is found for another tenant. An entry ends with any
//! change of its tenant in the catalog: a restore, a migration, a move, a rename, a suspension, a changed member. This
//! process sees its own changes at once, and those of other processes within a second. While the change feed cannot be read,
//! nothing is answered from the cache.
//!
//! The application's own writes are not seen: after the commit call [`TenantCache::forget`], or let the age end the value.
//!
//! Data that is the same for all tenants goes into a [`PublicCache`], which is another type.

mod cache_key;
mod loading_cache;
mod public_cache;
mod tenant_cache;

pub use cache_key::CacheKey;
pub use public_cache::PublicCache;
pub(crate) use tenant_cache::TenantValues;
pub use tenant_cache::{CacheNamespace, TenantCache};

#[cfg(doc)]
use crate::tenant::Tenant;
