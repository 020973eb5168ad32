//! Drops the databases of tenants whose time for an undelete is over.

use std::sync::Arc;

use super::submit;
use crate::error::Result;
use crate::operations::{Fleet, Params, purge};
use crate::runner::Runner;

/// Purged by one operation; the rest waits for the next.
const BATCH: u32 = 1_000;

pub(super) async fn run(fleet: Arc<Fleet>, runner: Arc<Runner>) -> Result<()> {
    let due = catalog::tenants::purgeable(&mut fleet.catalog.read().await?, BATCH).await?;
    submit(&runner, Params::Purge(purge::Params::default()), &due, "its time for an undelete is over").await
}
