//! After a step has failed for good: what it touched is as it was.
//!
//! The worker calls [`after_failure`] before it reports the failure; `settle` calls [`kept`] for steps that were cancelled
//! or whose process died. Databases are told first and the catalog follows with the failure, as in a phase. Four kinds
//! of traces are looked for, and each only where the database itself says that this step made it or left it:
//! - a kept database that was taken out for an undo: it is retired again, under the generation that it was kept with;
//! - a new database that no phase will come back to: it goes;
//! - a scratch database in which a backup was proved: it goes;
//! - a stamp in the current database that the catalog was never told of: it rests again, a generation later.
//!
//! A tenant behind its operation's fence is brought back by `thaw` or `settle`: which of its databases serves on is decided
//! there, and only what that decision leaves over goes here.

use std::sync::Arc;

use catalog::retained::RetainedRecord;
use catalog::tenants::Flip;
use catalog::{BlockWrites, Generation, ServerId, TenantState};
use tenant_engine::{Depth, Engine, ErrorKind, Identity, IdentityState, Placement};

use super::{Effect, Fleet, Placements, Step, fence, image, stamp, thaw};
use crate::error::Result;

/// Where a step may have made databases.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) placements: Placements,
    /// A server besides the tenant's own.
    pub(super) elsewhere: Option<ServerId>,
}

/// Puts back what a failed step touched; returns what the catalog is to be told with the failure. What cannot be done now
/// is logged, and found by `settle` and `scrub`.
pub(super) async fn after_failure(fleet: &Fleet, step: &Step, made: Made) -> Vec<Effect> {
    let done = put_back(fleet, step, made).await;
    done.unwrap_or_else(|error| {
        tracing::warn!(tenant = %step.tenant.id, op = %step.op.id, code = %error.code, %error, "a failed step left traces");
        Vec::new()
    })
}

async fn put_back(fleet: &Fleet, step: &Step, made: Made) -> Result<Vec<Effect>> {
    let mut tx = fleet.catalog.read().await?;
    let claim = (step.op.id, step.tenant.id, step.claim);
    let is_live = catalog::steps::live(&mut tx, &[claim]).await? == [true];
    let tenant = catalog::tenants::get(&mut tx, step.tenant.id).await?.filter(|_| is_live);
    drop(tx);
    // Another worker holds the step by now, and what is there may be its work.
    let Some(tenant) = tenant else { return Ok(Vec::new()) };
    let step = Step { tenant, ..step.clone() };
    if let Err(error) = image::drop_scratch(fleet, &step).await {
        tracing::warn!(op = %step.op.id, code = %error.code, %error, "the scratch database of a failed step stays");
    }
    if is_fenced(&step) && step.phase != thaw::THAW {
        return Ok(Vec::new());
    }
    kept(fleet, &step).await?;
    if made.placements == Placements::Fresh && step.tenant.state != TenantState::Provisioning {
        for server in [Some(step.tenant.server_id), made.elsewhere].into_iter().flatten() {
            new_ones(fleet, &step, server).await?;
        }
    }
    Ok(current(fleet, &step).await?.map(Effect::Flip).into_iter().collect())
}

/// An operation blocks the tenant's writes; `thaw` or `settle` decides which of its databases serves on.
fn is_fenced(step: &Step) -> bool {
    step.tenant.block_writes == Some(BlockWrites::Operation)
}

/// Retires the tenant's kept databases again that an undo has taken out and not finished; returns how many. The caller
/// knows that no undo is at work.
pub(super) async fn kept(fleet: &Fleet, step: &Step) -> Result<usize> {
    let all = catalog::retained::of_tenant(&mut fleet.catalog.read().await?, step.tenant.id).await?;
    let mut count = 0;
    for record in all.iter().filter(|record| !is_current(step, record.server_id, &record.placement)) {
        let (engine, at) = fleet.at(record.server_id, &record.placement).await?;
        let found = says(engine, &at).await?;
        let taken_out = found.filter(|found| is_ours(fleet, step, found) && found.state == IdentityState::Building);
        if let Some(found) = taken_out {
            retire_kept(fleet, step, record, found.generation).await?;
            count += 1;
        }
    }
    Ok(count)
}

