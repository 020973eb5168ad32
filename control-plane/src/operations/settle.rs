//! settle (`tenant repair`): makes catalog and database of a tenant agree again, and the tenant serve.
//!
//! An operation may fail or be given up after its stamp and before the catalog was updated. It leaves a database that
//! no router serves, or a block that nobody lifts. Then the database that the catalog names is stamped with a next
//! generation, and the catalog follows. If the swap retired that database, the new one decides. An activated one completes
//! the swap. One that never served is discarded. Otherwise an operator must choose. If nothing is wrong, nothing is done.
//!
//! A catalog that was restored from a still older copy knows too little for that. Then an operator has it search for
//! the tenant's database that served last (`replacement/latest.rs`).

use async_trait::async_trait;
use catalog::tenants::TenantUpdate;
use catalog::{BlockWrites, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::schema_pin::PreviousSchema;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{
    CatalogEffect, ClaimedStep, FleetOperation, OperationTargets, PhaseOutcome, PlanInput, StepContext, StepPlan,
};
use crate::replacement::decide::{Decision, Question, decide};
use crate::replacement::observe::{self, Observation};
use crate::replacement::{act, failed_step, fence, latest, stamp, swap};

/// The parameters of a repair: what to do if it cannot be decided which of two databases served last.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SettleParams {
    /// Serves the database that the catalog names, even if it was retired (`--use-current`).
    #[serde(default)]
    pub back: bool,
    /// Serves the database that served last by the identities of all the tenant's databases, on any server
    /// (`--find-latest`).
    #[serde(default)]
    pub newest: bool,
}

#[async_trait]
impl FleetOperation for SettleParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Selected(self.eligible_states())
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        if self.back && self.newest {
            return Err(Error::new(
                ErrorKind::Invalid,
                "back and newest are two ways to choose a database: use only one",
            ));
        }
        for tenant in &seen.tenants {
            plan.add_step(tenant.id, &tenant.name, || "is repaired, if an operation left it fenced".to_owned());
        }
        Ok(())
    }

    fn conclude_plan(&self, _seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        if self.newest {
            let note = "other changes that the catalog has lost (a suspension, a deletion, a block of writes, a name) are not restored";
            plan.notes.push(note.to_owned());
        }
        if self.back {
            plan.notes.push("writes to a database that replaced a retired one are not in it".to_owned());
        }
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        self.repair_tenant(context, step).await.into()
    }
}

impl SettleParams {
    /// The states in which a tenant can be repaired. By the catalog, an archived or deleted tenant has no serving
    /// database. A database may still say that it serves.
    fn eligible_states(&self) -> &'static [TenantState] {
        match self.newest {
            true => &[TenantState::Active, TenantState::Suspended, TenantState::Archived, TenantState::Deleted],
            false => &[TenantState::Active, TenantState::Suspended],
        }
    }

    async fn repair_tenant(&self, context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
        step.require_state(self.eligible_states())?;
        if catalog::steps::is_in_progress(&mut context.catalog.read().await?, step.tenant.id, step.op.id).await? {
            if self.newest {
                return Err(fence::operation_in_progress(step));
            }
            return Ok(PhaseOutcome::step_done(
                json!({"settled": false, "why": "another operation will continue with it"}),
            ));
        }
        context.fault_point("settle: claimed").await;
        if self.newest {
            return use_latest(context, step).await;
        }
        let seen = observe::observe_tenant(context, step).await?;
        let open = seen.open.clone();
        match (decide(&seen.situation(), Question::Repair { use_current: self.back }), &open) {
            (Decision::Nothing, _) => retire_retained_only(context, step).await,
            (Decision::UseCurrent, _) => use_current(context, step, seen).await,
            (Decision::UseNew, Some(open)) => swap::complete_swap(context, step, open).await,
            (Decision::Refuse(why), _) => Err(act::refusal_error(step, seen, why)),
            (other, _) => Err(Error::internal(format!("a repair was decided as {other:?}"))),
        }
    }
}

/// Used when the tenant serves already. Only retires a retained database that an abandoned undo took out.
async fn retire_retained_only(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    match failed_step::retire_all_retained(context, step).await? {
        0 => Ok(PhaseOutcome::step_done(json!({"settled": false}))),
        kept => {
            let facts = json!({"settled": true, "kept": kept});
            Ok(PhaseOutcome::step_done(facts.clone())
                .with_effect(CatalogEffect::Event(step.tenant_event("tenant.settled", facts))))
        }
    }
}

