//! Implements [`crate::Engine::provision_database`]: copies the template of a release for a new tenant.
//!
//! A tenant's database is the template's image with its identity row, stamped in memory. It is written once under a
//! private name and renamed, without a journal, a log or an fsync of its own.

use std::io::Write;

use rusqlite::{Connection, MAIN_DB};

use super::inspect;
use crate::engine::DatabaseTemplate;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identity;
use crate::placement::Placement;
use crate::sqlite::SqliteEngine;
use crate::sqlite::error::from_sqlite;
use crate::sqlite::identity;
use crate::sqlite::storage::files::{PartFile, RenameOutcome, io_fault};
use crate::sqlite::storage::image;
use crate::sqlite::storage::open::{FileSharing, open_database};
use crate::sqlite::storage::shared_state::FlushNeed;

/// See [`crate::Engine::provision_database`].
pub(in crate::sqlite) async fn provision_database(
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
