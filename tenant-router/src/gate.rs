//! PURE: what a tenant's record allows at all, whoever asks: its state, its blocks, its schema.

use catalog::{BlockWrites, FleetId, TenantRecord, TenantState};
use tenant_engine::{Expected, IdentityState};

use crate::error::ErrorKind;

/// What a tenant serves to its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// Everything.
    ReadWrite,
    /// Reads; an operation holds writes back for a moment.
    ReadHeld,
    /// Reads; an operator switched writes off.
    ReadOnly,
    /// Nothing, and members may know why.
    Suspended,
    /// Nothing until it is woken.
    Archived,
    /// Nothing: being made, or no more.
    Gone,
}

/// What this record serves.
#[must_use]
pub fn serving(record: &TenantRecord) -> Serving {
    match (record.state, record.block_writes) {
        (TenantState::Active, None) => Serving::ReadWrite,
        (TenantState::Active, Some(BlockWrites::Operation)) => Serving::ReadHeld,
        (TenantState::Active, Some(BlockWrites::Operator)) => Serving::ReadOnly,
        (TenantState::Suspended, _) => Serving::Suspended,
        // It was suspended when it was archived, and no request brings it back. A read-only one has a reason besides.
        (TenantState::Archived, None) if record.state_reason.is_some() => Serving::Suspended,
        (TenantState::Archived, _) => Serving::Archived,
        (TenantState::Provisioning | TenantState::Deleted | TenantState::Purged, _) => Serving::Gone,
    }
}

/// What the tenant's database must say about itself to be served for this record.
pub(crate) fn expected(record: &TenantRecord, fleet: FleetId) -> Expected {
    // A frozen database is right only while the record says that writes are blocked.
    let states = match record.block_writes {
        None => vec![IdentityState::Active],
        Some(_) => vec![IdentityState::Active, IdentityState::Frozen],
    };
    Expected { tenant: record.id, fleet, generation: record.generation, states }
}

/// The schema versions this program can serve, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaRange {
    /// The oldest.
    pub min: i64,
    /// The newest it was built for.
    pub max: i64,
    /// What to do with a tenant that is newer.
    pub ahead: Ahead,
}

/// What to do with a tenant whose schema is newer than the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// Serve it: migrations only add until every program is new.
    Serve,
    /// Refuse with [`ErrorKind::SchemaAhead`].
    Refuse,
}

impl SchemaRange {
    /// Whether a tenant at `version` (`None`: never migrated) may be served.
    ///
    /// # Errors
    /// [`ErrorKind::SchemaBehind`] and [`ErrorKind::SchemaAhead`].
    pub fn check(&self, version: Option<i64>) -> Result<(), ErrorKind> {
        match version {
            None => Err(ErrorKind::SchemaBehind),
            Some(version) if version < self.min => Err(ErrorKind::SchemaBehind),
            Some(version) if version > self.max && self.ahead == Ahead::Refuse => Err(ErrorKind::SchemaAhead),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_range_includes_both_ends() {
        let range = SchemaRange { min: 3, max: 5, ahead: Ahead::Refuse };
        let answers: Vec<_> = [None, Some(2), Some(3), Some(5), Some(6)].map(|v| range.check(v)).into();
        assert_eq!(
            answers,
            [Err(ErrorKind::SchemaBehind), Err(ErrorKind::SchemaBehind), Ok(()), Ok(()), Err(ErrorKind::SchemaAhead)]
        );
        assert_eq!(SchemaRange { ahead: Ahead::Serve, ..range }.check(Some(6)), Ok(()));
    }
}
