//! The next stamp of a tenant's current database: whoever only knows the present generation does not serve it any more.

use std::sync::Arc;

use tenant_engine::{Engine, Expected, Identity, IdentityState, Placement};

use super::{Fleet, Step};
use crate::error::Result;

/// Stamps the current database for the generation that the catalog is about to have: whoever only knows the present one
/// does not serve it any more.
pub(super) async fn restamp(fleet: &Fleet, step: &Step, from: &[IdentityState], to: IdentityState) -> Result<()> {
    let (engine, at) = fleet.current(&step.tenant).await?;
    let identity = step.identity(fleet.id(), step.tenant.generation.next(), to);
    match stamp(engine, &at, &step.expected(fleet.id(), from), &identity).await {
        // Stamped by an operation that died before the catalog heard of it: nobody has been served by it since.
        Err(error) if error.code == "fenced" && is_ours(fleet, step).await? => {
            stamp(engine, &at, &a_step_ahead(fleet, step), &identity).await
        }
        stamped => stamped,
    }
}

/// Stamps, with the fence against writers where the state wants it.
pub(super) async fn stamp(
    engine: &Arc<dyn Engine>,
    at: &Placement,
    expected: &Expected,
    identity: &Identity,
) -> Result<()> {
    match identity.state {
        IdentityState::Frozen => Ok(engine.freeze(at, expected, identity).await?),
        _ => Ok(engine.stamp(at, expected, identity).await?),
    }
}

/// True while the tenant is this operation's and as it was claimed: what a late worker takes for a step ahead may be the
/// present.
pub(super) async fn is_ours(fleet: &Fleet, step: &Step) -> Result<bool> {
    let now = catalog::tenants::get(&mut fleet.catalog.read().await?, step.tenant.id).await?;
    Ok(now.is_some_and(|now| now.op_id == Some(step.op.id) && now.generation == step.tenant.generation))
}

/// The current database as an operation leaves it that stamped it and never told the catalog.
pub(super) fn a_step_ahead(fleet: &Fleet, step: &Step) -> Expected {
    use IdentityState::{Active, Frozen, Tombstone};
    // Not `moved`: that is stamped when the catalog has the generation, and what replaced it may have served.
    let states = [Active, Frozen, Tombstone];
    step.expected_at(fleet.id(), step.tenant.generation.next(), &states)
}
