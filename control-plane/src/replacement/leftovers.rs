//! Drops databases that earlier attempts made and no catalog names.

use std::sync::Arc;

use catalog::{Generation, ServerId, TenantRecord};
use tenant_engine::{Engine, ErrorKind as DatabaseError, InspectionDepth, Placement};

use super::decide::{DropDecision, DropReason, decide_drop};
use super::observe;
use crate::error::Result;
use crate::operation::{ClaimedStep, StepContext};

/// Drops the databases that earlier claims of this step may have left on a server. Their placement numbers belong to
/// this step alone, and the catalog names none of them. A database that was stamped to serve stays and is returned: a
/// catalog that was restored from an older copy may not know that it has served.
///
/// # Errors
/// Those of the engine.
pub(crate) async fn drop_earlier_attempts(
    context: &StepContext,
    server: ServerId,
    step: &ClaimedStep,
    generation: Generation,
) -> Result<Option<Placement>> {
    let server = context.load_server(server).await?;
    let engine = context.engine_of_kind(server.engine_kind())?;
    let mut serves = None;
    let last = step.tenant.placement_epoch;
    for number in (last - step.claim + 1).max(1)..last {
        let at = server.fresh_placement(step.tenant.id, generation, number);
        let is_current = step.tenant.placement.as_deref() == Some(at.catalog_reference());
        if !is_current && drop_attempt(context, engine, &at, &step.tenant).await? == AttemptLeft::Serving {
            serves = Some(at);
        }
    }
    Ok(serves)
}

/// Drops the databases made for a tenant that never left `provisioning`. A database whose identity says that it serves
/// stays: only a catalog that was restored from an older copy still sees that tenant in provisioning.
///
/// # Errors
/// Those of the engine.
pub(crate) async fn drop_unfinished(context: &StepContext, tenant: &TenantRecord) -> Result<()> {
    let server = context.load_server(tenant.server_id).await?;
    let engine = context.engine_of_kind(server.engine_kind())?;
    for number in 1..=tenant.placement_epoch {
        let at = server.fresh_placement(tenant.id, tenant.generation.next(), number);
        drop_attempt(context, engine, &at, tenant).await?;
    }
    Ok(())
}

/// What is left of an earlier attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptLeft {
    Nothing,
    /// A database that the catalog retained, or retained before it was restored.
    Retained,
    /// A database that may have served since.
    Serving,
}

async fn drop_attempt(
    context: &StepContext,
    engine: &Arc<dyn Engine>,
    at: &Placement,
    tenant: &TenantRecord,
) -> Result<AttemptLeft> {
    let observed = observe::observe_placement(engine, at, (tenant.id, context.fleet_id()), tenant.generation).await;
    let expected = match decide_drop(observed.condition, DropReason::EarlierAttempt) {
        DropDecision::Keep => return Ok(AttemptLeft::Retained),
        DropDecision::KeepServing => return Ok(AttemptLeft::Serving),
        DropDecision::Unknown => return Err(observed.into_problem()),
        DropDecision::DropUnlessSound if is_sound(engine, at).await? => return Ok(AttemptLeft::Serving),
        DropDecision::DropUnlessSound | DropDecision::DropUnread => None,
        DropDecision::Drop => Some(observe::expected_as_found(&observed.require_identity()?)),
    };
    engine.drop_database(at, expected.as_ref()).await?;
    Ok(AttemptLeft::Nothing)
}

async fn is_sound(engine: &Arc<dyn Engine>, at: &Placement) -> Result<bool> {
    match engine.inspect_database(at, None, InspectionDepth::Full).await {
        Ok(found) => Ok(found.problems.is_empty()),
        Err(error) if error.kind() == DatabaseError::Corrupt => Ok(false),
        Err(error) => Err(error.into()),
    }
}
