//! Cleans up after a step that has failed permanently, so that everything it touched is as before.
//!
//! The worker calls [`after_failure`] before it reports the failure. `settle` calls [`retire_all_retained`] for steps
//! that were cancelled or whose process died. As in a phase, databases are changed first, and the catalog follows with
//! the failure. This module looks for four kinds of traces. It acts only if the database's own identity shows that this
//! step made or left it:
//! - a retained database that an undo took out: it is retired again, under the generation it was retained with;
//! - a new database that no phase will use again: it is dropped;
//! - a scratch database in which a backup was proved: it is dropped;
//! - a stamp in the current database that the catalog does not know: the state before is stamped again, a generation
//!   later.
//!
//! If the operation has fenced the tenant, `roll_back` or `settle` brings it back. They decide which database serves. Only
//! what that decision leaves over is removed here.

use std::sync::Arc;

use catalog::retained::RetainedRecord;
use catalog::tenants::TenantUpdate;
use catalog::{BlockWrites, Generation, ServerId, TenantState};
use tenant_engine::{Engine, ErrorKind as DatabaseError, Identity, IdentityState, InspectionDepth, Placement};

use super::decide::{DropDecision, DropReason, decide_drop};
use super::{fence, image, observe, roll_back, stamp};
use crate::error::Result;
use crate::operation::{CatalogEffect, ClaimedStep, PlacementUse, StepContext};

/// The places where a step may have created databases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PossibleLeftovers {
    pub(crate) placements: PlacementUse,
    /// A server besides the tenant's own.
    pub(crate) elsewhere: Option<ServerId>,
}

/// Undoes what a failed step did. Returns the changes that the catalog records together with the failure. Work that
/// cannot be done now is logged, and `settle` and `scrub` find it later.
pub(crate) async fn after_failure(
    context: &StepContext,
    step: &ClaimedStep,
    made: PossibleLeftovers,
) -> Vec<CatalogEffect> {
    let done = undo_failed_step(context, step, made).await;
    done.unwrap_or_else(|error| {
        tracing::warn!(tenant = %step.tenant.id, op = %step.op.id, code = %error.code(), %error, "a failed step left traces");
        Vec::new()
    })
}

async fn undo_failed_step(
    context: &StepContext,
    step: &ClaimedStep,
    made: PossibleLeftovers,
) -> Result<Vec<CatalogEffect>> {
    let mut tx = context.catalog.read().await?;
    let claim = (step.op.id, step.tenant.id, step.claim);
    let is_live = catalog::steps::check_live_claims(&mut tx, &[claim]).await? == [true];
    let tenant = catalog::tenants::get(&mut tx, step.tenant.id).await?.filter(|_| is_live);
    drop(tx);
    // Another worker holds the step now, and the traces may be its work.
    let Some(tenant) = tenant else { return Ok(Vec::new()) };
    let step = ClaimedStep { tenant, ..step.clone() };
    if let Err(error) = image::drop_scratch(context, &step).await {
        tracing::warn!(op = %step.op.id, code = %error.code(), %error, "the scratch database of a failed step was not dropped");
    }
    if is_fenced(&step) && step.phase != roll_back::ROLL_BACK {
        return Ok(Vec::new());
    }
    retire_all_retained(context, &step).await?;
    if made.placements == PlacementUse::Fresh && step.tenant.state != TenantState::Provisioning {
        for server in [Some(step.tenant.server_id), made.elsewhere].into_iter().flatten() {
            remove_new_databases(context, &step, server).await?;
        }
    }
    Ok(restamp_current(context, &step).await?.map(CatalogEffect::UpdateTenant).into_iter().collect())
}

/// Whether an operation blocks the tenant's writes. Then `roll_back` or `settle` decides which of its databases serves.
fn is_fenced(step: &ClaimedStep) -> bool {
    step.tenant.block_writes == Some(BlockWrites::Operation)
}

/// Retires the tenant's retained databases that an undo took out and did not finish with. Returns how many. The caller
/// must know that no undo is running.
pub(crate) async fn retire_all_retained(context: &StepContext, step: &ClaimedStep) -> Result<usize> {
    let all = catalog::retained::of_tenant(&mut context.catalog.read().await?, step.tenant.id).await?;
    let mut count = 0;
    for record in all.iter().filter(|record| !is_current(step, record.server_id, &record.placement)) {
        let (engine, at) = context.resolve_placement(record.server_id, &record.placement).await?;
        let found = read_identity(engine, &at).await?;
        let taken_out = found.filter(|found| is_ours(context, step, found) && found.state == IdentityState::Building);
        if let Some(found) = taken_out {
            retire_retained(context, step, record, found.generation).await?;
            count += 1;
        }
    }
    Ok(count)
}

