//! SQLite: one file per tenant.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::engine::{Engine, Migrated, Template};
use crate::error::Result;
use crate::identity::{Expected, Identity};
use crate::inspection::{Depth, Inspection};
use crate::migration::MigrationSet;
use crate::placement::{EngineKind, Placement};
use crate::pool::Pool;
use crate::snapshot::{Image, Restored, Snapshot};

mod pool;

pub use pool::{SqlitePool, SqliteSession};

/// Settings of the engine; the defaults fit a machine of its own.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Blocking workers shared by all tenants; `None`: max(8, 4 × cores).
    pub workers: Option<usize>,
    /// Connections this process may hold open; `None`: from the raised RLIMIT_NOFILE.
    pub connections_max: Option<usize>,
    /// Where snapshots too large for memory are written; must be on a disk with room.
    pub scratch: PathBuf,
}

/// The SQLite engine. Clones share the workers and the connection budget.
#[derive(Debug, Clone)]
pub struct SqliteEngine {}

impl SqliteEngine {
    /// Starts the workers, raises RLIMIT_NOFILE, sets umask 077 and refuses a SQLite older than 3.51.3.
    ///
    /// # Errors
    /// When the library is too old or a thread cannot be started.
    pub fn new(_options: SqliteOptions) -> Result<Self> {
        todo!()
    }

    /// Refuses new work, lets running work finish and ends the workers.
    pub async fn shutdown(&self) {
        todo!()
    }
}

#[async_trait]
impl Engine for SqliteEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Sqlite
    }
    async fn template(&self, _set: &MigrationSet) -> Result<Arc<Template>> {
        todo!()
    }
    async fn provision(&self, _at: &Placement, _template: &Template, _identity: &Identity) -> Result<()> {
        todo!()
    }
    async fn connect(&self, _at: &Placement, _expected: &Expected) -> Result<Pool> {
        todo!()
    }
    async fn migrate(
        &self,
        _at: &Placement,
        _expected: &Expected,
        _set: &MigrationSet,
        _target: Option<i64>,
    ) -> Result<Migrated> {
        todo!()
    }
    async fn snapshot(&self, _at: &Placement, _expected: &Expected) -> Result<Snapshot> {
        todo!()
    }
    async fn restore(
        &self,
        _at: &Placement,
        _image: Image,
        _source: crate::TenantId,
        _identity: &Identity,
    ) -> Result<Restored> {
        todo!()
    }
    async fn stamp(&self, _at: &Placement, _expected: &Expected, _identity: &Identity) -> Result<()> {
        todo!()
    }
    async fn freeze(&self, _at: &Placement, _expected: &Expected, _identity: &Identity) -> Result<()> {
        todo!()
    }
    async fn drop_database(&self, _at: &Placement, _expected: Option<&Expected>) -> Result<()> {
        todo!()
    }
    async fn inspect(&self, _at: &Placement, _expected: Option<&Expected>, _depth: Depth) -> Result<Inspection> {
        todo!()
    }
}
