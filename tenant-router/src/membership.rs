//! The role of a principal in a tenant: from the catalog's members, or the application's own; cached.
//!
//! Called by `router.rs` after the tenant is known. Never decides access: `authorize.rs` does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catalog::members::{self, Role};
use catalog::{Catalog, TenantId};

use crate::error::Result;
use crate::single_flight_cache::{ChangeCounter, InvalidationSource, SingleFlightCache};

/// The application's own membership table.
///
/// The router caches the answer for at most [`MEMBERSHIP_AGE_MAX`].
#[async_trait]
pub trait Memberships: Send + Sync + 'static {
    /// The role of a principal in a tenant; `None` when the principal is not a member.
    ///
    /// # Errors
    /// When the role cannot be read now; the request fails with 503.
    async fn role(&self, tenant: TenantId, principal: &str) -> Result<Option<Role>>;
}

/// How long a cached role may be used. The change feed drops the catalog's own roles much earlier.
/// With the second between two checks of a subscription, a connection of a removed member is closed within 5 s.
pub const MEMBERSHIP_AGE_MAX: Duration = Duration::from_secs(4);

/// How many roles are cached: 50,000 take about 8 MB.
const ROLES_MAX: u64 = 50_000;

/// The cache key of one role.
type RoleKey = (TenantId, Box<str>);

/// Looks up roles and caches them for a short time, including "not a member".
pub(crate) struct RoleCache {
    source: RoleSource,
    known: SingleFlightCache<RoleKey, Option<Role>>,
}

/// Where roles are looked up.
pub(crate) enum RoleSource {
    /// The catalog's members.
    Members(Catalog),
    /// The application's own membership table.
    Application(Arc<dyn Memberships>),
}

impl RoleCache {
    pub(crate) fn new(source: RoleSource, counter: &ChangeCounter) -> Self {
        let told = match source {
            RoleSource::Members(_) => InvalidationSource::ByFeed,
            RoleSource::Application(_) => InvalidationSource::ByTimeAlone,
        };
        Self { source, known: SingleFlightCache::new(counter, ROLES_MAX, MEMBERSHIP_AGE_MAX, told) }
    }

    /// The role of a principal in a tenant; `None` when it is not a member.
    pub(crate) async fn role_of(&self, tenant: TenantId, principal: &str) -> Result<Option<Role>> {
        self.known.get_or_look_up_for(tenant, (tenant, principal.into()), || self.look_up(tenant, principal)).await
    }

    /// True when the change feed reports every change of a role.
    pub(crate) fn is_told_by_feed(&self) -> bool {
        matches!(self.source, RoleSource::Members(_))
    }

    /// Forgets every role.
    pub(crate) fn forget_all(&self) {
        self.known.forget_all();
    }

    async fn look_up(&self, tenant: TenantId, principal: &str) -> Result<Option<Role>> {
        match &self.source {
            RoleSource::Members(catalog) => {
                Ok(members::member_role(&mut catalog.read().await?, tenant, principal).await?)
            }
            RoleSource::Application(application) => application.role(tenant, principal).await,
        }
    }
}
