//! Implements [`crate::Engine::prepare_template`]: builds a database at the newest version of a set once, in memory, by
//! the code that migrates a tenant.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::MAIN_DB;

use crate::engine::DatabaseTemplate;
use crate::error::Result;
use crate::migration::MigrationSet;
use crate::sqlite::SqliteEngine;
use crate::sqlite::error::from_sqlite;
use crate::sqlite::identity;
use crate::sqlite::migrations::apply::{ApplyRules, apply_migration};
use crate::sqlite::migrations::ledger;
use crate::sqlite::storage::writer::DatabaseWriter;

/// See [`crate::Engine::prepare_template`].
pub(in crate::sqlite) async fn prepare_template(
    engine: &SqliteEngine,
    set: &MigrationSet,
) -> Result<Arc<DatabaseTemplate>> {
    let templates = &engine.shared_state().templates;
    if let Some(template) = templates.get(set.set_digest()) {
        return Ok(template);
    }
    let set = set.clone();
    let template = Arc::new(engine.run_blocking(move || build_template(&set)).await?);
    templates.keep_template(&template);
    Ok(template)
}

/// Builds a template in memory.
pub(super) fn build_template(set: &MigrationSet) -> Result<DatabaseTemplate> {
    let mut writer = DatabaseWriter::in_memory()?;
    identity::create_table(writer.inner_database())?;
    ledger::begin(writer.inner_database(), set.ledger())?;
    let rules = ApplyRules { guard: &|_| Ok(()), set };
    for migration in set.all_migrations() {
        apply_migration(&mut writer, &rules, migration)?;
    }
    let image = Bytes::copy_from_slice(&writer.inner_database().serialize(MAIN_DB).map_err(from_sqlite)?);
    let size_bytes = image.len() as u64;
    Ok(DatabaseTemplate { digest: set.set_digest().to_owned(), schema_version: set.head_version(), image, size_bytes })
}
