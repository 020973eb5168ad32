//! PURE: finds the statements of a migration that an engine refuses in every database, from the text alone. No database
//! is asked.
//!
//! The control plane asks before it changes the first tenant. The engines refuse the same statements when they run a
//! file, because a release may be older than a rule.

use crate::migration::Migration;
use crate::placement::EngineKind;
use crate::{postgres, sqlite};

/// A statement that an engine refuses in every database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationRefusal {
    /// The line in the file, counted from 1.
    pub line: usize,
    /// Why the statement is refused, and what to write instead.
    pub why: String,
}

/// Every statement of this file that the engine refuses, in file order.
#[must_use]
pub fn migration_refusals(engine: EngineKind, migration: &Migration) -> Vec<MigrationRefusal> {
    match engine {
        EngineKind::Sqlite => sqlite::migration_refusals(migration),
        EngineKind::Postgres => postgres::migration_refusals(migration),
    }
}
