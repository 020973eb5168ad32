//! The verb `restore`: an image becomes a database at a new placement, or nothing.
//!
//! The image is written under a private name, and everything that can be wrong with it is looked for before it gets
//! its real one: the header against the length, every page, whose data it is. Only then is the new identity stamped.
//! While private it asks for a rollback journal, which is switched off, so that no companion file ever exists; it asks
//! for its write-ahead log again just before the rename.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use rusqlite::{Connection, OpenFlags};

use super::SqliteEngine;
use super::error::from_sqlite;
use super::files::{self, Found, Part, Renamed, fault};
use super::functions::{self, ResultBytes};
use super::image::{Journal, check, set_journal_in};
use super::inspect::require_sound;
use super::migrate::newest;
use super::open::{LENGTH_MAX, Sharing, open};
use super::verbs::Flush;
use super::{foreign_keys, identity, ledger, schema, stamp};
use crate::TenantId;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identity;
use crate::placement::Placement;
use crate::snapshot::{Image, Restored};

/// See [`crate::Engine::restore`].
pub(super) async fn restore(
    engine: &SqliteEngine,
    at: &Placement,
    image: Image,
    source: TenantId,
    identity: &Identity,
) -> Result<Restored> {
    let identity = identity.clone();
    let bytes = size_of(&image);
    engine.durably_taking(at, bytes, move |at| fill(at, image, source, &identity)).await
}

fn fill(at: &Placement, image: Image, source: TenantId, identity: &Identity) -> Result<(Restored, Flush)> {
    if files::look(&at.path())? == Found::File {
        return Ok((already_there(at, identity)?, Flush::Needed));
    }
    let (part, mut file) = Part::create(&at.path())?;
    let size_bytes = write(image, &mut file)?;
    check_header(&mut file, size_bytes)?;
    let unwritable = |e| fault("cannot write the restored database", e);
    set_journal_in(&mut file, Journal::Rollback).map_err(unwritable)?;
    let restored = examine_and_stamp(&part, source, identity)?;
    set_journal_in(&mut file, Journal::Wal).map_err(unwritable)?;
    drop(file);
    match part.rename()? {
        Renamed::Yes => Ok((restored, Flush::Needed)),
        Renamed::NameTaken => Err(taken(at)),
    }
}

/// What the image takes as a database.
fn size_of(image: &Image) -> u64 {
    match image {
        Image::Memory(bytes) => bytes.len() as u64,
        Image::File(path) => files::length(path),
    }
}

fn write(image: Image, to: &mut File) -> Result<u64> {
    let unwritable = |e| fault("cannot write the restored database", e);
    match image {
        Image::Memory(bytes) => io::copy(&mut &bytes[..], to).map_err(unwritable),
        Image::File(path) => {
            let mut from = File::open(&path).map_err(|e| fault("cannot read the image", e))?;
            io::copy(&mut from, to).map_err(unwritable)
        }
    }
}

fn check_header(file: &mut File, size_bytes: u64) -> Result<()> {
    let mut header = Vec::with_capacity(100);
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(100).read_to_end(&mut header));
    read.map_err(|e| fault("cannot read the restored database back", e))?;
    check(&header, size_bytes)
}

fn examine_and_stamp(part: &Part, source: TenantId, identity: &Identity) -> Result<Restored> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(part.path(), flags).map_err(from_sqlite)?;
    functions::install(&db, &ResultBytes::new(LENGTH_MAX)).map_err(from_sqlite)?;
    schema::bound(&db)?;
    // Private, and removed when anything fails: a journal and syncing would protect nothing.
    db.execute_batch("pragma locking_mode=exclusive; pragma journal_mode=off; pragma synchronous=off")
        .map_err(schema::unloaded)?;
    schema::load(&db)?;
    take_over(&db, source, identity)?;
    let restored = read(&db, files::length(part.path()))?;
    db.close().map_err(|(_, error)| from_sqlite(error))?;
    Ok(restored)
}

/// Makes the restored database the new owner's, after everything that can be wrong with it.
pub(super) fn take_over(db: &Connection, source: TenantId, identity: &Identity) -> Result<()> {
    schema::require_bounded(db)?;
    require_sound(db)?;
    let found = identity::read(db)?;
    if found.tenant != source {
        return Err(Error::new(
            ErrorKind::WrongTenant,
            format!("the image holds the data of {}, expected {source}", found.tenant),
        ));
    }
    stamp::lower(db)?;
    identity::write(db, identity)
}

/// What the answer says about the database in the open connection.
pub(super) fn read(db: &Connection, size_bytes: u64) -> Result<Restored> {
    Ok(Restored {
        schema_version: newest(&ledger::read(db)?),
        size_bytes,
        foreign_key_violations: foreign_keys::count(db)?,
        left_out: Vec::new(),
        classes: std::collections::BTreeMap::new(),
    })
}

/// A repeated call finds what the first one made. It may be what a power cut left of it, so every page is looked at.
fn already_there(at: &Placement, identity: &Identity) -> Result<Restored> {
    let database = open(at, Sharing::Shared)?;
    let size_bytes = files::length(&at.path());
    database.read(None, |db, found| {
        require_sound(db)?;
        if found.same_as(identity) { read(db, size_bytes) } else { Err(taken(at)) }
    })
}

fn taken(at: &Placement) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("another database is already at {at}"))
}
