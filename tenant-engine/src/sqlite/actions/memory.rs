//! One tenant's database in memory, for [`crate::fake`]: the code of the engine operations without files.

use rusqlite::{Connection, MAIN_DB};

use super::stamp::StampFence;
use super::{fingerprint, inspect, migrate, restore, snapshot, stamp, template};
use crate::TenantId;
use crate::engine::{DatabaseTemplate, MigrationOutcome};
use crate::error::Result;
use crate::fingerprint::DatabaseFingerprint;
use crate::identity::{ExpectedIdentity, Identity};
use crate::inspection::{Inspection, InspectionDepth};
use crate::migration::MigrationSet;
use crate::snapshot::{RestoreOutcome, Snapshot, SnapshotImage};
use crate::sqlite::error::from_sqlite;
use crate::sqlite::identity;
use crate::sqlite::storage::files;
use crate::sqlite::storage::image::{JournalMode, check_header, set_journal};
use crate::sqlite::storage::open::OpenDatabase;
use crate::sqlite::storage::writer::DatabaseWriter;

/// A database that exists as long as this value.
#[derive(Debug)]
pub(crate) struct MemoryDatabase(DatabaseWriter);

/// See [`crate::Engine::prepare_template`].
pub(crate) fn build_template(set: &MigrationSet) -> Result<DatabaseTemplate> {
    template::build_template(set)
}

impl MemoryDatabase {
    /// See [`crate::Engine::provision_database`].
    pub(crate) fn from_template(template: &DatabaseTemplate, identity: &Identity) -> Result<Self> {
        let new = Self::from_bytes(&template.image)?;
        identity::write_identity(new.open_database(), identity)?;
        Ok(new)
    }

    /// See [`crate::Engine::restore_database`].
    pub(crate) fn from_image(image: &SnapshotImage, source: TenantId, identity: &Identity) -> Result<Self> {
        let mut bytes = match image {
            SnapshotImage::Memory(bytes) => bytes.to_vec(),
            SnapshotImage::File(path) => {
                std::fs::read(path).map_err(|e| files::io_fault("cannot read the image", e))?
            }
        };
        check_header(&bytes, bytes.len() as u64)?;
        set_journal(&mut bytes, JournalMode::Rollback)?;
        let new = Self::from_bytes(&bytes)?;
        restore::take_over(new.open_database(), source, identity)?;
        Ok(new)
    }

    fn from_bytes(image: &[u8]) -> Result<Self> {
        let mut db = Connection::open_in_memory().map_err(from_sqlite)?;
        db.deserialize_read_exact(MAIN_DB, image, image.len(), false).map_err(from_sqlite)?;
        Ok(Self(DatabaseWriter::over_database(OpenDatabase::from_memory(db))?))
    }

    fn open_database(&self) -> &OpenDatabase {
        self.0.inner_database()
    }

    /// Reads the identity of the database.
    pub(crate) fn read_identity(&self) -> Result<Identity> {
        identity::read_identity(self.open_database())
    }

    /// The result that a repeated restore returns.
    pub(crate) fn restore_outcome(&self) -> Result<RestoreOutcome> {
        restore::read_outcome(self.open_database(), self.database_size()?)
    }

    /// See [`crate::Engine::migrate_database`].
    pub(crate) fn migrate_database(
        &mut self,
        expected: &ExpectedIdentity,
        set: &MigrationSet,
        to: Option<i64>,
    ) -> Result<MigrationOutcome> {
        migrate::apply_pending(&mut self.0, expected, set, to)
    }

    /// See [`crate::Engine::take_snapshot`].
    pub(crate) fn take_snapshot(&self, expected: &ExpectedIdentity) -> Result<Snapshot> {
        self.open_database().read_transaction(Some(expected), |db, identity| {
            let image = snapshot::in_memory(db)?;
            snapshot::describe_snapshot(db, identity, image)
        })
    }

    /// See [`crate::Engine::stamp_identity`].
    pub(crate) fn stamp_identity(&mut self, expected: &ExpectedIdentity, new: &Identity) -> Result<()> {
        stamp::set_identity(&mut self.0, expected, new, StampFence::Down)
    }

    /// See [`crate::Engine::freeze_database`].
    pub(crate) fn freeze_database(&mut self, expected: &ExpectedIdentity, new: &Identity) -> Result<()> {
        stamp::set_identity(&mut self.0, expected, new, StampFence::Up)
    }

    /// See [`crate::Engine::inspect_database`].
    pub(crate) fn inspect_database(
        &self,
        expected: Option<&ExpectedIdentity>,
        depth: InspectionDepth,
    ) -> Result<Inspection> {
        let size = self.database_size()?;
        self.open_database()
            .read_transaction(expected, |db, identity| inspect::read_inspection(db, identity, depth, size))
    }

    /// See [`crate::Engine::compute_fingerprint`].
    pub(crate) fn compute_fingerprint(&self, expected: &ExpectedIdentity) -> Result<DatabaseFingerprint> {
        self.open_database()
            .read_transaction(Some(expected), |db, _| fingerprint::fingerprint_connection(db).map_err(from_sqlite))
    }

    fn database_size(&self) -> Result<u64> {
        snapshot::size_in_transaction(self.open_database())
    }
}
