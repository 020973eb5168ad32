//! Repairs tenants that an operation may have left fenced: one that failed, was cancelled, or died with its process.

use std::sync::Arc;

use super::submit_for_fleet;
use crate::error::Result;
use crate::operation::StepContext;
use crate::operations::{OperationParams, settle};
use crate::runner::Runner;

/// Maximum number of tenants per operation. The rest waits for the next.
const BATCH: u32 = 1_000;
/// Maximum age of a failure that is considered, milliseconds. Within it a tenant is checked once.
const SINCE_MS: i64 = 600_000;

pub(super) async fn submit_repairs(context: Arc<StepContext>, runner: Arc<Runner>) -> Result<()> {
    let left = {
        let mut tx = context.catalog.read().await?;
        let since = tx.now() - SINCE_MS;
        catalog::tenants::unsettled_tenants(&mut tx, since, BATCH).await?
    };
    submit_for_fleet(
        &runner,
        OperationParams::Settle(settle::SettleParams::default()),
        &left,
        "an operation may have left it fenced",
    )
    .await
}
