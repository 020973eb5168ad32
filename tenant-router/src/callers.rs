//! Who asks, and with which role: the caches of principals and roles, asked together.
//!
//! Called by `router.rs` for each request, and by `realtime/` for each open subscription. Never decides: `authorize.rs` does.

use std::sync::Arc;

use catalog::TenantRecord;
use catalog::members::Role;

use crate::error::Result;
use crate::feed::RouterCaches;
use crate::principal::{Principal, PrincipalKind, is_token_shaped};
use crate::resolve::nonexistent_tenant;

impl RouterCaches {
    /// The principal that a credential proves at `now`, in milliseconds since 1970.
    pub(crate) async fn prove_caller(&self, credential: Option<&str>, now: i64) -> Result<Arc<Principal>> {
        let known = match &self.token_principals {
            Some(tokens) if credential.is_some_and(is_token_shaped) => tokens,
            _ => &self.principals,
        };
        known.principal_of(credential, now).await
    }

    /// The principal's role among the tenant's members. Unknown tenants, which have no members, are looked up too. So
    /// the response time does not reveal whether a tenant exists.
    pub(crate) async fn caller_membership(
        &self,
        who: &Principal,
        record: Option<&Arc<TenantRecord>>,
    ) -> Result<Option<Role>> {
        match who.kind() {
            PrincipalKind::Member | PrincipalKind::TenantMember { .. } => {
                let tenant = record.map_or_else(nonexistent_tenant, |record| record.id);
                self.roles.role_of(tenant, who.name()).await
            }
            _ => Ok(None),
        }
    }
}
