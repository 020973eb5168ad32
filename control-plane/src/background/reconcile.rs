//! Ends operations that were cancelled while a process held some of their steps and died. No other task looks at them,
//! and their tenants would wait forever. The versions that they had reached are recorded. Expired leases of open
//! operations are found by the runner itself.

use crate::error::Result;
use crate::operation::StepContext;
use crate::runner::{Runner, reached_versions};

pub(crate) async fn close_abandoned(context: &StepContext, runner: &Runner) -> Result<()> {
    let abandoned = catalog::steps::abandoned_operations(&mut context.catalog.read().await?).await?;
    // If this process still runs one of its steps, a clock was changed: the runner ends the operation with its last
    // step.
    for op in abandoned.into_iter().filter(|op| runner.held(*op).is_empty()) {
        let mut tx = context.catalog.write().await?;
        catalog::steps::cancel_pending(&mut tx, op, &[]).await?;
        catalog::operations::finish_if_done(&mut tx, op).await?;
        tx.commit().await?;
        reached_versions::record_reached(context, crate::operations::registry(), op).await?;
    }
    Ok(())
}
