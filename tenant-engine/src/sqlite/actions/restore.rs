//! Implements [`crate::Engine::restore_database`]: turns an image into a database at a new placement, or leaves
//! nothing.
//!
//! The image is written under a private name. Before it gets its final name, everything that can be wrong with it is
//! checked: the header against the length, every page, and whose data it is. Only then is the new identity stamped.
//! While the file is private, its header names a rollback journal, which is switched off, so that no companion file
//! ever exists. The write-ahead log is set in the header just before the rename.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use rusqlite::{Connection, OpenFlags};

use super::inspect::require_sound;
use super::migrate::newest_version;
use super::stamp;
use crate::TenantId;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identity;
use crate::placement::Placement;
use crate::snapshot::{RestoreOutcome, SnapshotImage};
use crate::sqlite::SqliteEngine;
use crate::sqlite::error::from_sqlite;
use crate::sqlite::identity;
use crate::sqlite::limits::functions::{self, ResultBytes};
use crate::sqlite::limits::schema;
use crate::sqlite::migrations::{foreign_keys, ledger};
use crate::sqlite::storage::files::{self, FilePresence, PartFile, RenameOutcome, io_fault};
use crate::sqlite::storage::image::{JournalMode, check_header, set_journal_in};
use crate::sqlite::storage::open::{FileSharing, LENGTH_MAX, open_database};
use crate::sqlite::storage::shared_state::FlushNeed;

/// See [`crate::Engine::restore_database`].
pub(in crate::sqlite) async fn restore_database(
    engine: &SqliteEngine,
    at: &Placement,
    image: SnapshotImage,
    source: TenantId,
    identity: &Identity,
) -> Result<RestoreOutcome> {
    let identity = identity.clone();
    let bytes = size_of(&image);
    engine.durably_taking(at, bytes, move |at| fill_placement(at, image, source, &identity)).await
}

fn fill_placement(
    at: &Placement,
    image: SnapshotImage,
    source: TenantId,
    identity: &Identity,
) -> Result<(RestoreOutcome, FlushNeed)> {
    if files::inspect_path(&at.file_path())? == FilePresence::File {
        return Ok((already_there(at, identity)?, FlushNeed::Needed));
    }
    let (part, mut file) = PartFile::create_part(&at.file_path())?;
    let size_bytes = write_image(image, &mut file)?;
    check_written_header(&mut file, size_bytes)?;
    let unwritable = |e| io_fault("cannot write the restored database", e);
    set_journal_in(&mut file, JournalMode::Rollback).map_err(unwritable)?;
    let restored = examine_and_stamp(&part, source, identity)?;
    set_journal_in(&mut file, JournalMode::Wal).map_err(unwritable)?;
    drop(file);
    match part.rename_to_target()? {
        RenameOutcome::Yes => Ok((restored, FlushNeed::Needed)),
        RenameOutcome::NameTaken => Err(placement_taken(at)),
    }
}

/// Bytes of the image as a database.
fn size_of(image: &SnapshotImage) -> u64 {
    match image {
        SnapshotImage::Memory(bytes) => bytes.len() as u64,
        SnapshotImage::File(path) => files::file_length(path),
    }
}

fn write_image(image: SnapshotImage, to: &mut File) -> Result<u64> {
    let unwritable = |e| io_fault("cannot write the restored database", e);
    match image {
        SnapshotImage::Memory(bytes) => io::copy(&mut &bytes[..], to).map_err(unwritable),
        SnapshotImage::File(path) => {
            let mut from = File::open(&path).map_err(|e| io_fault("cannot read the image", e))?;
            io::copy(&mut from, to).map_err(unwritable)
        }
    }
}

fn check_written_header(file: &mut File, size_bytes: u64) -> Result<()> {
    let mut header = Vec::with_capacity(100);
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(100).read_to_end(&mut header));
    read.map_err(|e| io_fault("cannot read the restored database back", e))?;
    check_header(&header, size_bytes)
}

fn examine_and_stamp(part: &PartFile, source: TenantId, identity: &Identity) -> Result<RestoreOutcome> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(part.part_path(), flags).map_err(from_sqlite)?;
    functions::install_functions(&db, &ResultBytes::new(LENGTH_MAX)).map_err(from_sqlite)?;
    schema::bound_schema(&db)?;
    // The file is private, and removed when anything fails: a journal and syncing would protect nothing.
    db.execute_batch("pragma locking_mode=exclusive; pragma journal_mode=off; pragma synchronous=off")
        .map_err(schema::load_error)?;
    schema::load_schema(&db)?;
    take_over(&db, source, identity)?;
    let restored = read_outcome(&db, files::file_length(part.part_path()))?;
    db.close().map_err(|(_, error)| from_sqlite(error))?;
    Ok(restored)
}

/// Stamps the new identity into the restored database, after all checks.
pub(super) fn take_over(db: &Connection, source: TenantId, identity: &Identity) -> Result<()> {
    schema::require_bounded(db)?;
    require_sound(db)?;
    let found = identity::read_identity(db)?;
    if found.tenant != source {
        return Err(Error::new(
            ErrorKind::WrongTenant,
            format!("the image holds the data of {}, expected {source}", found.tenant),
        ));
    }
    stamp::lower_fence(db)?;
    identity::write_identity(db, identity)
}

/// Reads the result from the open connection.
pub(super) fn read_outcome(db: &Connection, size_bytes: u64) -> Result<RestoreOutcome> {
    Ok(RestoreOutcome {
        schema_version: newest_version(&ledger::read_ledger(db)?),
        size_bytes,
        foreign_key_violations: foreign_keys::count_violations(db)?,
        left_out: Vec::new(),
        classes: std::collections::BTreeMap::new(),
    })
}

/// Accepts the database that an earlier call made. It may have been damaged by a power failure, so every page is
/// checked.
fn already_there(at: &Placement, identity: &Identity) -> Result<RestoreOutcome> {
    let database = open_database(at, FileSharing::Shared)?;
    let size_bytes = files::file_length(&at.file_path());
    database.read_transaction(None, |db, found| {
        require_sound(db)?;
        if found.same_as(identity) { read_outcome(db, size_bytes) } else { Err(placement_taken(at)) }
    })
}

fn placement_taken(at: &Placement) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("another database is already at {at}"))
}
