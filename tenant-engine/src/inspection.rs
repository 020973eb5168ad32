//! What can be said about one database without changing it.

use crate::identity::Identity;
use crate::migration::Applied;

/// How hard to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Identity, ledger and sizes: microseconds.
    Ledger,
    /// Also `quick_check` and `foreign_key_check`: reads every page.
    Full,
}

/// What an inspection found.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Whose database it is.
    pub identity: Identity,
    /// The migration ledger, oldest first; empty when there is none.
    pub applied: Vec<Applied>,
    /// Bytes of the database, its write-ahead log included.
    pub size_bytes: u64,
    /// Problems found by [`Depth::Full`], empty when sound; never more than 100.
    pub problems: Vec<String>,
    /// Rows that violate a foreign key; counted by [`Depth::Full`] only.
    pub foreign_key_violations: u64,
}

impl Inspection {
    /// The newest applied migration.
    #[must_use]
    pub fn schema_version(&self) -> Option<i64> {
        self.applied.iter().map(|a| a.version).max()
    }
}