/// Restores the stamp of one retained database, if a failed step has changed it under this generation.
pub(crate) async fn retire_retained(
    context: &StepContext,
    step: &ClaimedStep,
    record: &RetainedRecord,
    stamped: Generation,
) -> Result<()> {
    use IdentityState::{Active, Building, Frozen, Moved};
    let (engine, at) = context.resolve_placement(record.server_id, &record.placement).await?;
    let expected = step.expected_at(context.fleet_id(), stamped, &[Building, Active, Frozen, Moved]);
    let identity = step.identity_to_stamp(context.fleet_id(), record.generation, IdentityState::Moved);
    Ok(engine.stamp_identity(&at, &expected, &identity).await?)
}

/// Removes the databases that the claims of this step created on a server. A database that was stamped to serve is
/// removed only if this claim filled it. A catalog that was restored from an older copy may not know that an earlier
/// claim's database has served.
async fn remove_new_databases(context: &StepContext, step: &ClaimedStep, server: ServerId) -> Result<()> {
    let kept = catalog::retained::of_tenant(&mut context.catalog.read().await?, step.tenant.id).await?;
    let on = context.load_server(server).await?;
    let engine = context.engine_of_kind(on.engine_kind())?;
    let (last, next) = (step.tenant.placement_epoch, step.tenant.generation.next());
    for number in (last - step.claim + 1).max(1)..=last {
        // After a fence, the catalog's generation is one closer to that of the new database.
        for generation in [next, next.next()] {
            let at = on.fresh_placement(step.tenant.id, generation, number);
            let is_kept = kept.iter().any(|one| one.server_id == server && one.placement == at.catalog_reference());
            if !is_kept && !is_current(step, server, at.catalog_reference()) {
                remove_leftover(context, step, engine, &at).await?;
            }
        }
    }
    Ok(())
}

async fn remove_leftover(
    context: &StepContext,
    step: &ClaimedStep,
    engine: &Arc<dyn Engine>,
    at: &Placement,
) -> Result<()> {
    let owner = (step.tenant.id, context.fleet_id());
    let observed = observe::observe_placement(engine, at, owner, step.tenant.generation).await;
    let why = DropReason::FailedStep {
        was_filled_here: step.has_filled(at.catalog_reference()),
        is_blocked: is_fenced(step),
    };
    match decide_drop(observed.condition, why) {
        DropDecision::Drop => {
            let found = observed.require_identity()?;
            if found.op == Some(step.op.id) {
                engine.drop_database(at, Some(&observe::expected_as_found(&found))).await?;
            }
            Ok(())
        }
        DropDecision::Unknown => Err(observed.into_problem()),
        _ => Ok(()),
    }
}

/// Stamps the current database back to its unfenced state, if this operation stamped it and the catalog does not know.
async fn restamp_current(context: &StepContext, step: &ClaimedStep) -> Result<Option<TenantUpdate>> {
    let tenant = &step.tenant;
    let served_state = match tenant.state {
        _ if tenant.placement.is_none() || is_fenced(step) => return Ok(None),
        TenantState::Active | TenantState::Suspended => fence::unfenced_tenant_state(tenant),
        TenantState::Deleted => IdentityState::Tombstone,
        TenantState::Provisioning | TenantState::Archived | TenantState::Purged => return Ok(None),
    };
    let (engine, at) = context.current_database(tenant).await?;
    let Some(found) = read_identity(engine, &at).await? else { return Ok(None) };
    let next = tenant.generation.next();
    // As in `stamp::expected_stamped_ahead`: a retired database may have been replaced by one that has served.
    let may_rest = matches!(found.state, IdentityState::Active | IdentityState::Frozen | IdentityState::Tombstone);
    let is_own = is_ours(context, step, &found) && found.op == Some(step.op.id);
    if !may_rest || !is_own || found.generation != next {
        return Ok(None);
    }
    let expected = step.expected_at(context.fleet_id(), next, &[found.state]);
    stamp::stamp_database(engine, &at, &expected, &step.identity_to_stamp(context.fleet_id(), next, served_state))
        .await?;
    Ok(Some(TenantUpdate::for_generation(tenant.id, tenant.generation)))
}

/// The identity that a database holds. `None` if there is no database, or it has no identity.
async fn read_identity(engine: &Arc<dyn Engine>, at: &Placement) -> Result<Option<Identity>> {
    match engine.inspect_database(at, None, InspectionDepth::Ledger).await {
        Ok(found) => Ok(Some(found.identity)),
        Err(error)
            if matches!(error.kind(), DatabaseError::Missing | DatabaseError::Corrupt | DatabaseError::WrongTenant) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn is_ours(context: &StepContext, step: &ClaimedStep, found: &Identity) -> bool {
    found.tenant == step.tenant.id && found.fleet == context.fleet_id()
}

fn is_current(step: &ClaimedStep, server: ServerId, placement: &str) -> bool {
    step.tenant.server_id == server && step.tenant.placement.as_deref() == Some(placement)
}
