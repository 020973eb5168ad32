//! The one row about the fleet itself.

use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::ReleaseId;

/// The release new tenants start from; `None`: an empty database.
pub async fn current_release(_tx: &mut ReadTx) -> Result<Option<ReleaseId>> {
    todo!()
}
/// Makes `release` the current one.
pub async fn set_current_release(_tx: &mut WriteTx, _release: ReleaseId) -> Result<()> {
    todo!()
}
