//! The result of inspecting one database without changing it.

use crate::identity::Identity;
use crate::migration::AppliedMigration;

/// How thorough an inspection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InspectionDepth {
    /// Reads identity, ledger and sizes: takes microseconds.
    Ledger,
    /// Also runs `quick_check` and `foreign_key_check`: reads every page.
    Full,
}

/// The result of an inspection.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The identity row of the database.
    pub identity: Identity,
    /// The migration ledger, oldest first; empty when the database has none.
    pub applied: Vec<AppliedMigration>,
    /// Size of the database in bytes, including its write-ahead log.
    pub size_bytes: u64,
    /// Problems found by [`InspectionDepth::Full`]; empty for an intact database. At most 100.
    pub problems: Vec<String>,
    /// Number of rows that violate a foreign key; counted by [`InspectionDepth::Full`] only.
    pub foreign_key_violations: u64,
}

impl Inspection {
    /// The newest applied version.
    #[must_use]
    pub fn schema_version(&self) -> Option<i64> {
        self.applied.iter().map(|a| a.version).max()
    }
}
