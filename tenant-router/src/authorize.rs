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

/// The grant, or why not. `record` `None`: no such tenant. `membership`: what its members say of the principal, which counts
/// for members only.
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

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::tokens::OperatorRole;
    use catalog::{BlockWrites, Generation, ServerId, TenantState};
    use std::collections::BTreeMap;

    const STATES: [TenantState; 6] = [
        TenantState::Provisioning,
        TenantState::Active,
        TenantState::Suspended,
        TenantState::Archived,
        TenantState::Deleted,
        TenantState::Purged,
    ];
    const BLOCKS: [Option<BlockWrites>; 3] = [None, Some(BlockWrites::Operation), Some(BlockWrites::Operator)];
    const ROLES: [Role; 3] = [Role::Reader, Role::Writer, Role::Manager];
    const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::Manage];

    fn record(state: TenantState, block_writes: Option<BlockWrites>) -> Arc<TenantRecord> {
        Arc::new(TenantRecord {
            id: TenantId::generate(),
            name: "acme".to_owned(),
            state,
            state_reason: None,
            block_writes,
            server_id: ServerId::generate(),
            placement: None,
            generation: Generation::FIRST,
            placement_epoch: 0,
            schema_version: None,
            release_id: None,
            pin: None,
            ledger_release_id: None,
            size_bytes: None,
            protected: false,
            op_id: None,
            created_at: 0,
            updated_at: 0,
            deleted_at: None,
            purge_after: None,
            labels: BTreeMap::new(),
        })
    }

    /// Every way to have `role` in the tenant: the principal and what the members say of it.
    fn insiders(tenant: TenantId, role: Role) -> [(Principal, Option<Role>); 3] {
        [
            (Principal::of_tenant("t", tenant, role), None),
            (Principal::member("ann"), Some(role)),
            (Principal::service("s", role), None),
        ]
    }

    /// Every way to have no role in the tenant, with what the members say even where it must not count.
    fn outsiders() -> Vec<(Principal, Option<Role>)> {
        let operator = |role| Principal::operator("token:op", role);
        let mut outsiders = vec![(Principal::member("eve"), None)];
        for role in ROLES {
            for said in [None, Some(role)] {
                outsiders.push((Principal::of_tenant("t", TenantId::generate(), Role::Manager), said));
                outsiders.push((operator(OperatorRole::Viewer), said));
                outsiders.push((operator(OperatorRole::Operator), said));
                outsiders.push((operator(OperatorRole::Admin), said));
            }
        }
        outsiders
    }

    /// The table of states, written down again and independently of the code.
    fn expected(state: TenantState, block: Option<BlockWrites>, role: Role, access: Access) -> Result<(), ErrorKind> {
        let reads = access == Access::Read;
        match state {
            TenantState::Provisioning | TenantState::Deleted | TenantState::Purged => Err(ErrorKind::NotFound),
            TenantState::Suspended => Err(ErrorKind::Suspended),
            TenantState::Archived => Err(ErrorKind::Archived),
            TenantState::Active if !reads && block == Some(BlockWrites::Operator) => Err(ErrorKind::ReadOnly),
            TenantState::Active if !reads && block == Some(BlockWrites::Operation) => Err(ErrorKind::WritesBlocked),
            TenantState::Active => match (role, access) {
                (Role::Reader, Access::Write | Access::Manage) | (Role::Writer, Access::Manage) => {
                    Err(ErrorKind::Forbidden)
                }
                _ => Ok(()),
            },
        }
    }

    #[test]
    fn insiders_get_what_state_block_and_role_allow() {
        let mut cases = 0;
        for state in STATES {
            for block in BLOCKS {
                for role in ROLES {
                    for access in ACCESSES {
                        let record = record(state, block);
                        for (principal, membership) in insiders(record.id, role) {
                            let got = authorize(&Arc::new(principal), Some(&record), membership, access);
                            let facts = format!("{state:?} {block:?} {role:?} {access:?}");
                            assert_eq!(
                                got.as_ref().map(|_| ()).map_err(|kind| *kind),
                                expected(state, block, role, access),
                                "{facts}"
                            );
                            if let Ok(grant) = got {
                                assert_eq!(
                                    (grant.access(), grant.role(), grant.record().id),
                                    (access, role, record.id)
                                );
                            }
                            cases += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(cases, 6 * 3 * 3 * 3 * 3);
    }

    #[test]
    fn outsiders_learn_nothing_whatever_the_state() {
        for (principal, membership) in outsiders() {
            let principal = Arc::new(principal);
            for access in ACCESSES {
                for state in STATES {
                    for block in BLOCKS {
                        let got = authorize(&principal, Some(&record(state, block)), membership, access);
                        assert_eq!(got.unwrap_err(), ErrorKind::NotFound, "{state:?} {block:?} {principal:?}");
                    }
                }
                assert_eq!(authorize(&principal, None, membership, access).unwrap_err(), ErrorKind::NotFound);
            }
        }
    }

    #[test]
    fn membership_counts_for_members_only() {
        let record = record(TenantState::Active, None);
        let reader = Arc::new(Principal::of_tenant("t", record.id, Role::Reader));
        let refused = authorize(&reader, Some(&record), Some(Role::Manager), Access::Write);
        assert_eq!(refused.unwrap_err(), ErrorKind::Forbidden);
    }

    #[test]
    fn an_operator_with_a_reason_only_reads() {
        let operator = OperatorAccess::new("token:tok_1", "count tasks");
        let grant = authorize_operator(&operator, Some(&record(TenantState::Active, None))).unwrap();
        assert_eq!((grant.access(), grant.role()), (Access::Read, Role::Reader));
        assert_eq!(grant.principal().name(), "token:tok_1");
        // What such a grant is renewed with must not allow more.
        let again = authorize(grant.principal(), Some(grant.record()), None, Access::Write);
        assert_eq!(again.unwrap_err(), ErrorKind::Forbidden);
        assert_eq!(authorize_operator(&operator, None).unwrap_err(), ErrorKind::NotFound);
        let suspended = record(TenantState::Suspended, None);
        assert_eq!(authorize_operator(&operator, Some(&suspended)).unwrap_err(), ErrorKind::Suspended);
    }
}
