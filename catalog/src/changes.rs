//! The change feed: routers drop what changed from their caches. Safety does not depend on it.

use crate::db::{Catalog, ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::TenantId;

/// What happened since a reader last looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// These tenants changed; the feed is now at `seq`.
    Tenants {
        /// Where the reader is now.
        seq: i64,
        /// Each at least once.
        ids: Vec<TenantId>,
    },
    /// The reader is too far behind, or something changed that is not one tenant's: drop everything.
    Everything {
        /// Where the reader is now.
        seq: i64,
    },
}

/// Appends one entry per tenant. The functions that change tenants, members and tokens call this themselves.
pub async fn append(_tx: &mut WriteTx, _ids: &[TenantId]) -> Result<()> {
    todo!()
}
/// Appends "everything changed".
pub async fn append_everything(_tx: &mut WriteTx) -> Result<()> {
    todo!()
}
/// Where the feed is.
pub async fn head(_tx: &mut ReadTx) -> Result<i64> {
    todo!()
}
/// What came after `seq`.
pub async fn since(_tx: &mut ReadTx, _seq: i64) -> Result<Changes> {
    todo!()
}
/// Returns when something may have been written since `seq` (this process: at once; others: within 500 ms), or after
/// `timeout`. Cheap: on SQLite it asks `PRAGMA data_version`.
pub async fn wait(_catalog: &Catalog, _seq: i64, _timeout: std::time::Duration) -> Result<()> {
    todo!()
}
/// Forgets old entries, keeping the newest `keep`.
pub async fn trim(_tx: &mut WriteTx, _keep: i64) -> Result<()> {
    todo!()
}
