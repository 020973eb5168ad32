//! Looks after tenants that an operation may have left fenced: one that failed, was cancelled, or died with its process.

use std::sync::Arc;

use super::submit;
use crate::error::Result;
use crate::operations::{Fleet, Params, settle};
use crate::runner::Runner;

/// Looked at by one operation; the rest waits for the next.
const BATCH: u32 = 1_000;
/// How far back a failure is looked for; a tenant is looked at once within it.
const SINCE_MS: i64 = 600_000;

pub(super) async fn run(fleet: Arc<Fleet>, runner: Arc<Runner>) -> Result<()> {
    let left = {
        let mut tx = fleet.catalog.read().await?;
        let since = tx.now() - SINCE_MS;
        catalog::tenants::unsettled(&mut tx, since, BATCH).await?
    };
    submit(&runner, Params::Settle(settle::Params::default()), &left, "an operation may have left it fenced").await
}
