//! A consistent picture of one database as bytes, and what is known about it.

use std::collections::BTreeMap;

use bytes::Bytes;
use tempfile::TempPath;

use crate::fingerprint::{ClassSum, RowSums};
use crate::identity::Identity;
use crate::placement::EngineKind;

/// The raw bytes of a database: in memory when small, else in a temporary file that goes away with the value.
#[derive(Debug)]
pub enum Image {
    /// At most a few tens of megabytes.
    Memory(Bytes),
    /// A file that nobody else knows of.
    File(TempPath),
}

/// [`SnapshotInfo::content_hash`] of an image that this kind of engine made.
///
/// # Errors
/// [`std::io::Error`] of the reader.
pub fn content_hash(engine: EngineKind, image: impl std::io::Read) -> std::io::Result<String> {
    match engine {
        EngineKind::Sqlite => Ok(crate::sqlite::content_hash(image)?.0),
        EngineKind::Postgres => crate::postgres::content_hash(image),
    }
}

/// What an engine says about a snapshot it took.
#[derive(Debug, Clone)]
pub struct SnapshotInfo {
    /// The identity row inside the image.
    pub identity: Identity,
    /// The newest applied migration.
    pub schema_version: Option<i64>,
    /// blake3 (hex) of the image with the bytes that differ between two pictures of the same content zeroed.
    pub content_hash: String,
    /// Length of the image.
    pub size_bytes: u64,
    /// Engine and version that made it, for instance `sqlite 3.51.3`.
    pub engine_version: String,
    /// Rows that violate a foreign key already in the source: a restore tolerates as many, not more.
    pub foreign_key_violations: u64,
    /// The objects of each class; empty where the image holds the schema itself.
    pub classes: BTreeMap<String, ClassSum>,
    /// Its rows; `None` where the image holds the pages themselves, or when they could not be read.
    pub rows: Option<RowSums>,
    /// What the database has and the image does not hold; for people.
    pub left_out: Vec<String>,
}

/// A picture of one database.
#[derive(Debug)]
pub struct Snapshot {
    /// What is known about it.
    pub info: SnapshotInfo,
    /// The bytes.
    pub image: Image,
}

/// What a restore found in the new database before stamping it.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The newest applied migration.
    pub schema_version: Option<i64>,
    /// Length of the database.
    pub size_bytes: u64,
    /// Rows that violate a foreign key.
    pub foreign_key_violations: u64,
    /// What the image holds and this server's roles may not make, each with the reason; for people.
    pub left_out: Vec<String>,
    /// As [`SnapshotInfo::classes`].
    pub classes: BTreeMap<String, ClassSum>,
}
