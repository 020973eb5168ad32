//! Counts of fleet operations, and the check of those that failed.

use catalog::ReadTx;
use catalog::operations::{self, OperationState};

use super::check::HealthCheck;
use crate::error::Result;

/// The period that counts as recent, milliseconds.
const RECENT_MS: i64 = 24 * 3_600_000;
/// Maximum number of operations that are searched for recent failures. More in a day is an outage, not a count.
const LOOKED_AT_MAX: u32 = 100;

/// Fleet operations, in numbers.
pub(crate) struct OperationCounts {
    /// Operations that have not ended.
    pub(crate) running: usize,
    /// Operations that failed within a day, wholly or in part.
    pub(crate) failed_recent: usize,
}

/// Counts the operations by state.
pub(crate) async fn count_operations(tx: &mut ReadTx) -> Result<OperationCounts> {
    let states = [OperationState::Failed, OperationState::Partial];
    let failed = operations::list_operations(tx, &states, None, None, None, LOOKED_AT_MAX).await?;
    let since = tx.now() - RECENT_MS;
    let failed_recent = failed.iter().filter(|op| op.finished_at.is_some_and(|at| at >= since)).count();
    Ok(OperationCounts { running: operations::open_operations(tx).await?.len(), failed_recent })
}

/// Checks whether operations failed within a day.
pub(super) async fn failed_operations(tx: &mut ReadTx) -> Result<HealthCheck> {
    Ok(match count_operations(tx).await?.failed_recent {
        0 => HealthCheck::new_ok("operations", "none failed within a day"),
        failed => HealthCheck::new_warning(
            "operations",
            format!("{failed} failed within a day"),
            "fleetctl op list --state failed,partial",
        ),
    })
}