/// Lets the database that served last serve on, and records it in the catalog.
async fn use_latest(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    let newest = match latest::find_latest(context, step).await? {
        Some(newest) => newest,
        None if latest::has_no_live_database(&step.tenant) => {
            return Ok(PhaseOutcome::step_done(json!({"settled": false})));
        }
        None => return Err(latest::nothing_found(step)),
    };
    let comes_back = latest::has_no_live_database(&step.tenant);
    let found = &newest.found.identity;
    let held = step.tenant.block_writes == Some(BlockWrites::Operation);
    let (block, reason) = act::block_before_fence(context, step).await?;
    let is_known = step.tenant.placement.as_deref() == Some(newest.placement.as_str())
        && step.tenant.server_id == newest.server
        && step.tenant.generation == found.generation;
    if is_known && !held && found.state == fence::state_under_block(block) {
        return Ok(PhaseOutcome::step_done(json!({"settled": false})));
    }
    // Checked after the search: a worker that slept meanwhile may have found the result of another worker.
    if !stamp::is_ours(context, step).await? {
        let detail = format!("{} was changed meanwhile", step.tenant.name);
        return Err(
            Error::new(ErrorKind::Conflict, detail).try_next(format!("fleetctl tenant get {}", step.tenant.name))
        );
    }
    let (engine, at) = context.resolve_placement(newest.server, &newest.placement).await?;
    let next = found.generation.next();
    let expected = step.expected_at(context.fleet_id(), found.generation, &[found.state]);
    stamp::stamp_database(
        engine,
        &at,
        &expected,
        &step.identity_to_stamp(context.fleet_id(), next, fence::state_under_block(block)),
    )
    .await?;
    context.fault_point("settle: newest stamped").await;
    let flip = TenantUpdate {
        to: Some(next),
        state: comes_back.then(|| step.tenant.state_on_wake()),
        purge_after: comes_back.then_some(None),
        server_id: Some(newest.server),
        placement: Some(Some(newest.placement.clone())),
        schema_version: Some(newest.found.schema_version()),
        pin: Some(PreviousSchema::from_catalog(&step.tenant).pin_at(newest.found.schema_version(), step)),
        size_bytes: i64::try_from(newest.found.size_bytes).ok(),
        block_writes: held.then_some(block),
        reason: held.then_some(reason),
        ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
    };
    let was = json!({"generation": found.generation, "state": found.state});
    let facts = json!({"settled": true, "was": was, "server": newest.server, "placement": newest.placement});
    let event = step.tenant_event("tenant.settled", facts.clone());
    // An older catalog may list this database as retained.
    let unkept = CatalogEffect::Unretain { server: newest.server, placement: newest.placement };
    Ok(PhaseOutcome::step_done(facts)
        .with_effect(CatalogEffect::UpdateTenant(flip))
        .with_effect(CatalogEffect::EndReplacement(step.tenant.id))
        .with_effect(unkept)
        .with_effect(CatalogEffect::Event(event)))
}

/// Lets the database that the catalog names serve again, and discards the new one of an unfinished replacement.
async fn use_current(context: &StepContext, step: &ClaimedStep, seen: Observation) -> Result<PhaseOutcome> {
    let (open, served_state) = (seen.open.clone(), seen.served_state);
    let found = seen.current.require_identity()?;
    let held = step.tenant.block_writes == Some(BlockWrites::Operation);
    let (block, reason) = act::block_before_fence(context, step).await?;
    let kept = act::return_to_current(context, step, open.as_ref(), (&found, served_state)).await?;
    context.fault_point("settle: stamped").await;
    let flip = TenantUpdate {
        block_writes: held.then_some(block),
        reason: held.then_some(reason),
        ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
    };
    let facts = json!({"settled": true, "was": {"generation": found.generation, "state": found.state}});
    let event = step.tenant_event("tenant.settled", facts.clone());
    let mut outcome = PhaseOutcome::step_done(facts)
        .with_effect(CatalogEffect::UpdateTenant(flip))
        .with_effect(CatalogEffect::EndReplacement(step.tenant.id))
        .with_effect(CatalogEffect::Event(event));
    outcome.effects.extend(kept.map(CatalogEffect::Retain));
    Ok(outcome)
}
