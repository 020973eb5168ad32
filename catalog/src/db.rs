//! Opens the catalog and begins transactions; nothing else knows which database is underneath.
//!
//! Write transactions are serial: check-then-act is safe inside one, and the order of every sequence is commit order.
//! A write transaction waits on nothing but the catalog. Time is read once per transaction.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::ids::FleetId;
use crate::seal::{FleetKey, Sealer};

/// Milliseconds since 1970; tests move it by hand.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Where a catalog is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A SQLite file.
    File(PathBuf),
}

/// An open catalog; clones are the same one.
#[derive(Clone)]
pub struct Catalog {}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").finish_non_exhaustive()
    }
}

/// A consistent read; dropped when done.
pub struct ReadTx {}

/// The one write transaction of the moment; rolled back unless committed.
pub struct WriteTx {}

impl Catalog {
    /// Makes a new catalog (schema, fleet row) and opens it; one that is already there is opened, if the key fits.
    pub async fn create(_location: &Location, _key: FleetKey, _clock: Clock) -> Result<Self> {
        todo!()
    }

    /// Opens a catalog, applying the schema migrations this program has and it has not.
    /// Fails with `NotInitialised`, `SchemaNewer` or `WrongKey`.
    pub async fn open(_location: &Location, _key: FleetKey, _clock: Clock) -> Result<Self> {
        todo!()
    }

    /// The fleet's id: stamped into every tenant database.
    #[must_use]
    pub fn fleet_id(&self) -> FleetId {
        todo!()
    }

    /// Seals and opens secrets at rest.
    #[must_use]
    pub fn sealer(&self) -> &Sealer {
        todo!()
    }

    /// Milliseconds since 1970, by this catalog's clock.
    #[must_use]
    pub fn now(&self) -> i64 {
        todo!()
    }

    /// Begins a read.
    pub async fn read(&self) -> Result<ReadTx> {
        todo!()
    }

    /// Waits for its turn and begins a write.
    pub async fn write(&self) -> Result<WriteTx> {
        todo!()
    }

    /// A consistent copy of the catalog as a file, for the backup store.
    pub async fn snapshot_to(&self, _path: &std::path::Path) -> Result<()> {
        todo!()
    }

    /// Closes all connections; the write-ahead log is folded in.
    pub async fn close(&self) {
        todo!()
    }
}

impl ReadTx {
    /// The time of this transaction, milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> i64 {
        todo!()
    }
}

impl WriteTx {
    /// Makes everything done in it durable and visible at once.
    pub async fn commit(self) -> Result<()> {
        todo!()
    }
}

impl Deref for WriteTx {
    type Target = ReadTx;
    fn deref(&self) -> &ReadTx {
        todo!()
    }
}

impl DerefMut for WriteTx {
    fn deref_mut(&mut self) -> &mut ReadTx {
        todo!()
    }
}
