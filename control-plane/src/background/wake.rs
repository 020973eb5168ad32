//! Restores the databases of archived tenants that were requested. Routers only record the request.

use std::sync::Arc;

use super::submit_for_fleet;
use crate::error::Result;
use crate::operation::StepContext;
use crate::operations::{OperationParams, unarchive};
use crate::runner::Runner;

/// Maximum number of tenants per operation.
const BATCH: u32 = 100;

/// Whether any tenant is to be woken. Called every other second, so it only reads.
pub(super) async fn is_due(context: &StepContext) -> bool {
    let wanted = async { catalog::tenants::wake_requested(&mut context.catalog.read().await?, 1).await };
    wanted.await.is_ok_and(|wanted| !wanted.is_empty())
}

pub(super) async fn submit_wakes(context: Arc<StepContext>, runner: Arc<Runner>) -> Result<()> {
    let wanted = catalog::tenants::wake_requested(&mut context.catalog.read().await?, BATCH).await?;
    submit_for_fleet(
        &runner,
        OperationParams::Unarchive(unarchive::UnarchiveParams::default()),
        &wanted,
        "a request asked for it",
    )
    .await
}
