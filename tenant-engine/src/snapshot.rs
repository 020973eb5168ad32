//! A snapshot: the bytes of one database at one moment, and the facts about them.

use std::collections::BTreeMap;

use bytes::Bytes;
use tempfile::TempPath;

use crate::fingerprint::{ClassSum, RowSums};
use crate::identity::Identity;
use crate::placement::EngineKind;

/// The raw bytes of a database: in memory when small, otherwise in a temporary file that is deleted with the value.
#[derive(Debug)]
pub enum SnapshotImage {
    /// Bytes in memory, at most a few tens of megabytes.
    Memory(Bytes),
    /// A temporary file that nothing else uses.
    File(TempPath),
}

/// Computes [`SnapshotInfo::content_hash`] of an image that this kind of engine made.
///
/// # Errors
/// [`std::io::Error`] of the reader.
pub fn content_hash(engine: EngineKind, image: impl std::io::Read) -> std::io::Result<String> {
    match engine {
        EngineKind::Sqlite => Ok(crate::sqlite::content_hash(image)?.0),
        EngineKind::Postgres => crate::postgres::content_hash(image),
    }
}

/// The facts about a snapshot, as the engine that took it reports them.
#[derive(Debug, Clone)]
pub struct SnapshotInfo {
    /// The identity row inside the image.
    pub identity: Identity,
    /// The newest applied version.
    pub schema_version: Option<i64>,
    /// blake3 (hex) of the image. Bytes that differ between two snapshots of equal content count as zero.
    pub content_hash: String,
    /// Length of the image in bytes.
    pub size_bytes: u64,
    /// Engine and version that made the image, for instance `sqlite 3.51.3`.
    pub engine_version: String,
    /// Rows that already violate a foreign key in the source. A restore accepts this many, but not more.
    pub foreign_key_violations: u64,
    /// The objects of each class; empty where the image itself holds the schema.
    pub classes: BTreeMap<String, ClassSum>,
    /// Sums of the rows; `None` where the image holds the pages themselves, or when the rows could not be read.
    pub rows: Option<RowSums>,
    /// Parts of the database that the image does not hold; for people.
    pub left_out: Vec<String>,
}

/// A snapshot of one database.
#[derive(Debug)]
pub struct Snapshot {
    /// The facts about the snapshot.
    pub info: SnapshotInfo,
    /// The bytes of the snapshot.
    pub image: SnapshotImage,
}

/// What a restore found in the new database before it stamped the database.
#[derive(Debug, Clone)]
pub struct RestoreOutcome {
    /// The newest applied version.
    pub schema_version: Option<i64>,
    /// Length of the database in bytes.
    pub size_bytes: u64,
    /// Rows that violate a foreign key.
    pub foreign_key_violations: u64,
    /// Objects in the image that this server's roles may not make, each with the reason; for people.
    pub left_out: Vec<String>,
    /// As [`SnapshotInfo::classes`].
    pub classes: BTreeMap<String, ClassSum>,
}
