//! Stamps a tenant's current database with the next generation. A process that only knows the present generation then
//! stops serving it.

use std::sync::Arc;

use tenant_engine::{Engine, ExpectedIdentity, Identity, IdentityState, Placement};

use crate::error::{ErrorKind, Result};
use crate::operation::{ClaimedStep, StepContext};

/// Stamps the current database with the generation that the catalog is about to have. A process that only knows the
/// present generation then stops serving it.
pub(crate) async fn stamp_current(
    context: &StepContext,
    step: &ClaimedStep,
    from: &[IdentityState],
    to: IdentityState,
) -> Result<()> {
    let (engine, at) = context.current_database(&step.tenant).await?;
    let identity = step.identity_to_stamp(context.fleet_id(), step.tenant.generation.next(), to);
    match stamp_database(engine, &at, &step.expected_identity(context.fleet_id(), from), &identity).await {
        // An operation stamped the database and died before the catalog was updated. It has served nobody since.
        Err(error)
            if error.kind == ErrorKind::Engine(tenant_engine::ErrorKind::Fenced) && is_ours(context, step).await? =>
        {
            stamp_database(engine, &at, &expected_stamped_ahead(context, step), &identity).await
        }
        stamped => stamped,
    }
}

/// Stamps a database. For the state `frozen` it also fences it against writers.
pub(crate) async fn stamp_database(
    engine: &Arc<dyn Engine>,
    at: &Placement,
    expected: &ExpectedIdentity,
    identity: &Identity,
) -> Result<()> {
    match identity.state {
        IdentityState::Frozen => Ok(engine.freeze_database(at, expected, identity).await?),
        _ => Ok(engine.stamp_identity(at, expected, identity).await?),
    }
}

/// True while this operation holds the tenant, at the generation of the claim. For a late worker, a database that seems
/// one generation ahead may be the present one.
pub(crate) async fn is_ours(context: &StepContext, step: &ClaimedStep) -> Result<bool> {
    let now = catalog::tenants::get(&mut context.catalog.read().await?, step.tenant.id).await?;
    Ok(now.is_some_and(|now| now.op_id == Some(step.op.id) && now.generation == step.tenant.generation))
}

/// The identity of the current database if an operation stamped it and did not update the catalog.
pub(crate) fn expected_stamped_ahead(context: &StepContext, step: &ClaimedStep) -> ExpectedIdentity {
    use IdentityState::{Active, Frozen, Tombstone};
    // Not `moved`: the database is stamped so when the catalog already has the generation, and its replacement may have
    // served.
    let states = [Active, Frozen, Tombstone];
    step.expected_at(context.fleet_id(), step.tenant.generation.next(), &states)
}
