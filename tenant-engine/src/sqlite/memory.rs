//! One tenant's database in memory, for [`crate::fake`]: the verbs' own code without their files.

use rusqlite::{Connection, MAIN_DB};

use super::error::from_sqlite;
use super::image::{Journal, check, set_journal};
use super::open::Database;
use super::stamp::Fence;
use super::writer::Writer;
use super::{files, fingerprint, identity, inspect, migrate, provision, restore, snapshot, stamp};
use crate::TenantId;
use crate::engine::{Migrated, Template};
use crate::error::Result;
use crate::fingerprint::Fingerprint;
use crate::identity::{Expected, Identity};
use crate::inspection::{Depth, Inspection};
use crate::migration::MigrationSet;
use crate::snapshot::{Image, Restored, Snapshot};

/// A database that exists as long as the value.
#[derive(Debug)]
pub(crate) struct Memory(Writer);

/// See [`crate::Engine::template`].
pub(crate) fn template(set: &MigrationSet) -> Result<Template> {
    provision::build(set)
}

impl Memory {
    /// See [`crate::Engine::provision`].
    pub(crate) fn from_template(template: &Template, identity: &Identity) -> Result<Self> {
        let new = Self::holding(&template.image)?;
        identity::write(new.db(), identity)?;
        Ok(new)
    }

    /// See [`crate::Engine::restore`].
    pub(crate) fn from_image(image: &Image, source: TenantId, identity: &Identity) -> Result<Self> {
        let mut bytes = match image {
            Image::Memory(bytes) => bytes.to_vec(),
            Image::File(path) => std::fs::read(path).map_err(|e| files::fault("cannot read the image", e))?,
        };
        check(&bytes, bytes.len() as u64)?;
        set_journal(&mut bytes, Journal::Rollback)?;
        let new = Self::holding(&bytes)?;
        restore::take_over(new.db(), source, identity)?;
        Ok(new)
    }

    fn holding(image: &[u8]) -> Result<Self> {
        let mut db = Connection::open_in_memory().map_err(from_sqlite)?;
        db.deserialize_read_exact(MAIN_DB, image, image.len(), false).map_err(from_sqlite)?;
        Ok(Self(Writer::over(Database::of(db))?))
    }

    fn db(&self) -> &Database {
        self.0.database()
    }

    /// Whose it is.
    pub(crate) fn identity(&self) -> Result<Identity> {
        identity::read(self.db())
    }

    /// What a repeated restore answers.
    pub(crate) fn restored(&self) -> Result<Restored> {
        restore::read(self.db(), self.size()?)
    }

    /// See [`crate::Engine::migrate`].
    pub(crate) fn migrate(&mut self, expected: &Expected, set: &MigrationSet, to: Option<i64>) -> Result<Migrated> {
        migrate::bring(&mut self.0, expected, set, to)
    }

    /// See [`crate::Engine::snapshot`].
    pub(crate) fn snapshot(&self, expected: &Expected) -> Result<Snapshot> {
        self.db().read(Some(expected), |db, identity| {
            let image = snapshot::in_memory(db)?;
            snapshot::describe(db, identity, image)
        })
    }

    /// See [`crate::Engine::stamp`].
    pub(crate) fn stamp(&mut self, expected: &Expected, new: &Identity) -> Result<()> {
        stamp::set(&mut self.0, expected, new, Fence::Down)
    }

    /// See [`crate::Engine::freeze`].
    pub(crate) fn freeze(&mut self, expected: &Expected, new: &Identity) -> Result<()> {
        stamp::set(&mut self.0, expected, new, Fence::Up)
    }

    /// See [`crate::Engine::inspect`].
    pub(crate) fn inspect(&self, expected: Option<&Expected>, depth: Depth) -> Result<Inspection> {
        let size = self.size()?;
        self.db().read(expected, |db, identity| inspect::read(db, identity, depth, size))
    }

    /// See [`crate::Engine::fingerprint`].
    pub(crate) fn fingerprint(&self, expected: &Expected) -> Result<Fingerprint> {
        self.db().read(Some(expected), |db, _| fingerprint::take(db).map_err(from_sqlite))
    }

    fn size(&self) -> Result<u64> {
        snapshot::size(self.db())
    }
}
