//! What a principal may do in a tenant: the catalog's members, or the application's own; cached.
//!
//! Called by `router.rs` after the tenant is known. Decides nothing: `authorize.rs` does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catalog::members::{self, Role};
use catalog::{Catalog, TenantId};

use crate::error::Result;
use crate::memo::{Epoch, Memo};

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
    known: Memo<Seat, Option<Role>>,
}

/// Where roles come from.
pub(crate) enum Source {
    /// The catalog's members.
    Members(Catalog),
    /// The application.
    Application(Arc<dyn Memberships>),
}

impl Roles {
    pub(crate) fn new(source: Source, epoch: &Epoch) -> Self {
        Self { source, known: Memo::new(epoch, ROLES_MAX, MEMBERSHIP_AGE_MAX) }
    }

    /// The role of a principal in a tenant.
    pub(crate) async fn of(&self, tenant: TenantId, principal: &str) -> Result<Option<Role>> {
        self.known.get_or_of(tenant, (tenant, principal.into()), || self.look_up(tenant, principal)).await
    }

    /// Forgets every role.
    pub(crate) fn forget_all(&self) {
        self.known.forget_all();
    }

    async fn look_up(&self, tenant: TenantId, principal: &str) -> Result<Option<Role>> {
        match &self.source {
            Source::Members(catalog) => Ok(members::role(&mut catalog.read().await?, tenant, principal).await?),
            Source::Application(application) => application.role(tenant, principal).await,
        }
    }
}
