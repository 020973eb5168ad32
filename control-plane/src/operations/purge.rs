//! purge: the end of a deleted tenant. Its current and retained databases are dropped. Its row and names stay, so that
//! a name never leads to another tenant. Backups end with their own retention.

use async_trait::async_trait;
use catalog::TenantState;
use catalog::tenants::TenantUpdate;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, ErrorKind, Result};
use crate::operation::{
    CatalogEffect, ClaimedStep, FleetOperation, OperationTargets, PhaseOutcome, PlanInput, StepContext, StepPlan,
};
use crate::replacement::decide::{DropDecision, DropReason, decide_drop};
use crate::replacement::observe;
use crate::replacement::retained::drop_retained;

/// The parameters of a purge. The selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PurgeParams {
    /// Purges only tenants whose time for an undelete is over. This is checked again at each attempt.
    #[serde(default)]
    pub due: bool,
}

#[async_trait]
impl FleetOperation for PurgeParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Selected(&[TenantState::Deleted])
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        for tenant in &seen.tenants {
            plan.add_step(tenant.id, &tenant.name, || "its databases are dropped permanently".to_owned());
        }
        let early = seen.tenants.iter().filter(|tenant| tenant.purge_after.is_some_and(|at| at > seen.now)).count();
        plan.undeletable += early as u64;
        Ok(())
    }

    fn conclude_plan(&self, _seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        if plan.undeletable > 0 {
            plan.notes.push(format!("{} of them could still be undeleted", plan.undeletable));
        }
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        purge_tenant(context, step, self.due).await.into()
    }
}

async fn purge_tenant(context: &StepContext, step: &ClaimedStep, due: bool) -> Result<PhaseOutcome> {
    step.require_state(&[TenantState::Deleted])?;
    if due && step.tenant.purge_after.is_none_or(|at| at > step.now) {
        return Err(Error::new(ErrorKind::Conflict, format!("{} can still be undeleted", step.tenant.name)));
    }
    context.fault_point("purge: claimed").await;
    let kept = catalog::retained::of_tenant(&mut context.catalog.read().await?, step.tenant.id).await?;
    let flip = TenantUpdate {
        state: Some(TenantState::Purged),
        placement: Some(None),
        purge_after: Some(None),
        ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
    };
    let event = step.tenant_event("tenant.purged", json!({"databases": kept.len() + 1}));
    let mut outcome = PhaseOutcome::step_done(json!({}))
        .with_effect(CatalogEffect::UpdateTenant(flip))
        .with_effect(CatalogEffect::Event(event));
    // The current database is dropped last. If a purge stops before, the tenant can still be undeleted.
    for record in kept {
        drop_retained(context, &record).await?;
        context.fault_point("purge: dropped a kept one").await;
        outcome =
            outcome.with_effect(CatalogEffect::Unretain { server: record.server_id, placement: record.placement });
    }
    drop_current(context, step).await?;
    context.fault_point("purge: dropped").await;
    Ok(outcome)
}

/// Drops the current database, if it holds a tombstone or cannot be read.
async fn drop_current(context: &StepContext, step: &ClaimedStep) -> Result<()> {
    if step.tenant.placement.is_none() {
        return Ok(());
    }
    let (engine, at) = context.current_database(&step.tenant).await?;
    let owner = (step.tenant.id, context.fleet_id());
    let observed = observe::observe_placement(engine, &at, owner, step.tenant.generation).await;
    let expected = match decide_drop(observed.condition, DropReason::Purged) {
        DropDecision::Drop => Some(observe::expected_as_found(&observed.require_identity()?)),
        DropDecision::DropUnread => None,
        DropDecision::Unknown => return Err(observed.into_problem()),
        DropDecision::Keep | DropDecision::KeepServing | DropDecision::DropUnlessSound => {
            let (name, found) = (&step.tenant.name, observed.require_identity()?);
            let detail = format!(
                "refusing to purge {name}: its database is not marked deleted: it is {} at generation {}",
                found.state, found.generation
            );
            return Err(Error::new(ErrorKind::DatabaseFenced, detail)
                .try_next(format!("fleetctl tenant repair {name} --find-latest")));
        }
    };
    Ok(engine.drop_database(&at, expected.as_ref()).await?)
}
