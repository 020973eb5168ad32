//! PURE: decides from principal, tenant record and wanted access. The only maker of a [`Grant`].
//!
//! Called by `router.rs` after the tenant was looked up. Never waits and never looks anything up.

use std::sync::Arc;

use catalog::members::Role;
use catalog::{TenantId, TenantRecord};

use crate::error::ErrorKind;
use crate::gate::{self, ServingMode};
use crate::principal::{Principal, PrincipalKind};

/// The access that a request wants to a tenant. Each level includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Allows SELECT statements.
    Read,
    /// Allows SELECT and DML.
    Write,
    /// Also allows changes to the tenant's members and settings.
    Manage,
}

impl Access {
    /// The lowest role that has this access.
    #[must_use]
    pub fn required_role(self) -> Role {
        match self {
            Self::Read => Role::Reader,
            Self::Write => Role::Writer,
            Self::Manage => Role::Manager,
        }
    }
}

/// The proof that a principal has access to a tenant. Only the functions of this file make one. A
/// tenant's database cannot be opened without it.
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
    /// The principal that was granted access.
    #[must_use]
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }
    /// The record of the tenant that the grant is for.
    #[must_use]
    pub fn record(&self) -> &Arc<TenantRecord> {
        &self.record
    }
    /// The granted level of access.
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

/// The right of an operator to read tenants' data, for a stated reason. The maker has checked that the actor is an
/// operator, and records actor and reason. Only the control plane makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorAccess {
    actor: String,
    reason: String,
}

