//! Implements [`crate::Engine::migrate_database`]: applies the pending versions of a set to a tenant's database.

use crate::engine::MigrationOutcome;
use crate::error::Result;
use crate::identity::ExpectedIdentity;
use crate::migration::MigrationSet;
use crate::placement::Placement;
use crate::postgres::PostgresEngine;
use crate::postgres::migrations::apply::{MigrationJob, apply_pending};

/// See [`crate::Engine::migrate_database`].
pub(in crate::postgres) async fn migrate_database(
    engine: &PostgresEngine,
    at: &Placement,
    expected: &ExpectedIdentity,
    set: &MigrationSet,
    target: Option<i64>,
) -> Result<MigrationOutcome> {
    let (site, database) = engine.locate_placement(at)?;
    let _slot = site.take_slot().await?;
    apply_pending(&MigrationJob { site: &site, database, expected: Some(expected), set, target }).await
}
