//! Drops the databases of deleted tenants whose time for an undelete is over.

use std::sync::Arc;

use super::steady_time::SteadyTime;
use super::submit_for_fleet;
use crate::error::Result;
use crate::operation::StepContext;
use crate::operations::{OperationParams, purge};
use crate::runner::Runner;

/// Maximum number of tenants per operation. The rest waits for the next.
const BATCH: u32 = 1_000;

pub(super) async fn submit_purges(
    context: Arc<StepContext>,
    runner: Arc<Runner>,
    steady: Arc<SteadyTime>,
) -> Result<()> {
    let now = steady.removal_time(&context).await?;
    let due = catalog::tenants::purgeable_tenants(&mut context.catalog.read().await?, now, BATCH).await?;
    submit_for_fleet(
        &runner,
        OperationParams::Purge(purge::PurgeParams { due: true }),
        &due,
        "its time for an undelete is over",
    )
    .await
}
