//! Limits the growth of the change feed, the messages of topics, the stored answers, and the leases of dead processes.

use crate::error::Result;
use crate::operation::StepContext;

/// Entries of the change feed to keep for slow readers. A reader that is further behind drops its whole cache.
const CHANGES_KEPT: i64 = 100_000;
/// How long the answer to an Idempotency-Key is stored, milliseconds.
const ANSWERS_KEPT_MS: i64 = 24 * 3_600_000;

pub(super) async fn trim_catalog(context: &StepContext) -> Result<()> {
    let mut tx = context.catalog.write().await?;
    catalog::changes::trim_feed(&mut tx, CHANGES_KEPT).await?;
    catalog::topics::trim_messages(&mut tx).await?;
    let before = tx.now() - ANSWERS_KEPT_MS;
    catalog::idempotency::trim_keys(&mut tx, before).await?;
    catalog::leases::expire_leases(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}
