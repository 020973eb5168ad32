//! [`TenantKey`]: the id of a row, together with its tenant.

use catalog::TenantId;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, Result};
use crate::tenant::{AccessLevel, Tenant};

/// The id of a row for the time when it leaves a request: in a job, an event, a file or an external system.
///
/// The databases of two tenants have rows with the same ids. Two keys are equal only if the tenants are equal, too. Only the
/// tenant itself takes the id out again:
///
/// ```
/// # use tenant_router::{Error, Read, Tenant, TenantKey};
/// fn leave(tenant: &Tenant<Read>) -> TenantKey<i64> {
///     tenant.key(1)
/// }
///
/// async fn come_back(tenant: &Tenant<Read>, key: TenantKey<i64>) -> Result<String, Error> {
///     // `not_found` if this is another tenant.
///     let id = tenant.own_id(key)?;
///     tenant.query_as("select title from tasks where id = $1", [id]).fetch_one().await
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TenantKey<T> {
    tenant: TenantId,
    id: T,
}

impl<T> TenantKey<T> {
    /// The tenant of the row.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }
}

impl<A: AccessLevel> Tenant<A> {
    /// The id with this tenant.
    #[must_use]
    pub fn key<T>(&self, id: T) -> TenantKey<T> {
        TenantKey { tenant: self.id(), id }
    }

    /// The id of a key that belongs to this tenant.
    ///
    /// # Errors
    /// `NotFound` when the key belongs to another tenant.
    pub fn own_id<T>(&self, key: TenantKey<T>) -> Result<T> {
        if key.tenant == self.id() { Ok(key.id) } else { Err(ErrorKind::NotFound.into()) }
    }
}