impl OperatorAccess {
    /// Names the operator and the reason, as the audit log shows them.
    #[must_use]
    pub fn new(actor: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { actor: actor.into(), reason: reason.into() }
    }
    /// The operator, as the audit log names it.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }
    /// The operator's reason, as the audit log shows it.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// The role of `principal` in `tenant`. `membership` is its role among the tenant's members; it counts for members
/// only.
#[must_use]
pub(crate) fn role_in(principal: &Principal, tenant: TenantId, membership: Option<Role>) -> Option<Role> {
    match principal.kind() {
        PrincipalKind::Tenant { tenant: only, role } => (only == tenant).then_some(role),
        PrincipalKind::Member => membership,
        PrincipalKind::TenantMember { tenant: only } => membership.filter(|_| only == tenant),
        PrincipalKind::Service { role } => Some(role),
        PrincipalKind::Operator { .. } => None,
    }
}

/// The grant, or the reason against it. `record` is `None` when the tenant does not exist. `membership` is the
/// principal's role among the tenant's members; it counts for members only.
///
/// # Errors
/// [`ErrorKind::NotFound`] for every caller that must not learn whether the tenant exists. Other callers get an error
/// about the tenant's state.
pub fn authorize(
    principal: &Arc<Principal>,
    record: Option<&Arc<TenantRecord>>,
    membership: Option<Role>,
    access: Access,
) -> Result<Grant, ErrorKind> {
    let record = record.ok_or(ErrorKind::NotFound)?;
    let role = role_in(principal, record.id, membership).ok_or(ErrorKind::NotFound)?;
    admit_access(gate::serving_mode(record), access)?;
    if role < access.required_role() {
        return Err(ErrorKind::Forbidden);
    }
    Ok(Grant { principal: Arc::clone(principal), record: Arc::clone(record), access, role })
}

/// A read-only grant for an operator's query across the fleet.
///
/// # Errors
/// [`ErrorKind::NotFound`], and errors about the tenant's state, as for a member that reads.
pub fn authorize_operator(operator: &OperatorAccess, record: Option<&Arc<TenantRecord>>) -> Result<Grant, ErrorKind> {
    let record = record.ok_or(ErrorKind::NotFound)?;
    admit_access(gate::serving_mode(record), Access::Read)?;
    let principal = Arc::new(Principal::of_tenant(operator.actor(), record.id, Role::Reader));
    Ok(Grant { principal, record: Arc::clone(record), access: Access::Read, role: Role::Reader })
}

/// A grant for changing a tenant's job queue on an operator's behalf. The caller changes nothing else with it.
///
/// # Errors
/// [`ErrorKind::NotFound`], and errors about the tenant's state, as for a member that writes.
pub(crate) fn authorize_queue(
    operator: &OperatorAccess,
    record: Option<&Arc<TenantRecord>>,
) -> Result<Grant, ErrorKind> {
    let record = record.ok_or(ErrorKind::NotFound)?;
    admit_access(gate::serving_mode(record), Access::Write)?;
    let principal = Arc::new(Principal::of_tenant(operator.actor(), record.id, Role::Writer));
    Ok(Grant { principal, record: Arc::clone(record), access: Access::Write, role: Role::Writer })
}

/// Checks whether a tenant in this serving mode allows this access to a member.
fn admit_access(serving: ServingMode, access: Access) -> Result<(), ErrorKind> {
    match (serving, access) {
        (ServingMode::ReadWrite, _) | (ServingMode::ReadHeld | ServingMode::ReadOnly, Access::Read) => Ok(()),
        (ServingMode::ReadHeld, _) => Err(ErrorKind::WritesBlocked),
        (ServingMode::ReadOnly, _) => Err(ErrorKind::ReadOnly),
        (ServingMode::Suspended, _) => Err(ErrorKind::Suspended),
        (ServingMode::Archived, _) => Err(ErrorKind::Archived),
        (ServingMode::Gone, _) => Err(ErrorKind::NotFound),
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
            wake_state: None,
            archive_backup_id: None,
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
            plan: None,
            labels: BTreeMap::new(),
        })
    }

    /// Every way to have `role` in the tenant: the principal and its role among the members.
    fn insiders(tenant: TenantId, role: Role) -> [(Principal, Option<Role>); 4] {
        [
            (Principal::of_tenant("t", tenant, role), None),
            (Principal::member("ann"), Some(role)),
            (Principal::tenant_member("ann", tenant), Some(role)),
            (Principal::service("s", role), None),
        ]
    }

    /// Every way to have no role in the tenant, with a role among the members where it must not count.
    fn outsiders() -> Vec<(Principal, Option<Role>)> {
        let operator = |role| Principal::operator("token:op", role);
        let mut outsiders = vec![(Principal::member("eve"), None)];
        for role in ROLES {
            for said in [None, Some(role)] {
                outsiders.push((Principal::of_tenant("t", TenantId::generate(), Role::Manager), said));
                outsiders.push((Principal::tenant_member("ann", TenantId::generate()), said));
                outsiders.push((operator(OperatorRole::Viewer), said));
                outsiders.push((operator(OperatorRole::Operator), said));
                outsiders.push((operator(OperatorRole::Admin), said));
            }
        }
        outsiders
    }

    /// The table of states, repeated independently of the code.
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
        assert_eq!(cases, 6 * 3 * 3 * 3 * 4);
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
    fn an_archived_tenant_that_wakes_suspended_is_suspended() {
        let (active, suspended) = (Some(TenantState::Active), Some(TenantState::Suspended));
        let reason = || Some("unpaid".to_owned());
        let operator = Some(BlockWrites::Operator);
        for (wake_state, state_reason, block_writes, expected) in [
            (active, reason(), None, ErrorKind::Archived),
            (suspended, None, None, ErrorKind::Suspended),
            (suspended, reason(), operator, ErrorKind::Suspended),
            // Rows of older versions do not say how they wake.
            (None, None, None, ErrorKind::Archived),
            (None, reason(), None, ErrorKind::Suspended),
            (None, reason(), operator, ErrorKind::Archived),
        ] {
            let archived = record(TenantState::Archived, block_writes);
            let record = Arc::new(TenantRecord { wake_state, state_reason, ..(*archived).clone() });
            let caller = Arc::new(Principal::of_tenant("t", record.id, Role::Manager));
            let refused = authorize(&caller, Some(&record), None, Access::Read).unwrap_err();
            assert_eq!(refused, expected, "{wake_state:?} {block_writes:?}");
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
        // The renewal of such a grant must not allow more.
        let again = authorize(grant.principal(), Some(grant.record()), None, Access::Write);
        assert_eq!(again.unwrap_err(), ErrorKind::Forbidden);
        assert_eq!(authorize_operator(&operator, None).unwrap_err(), ErrorKind::NotFound);
        let suspended = record(TenantState::Suspended, None);
        assert_eq!(authorize_operator(&operator, Some(&suspended)).unwrap_err(), ErrorKind::Suspended);
    }
}
