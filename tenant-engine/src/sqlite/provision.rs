//! Implements [`crate::Engine::prepare_template`] and [`crate::Engine::provision_database`]: builds a database at the
//! newest version of a set once, and copies it for every new tenant.
//!
//! A template is made in memory by the code that migrates a tenant. A tenant's database is that image with its identity
//! row, also stamped in memory. It is written once under a private name and renamed, without a journal, a log or an
//! fsync of its own.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rusqlite::{Connection, MAIN_DB};

use super::SqliteEngine;
use super::apply::{ApplyRules, apply_migration};
use super::error::from_sqlite;
use super::files::{PartFile, RenameOutcome, io_fault};
use super::open::{FileSharing, open_database};
use super::shared_state::FlushNeed;
use super::workers::lock_ignoring_poison;
use super::writer::DatabaseWriter;
use super::{identity, image, inspect, ledger};
use crate::engine::DatabaseTemplate;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identity;
use crate::migration::MigrationSet;
use crate::placement::Placement;

/// Templates kept: one release is current, a rollout and a rehearsal add a few. Each takes about 100 KB.
const TEMPLATES_MAX: usize = 8;

/// Templates by digest, the newest last. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct TemplateCache(Arc<Mutex<VecDeque<Arc<DatabaseTemplate>>>>);

impl TemplateCache {
    fn get(&self, digest: &str) -> Option<Arc<DatabaseTemplate>> {
        lock_ignoring_poison(&self.0).iter().find(|template| template.digest == digest).cloned()
    }

    fn keep_template(&self, template: &Arc<DatabaseTemplate>) {
        let mut kept = lock_ignoring_poison(&self.0);
        if kept.len() >= TEMPLATES_MAX {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(template));
    }
}

/// See [`crate::Engine::prepare_template`].
pub(super) async fn prepare_template(engine: &SqliteEngine, set: &MigrationSet) -> Result<Arc<DatabaseTemplate>> {
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

/// See [`crate::Engine::provision_database`].
pub(super) async fn provision_database(
    engine: &SqliteEngine,
    at: &Placement,
    template: &DatabaseTemplate,
    identity: &Identity,
) -> Result<()> {
    let (image, identity) = (template.image.clone(), identity.clone());
    engine.durably_taking(at, template.size_bytes, move |at| fill_placement(at, &image, &identity)).await
}

fn fill_placement(at: &Placement, template: &[u8], identity: &Identity) -> Result<((), FlushNeed)> {
    let image = stamped_image(template, identity)?;
    let (part, mut file) = PartFile::create_part(&at.file_path())?;
    file.write_all(&image).map_err(|e| io_fault("cannot write the new database", e))?;
    drop(file);
    if part.rename_to_target()? == RenameOutcome::NameTaken {
        is_the_same(at, identity)?;
    }
    Ok(((), FlushNeed::Needed))
}

/// The template's bytes with the identity row, ready to serve: in WAL mode.
fn stamped_image(template: &[u8], identity: &Identity) -> Result<Vec<u8>> {
    let mut db = Connection::open_in_memory().map_err(from_sqlite)?;
    db.deserialize_read_exact(MAIN_DB, template, template.len(), false).map_err(from_sqlite)?;
    identity::write_identity(&db, identity)?;
    let mut bytes = db.serialize(MAIN_DB).map_err(from_sqlite)?.to_vec();
    image::set_journal(&mut bytes, image::JournalMode::Wal)?;
    Ok(bytes)
}

/// Accepts the database that an earlier call made. It may have been damaged by a power failure, so every page is
/// checked.
fn is_the_same(at: &Placement, wanted: &Identity) -> Result<()> {
    let database = open_database(at, FileSharing::Shared)?;
    let found = database.read_transaction(None, |db, found| inspect::require_sound(db).map(|()| found))?;
    if found.same_as(wanted) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!("the placement is taken: a database of {} at generation {} is there", found.tenant, found.generation),
    ))
}
