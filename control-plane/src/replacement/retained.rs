//! Drops retained databases.

use catalog::retained::{RetainedReason, RetainedRecord};

use super::decide::{DropDecision, DropReason, decide_drop};
use super::observe;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::StepContext;

/// Drops a retained database whose time is over. A missing database counts as dropped.
///
/// # Errors
/// `fenced`: the database's identity says that it serves. A catalog that was restored from an older copy may still list
/// a database as retained that serves again.
pub(crate) async fn drop_retained(context: &StepContext, record: &RetainedRecord) -> Result<()> {
    let owner = (record.tenant_id, context.fleet_id());
    let (engine, at) = context.resolve_placement(record.server_id, &record.placement).await?;
    let observed = observe::observe_placement(engine, &at, owner, record.generation).await;
    let why = DropReason::Retained { was_damaged: record.reason == RetainedReason::Damaged };
    match decide_drop(observed.condition, why) {
        DropDecision::Drop => {
            let expected = observe::expected_as_found(&observed.require_identity()?);
            Ok(engine.drop_database(&at, Some(&expected)).await?)
        }
        DropDecision::DropUnread => Ok(engine.drop_database(&at, None).await?),
        DropDecision::Unknown => Err(observed.into_problem()),
        DropDecision::Keep | DropDecision::KeepServing | DropDecision::DropUnlessSound => {
            let found = observed.require_identity()?;
            let detail = format!(
                "the retained database {} is {} at generation {}",
                record.placement, found.state, found.generation
            );
            Err(Error::new(ErrorKind::DatabaseFenced, detail).try_next("fleetctl scrub"))
        }
    }
}