/// One kept database is as it was kept, whatever a step that has failed made of it under this generation.
pub(super) async fn retire_kept(
    fleet: &Fleet,
    step: &Step,
    record: &RetainedRecord,
    stamped: Generation,
) -> Result<()> {
    use IdentityState::{Active, Building, Frozen, Moved};
    let (engine, at) = fleet.at(record.server_id, &record.placement).await?;
    let expected = step.expected_at(fleet.id(), stamped, &[Building, Active, Frozen, Moved]);
    let identity = step.identity(fleet.id(), record.generation, IdentityState::Moved);
    Ok(engine.stamp(&at, &expected, &identity).await?)
}

/// Removes the databases that the claims of this step made on a server. One that was stamped to serve goes only if this
/// very claim filled it: a catalog that was restored from an older copy may not know that an earlier one has served.
async fn new_ones(fleet: &Fleet, step: &Step, server: ServerId) -> Result<()> {
    let kept = catalog::retained::of_tenant(&mut fleet.catalog.read().await?, step.tenant.id).await?;
    let on = fleet.server(server).await?;
    let engine = fleet.engine(on.engine())?;
    let (last, next) = (step.tenant.placement_epoch, step.tenant.generation.next());
    for number in (last - step.claim + 1).max(1)..=last {
        // Behind a fence the catalog has come a generation nearer to the new database.
        for generation in [next, next.next()] {
            let at = on.fresh(step.tenant.id, generation, number);
            let is_kept = kept.iter().any(|one| one.server_id == server && one.placement == at.reference());
            if !is_kept && !is_current(step, server, at.reference()) {
                remove(fleet, step, engine, &at).await?;
            }
        }
    }
    Ok(())
}

async fn remove(fleet: &Fleet, step: &Step, engine: &Arc<dyn Engine>, at: &Placement) -> Result<()> {
    let found = says(engine, at).await?;
    let Some(found) = found.filter(|found| is_ours(fleet, step, found) && found.op == Some(step.op.id)) else {
        return Ok(());
    };
    let goes = match found.state {
        IdentityState::Building => true,
        // Behind the fence what was activated may be what the tenant is brought back with.
        IdentityState::Active | IdentityState::Frozen => step.has_filled(at.reference()) && !is_fenced(step),
        IdentityState::Moved | IdentityState::Tombstone => false,
    };
    if goes {
        let expected = step.expected_at(fleet.id(), found.generation, &[found.state]);
        engine.drop_database(at, Some(&expected)).await?;
    }
    Ok(())
}

/// The current database rests again after a stamp of this operation that the catalog does not know.
async fn current(fleet: &Fleet, step: &Step) -> Result<Option<Flip>> {
    let tenant = &step.tenant;
    let rests = match tenant.state {
        _ if tenant.placement.is_none() || is_fenced(step) => return Ok(None),
        TenantState::Active | TenantState::Suspended => fence::at_rest(tenant),
        TenantState::Deleted => IdentityState::Tombstone,
        TenantState::Provisioning | TenantState::Archived | TenantState::Purged => return Ok(None),
    };
    let (engine, at) = fleet.current(tenant).await?;
    let Some(found) = says(engine, &at).await? else { return Ok(None) };
    let next = tenant.generation.next();
    // As in `stamp::a_step_ahead`: a retired one may have been replaced by one that has served.
    let may_rest = matches!(found.state, IdentityState::Active | IdentityState::Frozen | IdentityState::Tombstone);
    let is_own = is_ours(fleet, step, &found) && found.op == Some(step.op.id);
    if !may_rest || !is_own || found.generation != next {
        return Ok(None);
    }
    let expected = step.expected_at(fleet.id(), next, &[found.state]);
    stamp::stamp(engine, &at, &expected, &step.identity(fleet.id(), next, rests)).await?;
    Ok(Some(Flip::of(tenant.id, tenant.generation)))
}

/// What a database says of itself; `None` when there is none, or it says nothing.
async fn says(engine: &Arc<dyn Engine>, at: &Placement) -> Result<Option<Identity>> {
    match engine.inspect(at, None, Depth::Ledger).await {
        Ok(found) => Ok(Some(found.identity)),
        Err(error) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Corrupt | ErrorKind::WrongTenant) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn is_ours(fleet: &Fleet, step: &Step, found: &Identity) -> bool {
    found.tenant == step.tenant.id && found.fleet == fleet.id()
}

fn is_current(step: &Step, server: ServerId, placement: &str) -> bool {
    step.tenant.server_id == server && step.tenant.placement.as_deref() == Some(placement)
}
