//! What a principal may do in a tenant: the catalog's members, or the application's own; cached.
//!
//! Called by `router.rs` after the tenant is known. Decides nothing: `authorize.rs` does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catalog::members::{self, Role};
use catalog::{Catalog, TenantId};
use moka::future::Cache;

use crate::error::{Error, Result};

/// The application's own membership table.
///
/// The router caches the answer for at most [`MEMBERSHIP_AGE_MAX`].
#[async_trait]
pub trait Memberships: Send + Sync + 'static {
    /// The role of a principal in a tenant, `None` when it is no member.
    ///
    /// # Errors
    /// When it cannot be told now; the request fails with 503.
    async fn role(&self, tenant: TenantId, principal: &str) -> Result<Option<Role>>;
}

/// How long a role may be used; the change feed drops the catalog's own long before.
pub const MEMBERSHIP_AGE_MAX: Duration = Duration::from_secs(5);

/// How many roles are remembered: 50,000 take about 8 MB.
const ROLES_MAX: u64 = 50_000;

/// The key of one role.
type Seat = (TenantId, Box<str>);

/// Looks roles up and remembers them for a while, "no member" too.
pub(crate) struct Roles {
    source: Source,
    known: Cache<Seat, Option<Role>>,
}

/// Where roles come from.
pub(crate) enum Source {
    /// The catalog's members.
    Members(Catalog),
    /// The application.
    Application(Arc<dyn Memberships>),
}

impl Roles {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, known: Cache::builder().max_capacity(ROLES_MAX).time_to_live(MEMBERSHIP_AGE_MAX).build() }
    }

    /// The role of a principal in a tenant. One lookup in flight per pair.
    pub(crate) async fn of(&self, tenant: TenantId, principal: &str) -> Result<Option<Role>> {
        let look_up = self.look_up(tenant, principal);
        self.known.try_get_with((tenant, principal.into()), look_up).await.map_err(|error| Error::shared(&error))
    }

    /// Forgets the roles in these tenants.
    pub(crate) async fn forget(&self, tenants: &[TenantId]) {
        for (seat, _) in &self.known {
            if tenants.contains(&seat.0) {
                self.known.invalidate(&*seat).await;
            }
        }
    }

    /// Forgets every role.
    pub(crate) fn forget_all(&self) {
        self.known.invalidate_all();
    }

    /// Forgets one: its answer was read while something changed.
    pub(crate) async fn forget_one(&self, tenant: TenantId, principal: &str) {
        self.known.invalidate(&(tenant, principal.into())).await;
    }

    async fn look_up(&self, tenant: TenantId, principal: &str) -> Result<Option<Role>> {
        match &self.source {
            Source::Members(catalog) => Ok(members::role(&mut catalog.read().await?, tenant, principal).await?),
            Source::Application(application) => application.role(tenant, principal).await,
        }
    }
}
