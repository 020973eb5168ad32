//! PURE: who asks, what the tenant is, and what is wanted decide together; the only maker of a [`Grant`].
//!
//! Called by `router.rs` after the tenant was looked up. Never waits, never looks anything up.

use std::sync::Arc;

use catalog::members::Role;
use catalog::{TenantId, TenantRecord};

use crate::error::ErrorKind;
use crate::gate::{self, Serving};
use crate::principal::{Principal, PrincipalKind};

/// What a request wants to do in a tenant; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// SELECT.
    Read,
    /// SELECT and DML.
    Write,
    /// Also members and settings of the tenant.
    Manage,
}

impl Access {
    /// The least role that may.
    #[must_use]
    pub fn needs(self) -> Role {
        match self {
            Self::Read => Role::Reader,
            Self::Write => Role::Writer,
            Self::Manage => Role::Manager,
        }
    }
}

/// The proof that a principal may do something in a tenant. Only [`authorize`] and [`authorize_operator`] make one, and
/// a tenant's database opens for nothing else.
///
/// ```compile_fail
/// fn forge(principal: std::sync::Arc<tenant_router::Principal>, record: std::sync::Arc<catalog::TenantRecord>) {
///     let _ = tenant_router::Grant { principal, record, access: tenant_router::Access::Manage };
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Grant {
    principal: Arc<Principal>,
    record: Arc<TenantRecord>,
    access: Access,
    role: Role,
}

impl Grant {
    /// Who was granted.
    #[must_use]
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }
    /// Where.
    #[must_use]
    pub fn record(&self) -> &Arc<TenantRecord> {
        &self.record
    }
    /// What.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }
    /// The principal's role in the tenant.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }
}

/// The right of an operator to read tenants' data, for a reason. Whoever makes one has checked that the actor is an
/// operator and records actor and reason; only the control plane does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorAccess {
    actor: String,
    reason: String,
}

impl OperatorAccess {
    /// For this operator and this reason, as the audit log shows them.
    #[must_use]
    pub fn new(actor: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { actor: actor.into(), reason: reason.into() }
    }
    /// Who.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }
    /// Why.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// The role that `principal` has in `tenant`; `membership` is what the tenant's members say, and counts for members only.
#[must_use]
pub(crate) fn role_in(principal: &Principal, tenant: TenantId, membership: Option<Role>) -> Option<Role> {
    match principal.kind() {
        PrincipalKind::Tenant { tenant: only, role } => (only == tenant).then_some(role),
        PrincipalKind::Member => membership,
        PrincipalKind::Service { role } => Some(role),
        PrincipalKind::Operator { .. } => None,
    }
}

/// The grant, or why not. `record` `None`: no such tenant. `membership`: see [`role_in`].
///
/// # Errors
/// [`ErrorKind::NotFound`] for everybody who may not know that the tenant exists; only then the tenant's own state.
pub fn authorize(
    principal: &Arc<Principal>,
    record: Option<&Arc<TenantRecord>>,
    membership: Option<Role>,
    access: Access,
) -> Result<Grant, ErrorKind> {
    let record = record.ok_or(ErrorKind::NotFound)?;
    let role = role_in(principal, record.id, membership).ok_or(ErrorKind::NotFound)?;
    admit(gate::serving(record), access)?;
    if role < access.needs() {
        return Err(ErrorKind::Forbidden);
    }
    Ok(Grant { principal: Arc::clone(principal), record: Arc::clone(record), access, role })
}

/// A read-only grant for an operator's query across the fleet.
///
/// # Errors
/// [`ErrorKind::NotFound`] and the tenant's state, as for a member who reads.
pub fn authorize_operator(operator: &OperatorAccess, record: Option<&Arc<TenantRecord>>) -> Result<Grant, ErrorKind> {
    let record = record.ok_or(ErrorKind::NotFound)?;
    admit(gate::serving(record), Access::Read)?;
    let principal = Arc::new(Principal::of_tenant(operator.actor(), record.id, Role::Reader));
    Ok(Grant { principal, record: Arc::clone(record), access: Access::Read, role: Role::Reader })
}

/// Whether a tenant that serves like this admits a member with this wish.
fn admit(serving: Serving, access: Access) -> Result<(), ErrorKind> {
    match (serving, access) {
        (Serving::ReadWrite, _) | (Serving::ReadHeld | Serving::ReadOnly, Access::Read) => Ok(()),
        (Serving::ReadHeld, _) => Err(ErrorKind::WritesBlocked),
        (Serving::ReadOnly, _) => Err(ErrorKind::ReadOnly),
        (Serving::Suspended, _) => Err(ErrorKind::Suspended),
        (Serving::Archived, _) => Err(ErrorKind::Archived),
        (Serving::Gone, _) => Err(ErrorKind::NotFound),
    }
}
