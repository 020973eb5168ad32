//! Drops the databases of tenants whose time for an undelete is over.

use std::sync::Arc;

use super::steady::Steady;
use super::submit;
use crate::error::Result;
use crate::operations::{Fleet, Params, purge};
use crate::runner::Runner;

/// Purged by one operation; the rest waits for the next.
const BATCH: u32 = 1_000;

pub(super) async fn run(fleet: Arc<Fleet>, runner: Arc<Runner>, steady: Arc<Steady>) -> Result<()> {
    let now = steady.now(&fleet).await?;
    let due = catalog::tenants::purgeable(&mut fleet.catalog.read().await?, now, BATCH).await?;
    submit(&runner, Params::Purge(purge::Params { due: true }), &due, "its time for an undelete is over").await
}
