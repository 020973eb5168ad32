//! clone: a new tenant with the data that another tenant has at this moment. The source serves meanwhile.

use async_trait::async_trait;
use catalog::tenants::TenantUpdate;
use catalog::{ReadTx, TenantId, TenantName, TenantRecord, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{IdentityState, Snapshot};

use super::schema_pin::{PreviousSchema, version_text};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{
    CatalogEffect, ClaimedStep, FleetOperation, OperationTargets, PhaseOutcome, PlacementUse, PlanInput,
    PreparedSubmission, StepContext, StepPlan, SubmissionScope,
};
use crate::replacement::build::{self, BuiltDatabase, SchemaGoal};
use crate::replacement::{fence, image};

/// The parameters of a clone. The selection names exactly one tenant: the source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CloneParams {
    /// The new tenant's name.
    pub name: String,
    /// The tenant that is cloned. Filled at submission.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<TenantId>,
}

#[async_trait]
impl FleetOperation for CloneParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::One(&[TenantState::Active, TenantState::Suspended])
    }

    fn placement_use(&self) -> PlacementUse {
        PlacementUse::Fresh
    }

    async fn prepare_submission(&self, _context: &StepContext, _scope: SubmissionScope) -> Result<PreparedSubmission> {
        let named = vec![(TenantId::generate(), TenantName::parse_slug(&self.name)?)];
        Ok(PreparedSubmission { named, ..PreparedSubmission::default() })
    }

    async fn load_for_page(&mut self, tx: &mut ReadTx, seen: &mut PlanInput) -> Result<()> {
        self.source = seen.tenants.first().map(|source| source.id);
        let names: Vec<TenantName> = seen.prepared.named.iter().map(|(_, name)| name.clone()).collect();
        seen.taken = catalog::names::taken_names(tx, &names).await?.into_iter().collect();
        Ok(())
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        let source = seen.tenants.first().ok_or_else(|| Error::internal("a clone is of one tenant"))?;
        let (id, name) = seen.prepared.named.first().ok_or_else(|| Error::internal("a clone has a name"))?;
        if seen.taken.contains_key(name) {
            let detail = format!("a tenant named '{}' exists, or existed once", name.as_str());
            return Err(Error::new(ErrorKind::AlreadyExists, detail));
        }
        let (name, server_id, labels) = (name.clone(), source.server_id, source.labels.clone());
        plan.add_step(*id, name.as_str(), || format!("is created with the data of {}", source.name));
        let limits = source.plan.as_ref().map(|plan| plan.name.clone());
        plan.new.push(catalog::tenants::NewTenant { id: *id, name, server_id, labels, plan: limits });
        plan.notes.push("the new tenant has no members and no tokens".to_owned());
        if source.pin.is_some() {
            plan.notes.push(format!(
                "{} is pinned at {}, and so is its copy",
                source.name,
                version_text(source.schema_version)
            ));
        }
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        self.clone_source(context, step).await.into()
    }
}

impl CloneParams {
    async fn clone_source(&self, context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
        step.require_state(&[TenantState::Provisioning])?;
        let source = self.load_source(context).await?;
        // A pinned source is not at the head of its release, so its copy keeps the source's version.
        let goal = if source.pin.is_some() { SchemaGoal::Stay(None) } else { SchemaGoal::Head(source.release_id) };
        let fill = fill_from_source(context, step, &source, goal);
        let mut built = build::build_new_tenant(context, step, IdentityState::Active, goal, fill).await?;
        built.pin = PreviousSchema::from_catalog(&source).pin_at(built.schema_version, step);
        let flip = TenantUpdate { state: Some(TenantState::Active), ..built.tenant_update(step) };
        let pinned = built.pin.is_some();
        let facts = json!({"source": self.source, "schema_version": built.schema_version, "pinned": pinned});
        let facts = built.add_left_out(facts);
        let event = step.tenant_event("tenant.cloned", facts.clone());
        Ok(PhaseOutcome::step_done(facts)
            .with_effect(CatalogEffect::UpdateTenant(flip))
            .with_effect(CatalogEffect::Event(event)))
    }

    async fn load_source(&self, context: &StepContext) -> Result<TenantRecord> {
        let id = self.source.ok_or_else(|| Error::internal("a clone without a source"))?;
        let found = catalog::tenants::get(&mut context.catalog.read().await?, id).await?;
        found.ok_or_else(|| Error::internal("a clone of nobody"))
    }
}

async fn fill_from_source(
    context: &StepContext,
    step: &ClaimedStep,
    source: &TenantRecord,
    goal: SchemaGoal,
) -> Result<BuiltDatabase> {
    let generation = step.tenant.generation.next();
    context.fault_point("clone: claimed").await;
    let _one_of_few = context.images.acquire().await.map_err(|error| Error::internal("closing").with_source(error))?;
    let picture = snapshot_source(context, step, source).await?;
    context.fault_point("clone: snapshot taken").await;
    let (engine, at) = context.fresh_placement(step, generation).await?;
    let identity = step.identity_to_stamp(context.fleet_id(), generation, IdentityState::Building);
    let restored = engine.restore_database(&at, picture.image, source.id, &identity).await?;
    let rows = picture.info.rows.as_ref();
    let restored = image::with_same_rows((engine, &at), &identity, rows, restored).await?;
    let restored = image::with_left_out((picture.info.left_out, &picture.info.classes), restored);
    build::forward_filled(context, step, (engine, &at), restored, generation, goal).await
}

/// Takes a snapshot of the source as the catalog knows it now. If the source is being changed at that moment, the step
/// is tried again later.
async fn snapshot_source(context: &StepContext, step: &ClaimedStep, source: &TenantRecord) -> Result<Snapshot> {
    let of_source = ClaimedStep { tenant: source.clone(), ..step.clone() };
    fence::require_unblocked(&of_source)?;
    of_source.require_state(&[TenantState::Active, TenantState::Suspended])?;
    let (engine, at) = context.current_database(source).await?;
    let expected = of_source.expected_identity(context.fleet_id(), &[fence::unfenced_tenant_state(source)]);
    let taken = engine.take_snapshot(&at, &expected).await;
    taken.map_err(|error| match error.kind() {
        tenant_engine::ErrorKind::Fenced => Error::from(error).mark_transient(),
        _ => error.into(),
    })
}
