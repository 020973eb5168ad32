//! PURE: what a tenant's record allows every caller: by its state, its blocks and its schema.

use catalog::{BlockWrites, FleetId, TenantRecord, TenantState};
use tenant_engine::{ExpectedIdentity, IdentityState};

use crate::error::ErrorKind;

/// What a tenant serves to its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServingMode {
    /// Reads and writes.
    ReadWrite,
    /// Only reads, while an operation blocks writes for a short time.
    ReadHeld,
    /// Only reads: an operator disabled writes.
    ReadOnly,
    /// Nothing; members get the reason.
    Suspended,
    /// Nothing until the tenant is woken.
    Archived,
    /// Nothing: the tenant is being created, or was deleted.
    Gone,
}

/// What a tenant with this record serves.
#[must_use]
pub fn serving_mode(record: &TenantRecord) -> ServingMode {
    match (record.state, record.block_writes) {
        (TenantState::Active, None) => ServingMode::ReadWrite,
        (TenantState::Active, Some(BlockWrites::Operation)) => ServingMode::ReadHeld,
        (TenantState::Active, Some(BlockWrites::Operator)) => ServingMode::ReadOnly,
        (TenantState::Suspended, _) => ServingMode::Suspended,
        // No request wakes a tenant that would still be suspended.
        (TenantState::Archived, _) if record.state_on_wake() == TenantState::Suspended => ServingMode::Suspended,
        (TenantState::Archived, _) => ServingMode::Archived,
        (TenantState::Provisioning | TenantState::Deleted | TenantState::Purged, _) => ServingMode::Gone,
    }
}

/// The identity that the tenant's database must have to be served for this record.
pub(crate) fn expected_identity(record: &TenantRecord, fleet: FleetId) -> ExpectedIdentity {
    // A frozen database is expected only while the record says that writes are blocked.
    let states = match record.block_writes {
        None => vec![IdentityState::Active],
        Some(_) => vec![IdentityState::Active, IdentityState::Frozen],
    };
    ExpectedIdentity { tenant: record.id, fleet, generation: record.generation, states }
}

/// The schema versions this program can serve, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaRange {
    /// The oldest version that the program serves.
    pub min: i64,
    /// The newest version that the program was built for.
    pub max: i64,
    /// The policy for tenants with a newer schema.
    pub ahead: NewerSchemaPolicy,
}

/// The policy for tenants whose schema is newer than the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewerSchemaPolicy {
    /// Serve the tenant: until every program is updated, migrations only add to the schema.
    Serve,
    /// Refuse with [`ErrorKind::SchemaAhead`].
    Refuse,
}

impl SchemaRange {
    /// Checks whether a tenant at `version` (`None`: never migrated) may be served.
    ///
    /// # Errors
    /// [`ErrorKind::SchemaBehind`] when the schema is too old, [`ErrorKind::SchemaAhead`] when it is too new.
    pub fn check_version(&self, version: Option<i64>) -> Result<(), ErrorKind> {
        match version {
            None => Err(ErrorKind::SchemaBehind),
            Some(version) if version < self.min => Err(ErrorKind::SchemaBehind),
            Some(version) if version > self.max && self.ahead == NewerSchemaPolicy::Refuse => {
                Err(ErrorKind::SchemaAhead)
            }
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_range_includes_both_ends() {
        let range = SchemaRange { min: 3, max: 5, ahead: NewerSchemaPolicy::Refuse };
        let answers: Vec<_> = [None, Some(2), Some(3), Some(5), Some(6)].map(|v| range.check_version(v)).into();
        assert_eq!(
            answers,
            [Err(ErrorKind::SchemaBehind), Err(ErrorKind::SchemaBehind), Ok(()), Ok(()), Err(ErrorKind::SchemaAhead)]
        );
        assert_eq!(SchemaRange { ahead: NewerSchemaPolicy::Serve, ..range }.check_version(Some(6)), Ok(()));
    }
}
