//! Ends operations that were cancelled while a process held steps of theirs and died: nobody else looks at them, and
//! the tenants they hold would wait for ever. What they had reached is written down. Expired leases of open operations are found by the runner itself.

use crate::error::Result;
use crate::operations::Fleet;
use crate::runner::reached;

pub(crate) async fn run(fleet: &Fleet) -> Result<()> {
    let abandoned = catalog::steps::abandoned(&mut fleet.catalog.read().await?).await?;
    for op in abandoned {
        let mut tx = fleet.catalog.write().await?;
        catalog::steps::cancel_pending(&mut tx, op).await?;
        catalog::operations::finish_if_done(&mut tx, op).await?;
        tx.commit().await?;
        reached::record(fleet, op).await?;
    }
    Ok(())
}
