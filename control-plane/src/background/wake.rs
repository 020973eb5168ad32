//! Gives archived tenants their databases back that somebody asked for; the routers only note that they were asked.

use std::sync::Arc;

use super::submit;
use crate::error::Result;
use crate::operations::{Fleet, Params, unarchive};
use crate::runner::Runner;

/// Woken by one operation.
const BATCH: u32 = 100;

/// Whether there is anybody to wake: asked every other second, so it only reads.
pub(super) async fn is_due(fleet: &Fleet) -> bool {
    let wanted = async { catalog::tenants::wanted(&mut fleet.catalog.read().await?, 1).await };
    wanted.await.is_ok_and(|wanted| !wanted.is_empty())
}

pub(super) async fn run(fleet: Arc<Fleet>, runner: Arc<Runner>) -> Result<()> {
    let wanted = catalog::tenants::wanted(&mut fleet.catalog.read().await?, BATCH).await?;
    submit(&runner, Params::Unarchive(unarchive::Params::default()), &wanted, "a request asked for it").await
}
