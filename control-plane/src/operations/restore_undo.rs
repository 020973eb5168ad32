//! restore undo: the only operation that returns to an old placement, that of the database which the last restore
//! replaced.
//!
//! *prepare* checks the retained database and stamps it `building`; it does not serve yet. *freeze* stops writers of the
//! current database. *swap* stamps both and updates the catalog. The database that was current is retained in turn, so
//! that an undo can be undone. The old database keeps its own schema, and the tenant gets back the pin that belonged to
//! it.

use async_trait::async_trait;
use catalog::replacements::{ReplacementKind, ReplacementRecord};
use catalog::retained::{RetainedReason, RetainedRecord};
use catalog::{Generation, ReadTx, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{IdentityState, InspectionDepth};

use super::schema_pin::{PreviousSchema, version_text};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{ClaimedStep, FleetOperation, OperationTargets, PhaseOutcome, PlanInput, StepContext, StepPlan};
use crate::replacement::build::{self, BuiltDatabase, SchemaGoal};
use crate::replacement::swap::{self, SwapFacts, SwapTimes};
use crate::replacement::{act, fence, roll_back, state};

/// The parameters of an undo. The selection names exactly one tenant.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RestoreUndoParams {
    /// The placement of the newest retained database at submission. Filled at submission.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub placement: Option<String>,
}

const STATES: &[TenantState] = &[TenantState::Active, TenantState::Suspended];

const FREEZE: &str = "freeze";
const SWAP: &str = "swap";

#[async_trait]
impl FleetOperation for RestoreUndoParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::One(STATES)
    }

    async fn load_for_page(&mut self, tx: &mut ReadTx, seen: &mut PlanInput) -> Result<()> {
        if let Some(tenant) = seen.tenants.first() {
            let before = tenant.generation;
            let replaced = RetainedReason::Restore;
            seen.retained.extend(catalog::retained::newest_retained(tx, tenant.id, replaced, before).await?);
            self.placement = seen.retained.first().map(|kept| kept.placement.clone());
        }
        Ok(())
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        let tenant = seen.tenants.first().ok_or_else(|| Error::internal("an undo is about one tenant"))?;
        let kept = seen.retained.first().ok_or_else(|| nothing_to_undo(&tenant.name))?;
        let replaced_at =
            jiff::Timestamp::from_millisecond(kept.created_at).map(|at| at.to_string()).unwrap_or_default();
        plan.add_step(tenant.id, &tenant.name, || {
            format!("returns to the database that was replaced at {replaced_at}")
        });
        plan.notes.push("the database that is current now is retained in turn".to_owned());
        if kept.schema_version < tenant.schema_version {
            let (then, now) = (version_text(kept.schema_version), version_text(tenant.schema_version));
            plan.notes.push(format!("its schema stays at {then}, and the tenant, at {now} now, is pinned there"));
        }
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        match step.phase.as_str() {
            "" => self.prepare_undo(context, step).await,
            FREEZE => freeze_for_undo(context, step).await,
            SWAP => swap::swap_databases(context, step, undone_event).await,
            roll_back::ROLL_BACK => roll_back::roll_back(context, step).await,
            _ => Err(step.unknown_phase()),
        }
        .into()
    }

    async fn give_up(&self, context: &StepContext, step: &ClaimedStep, error: Error) -> PhaseOutcome {
        roll_back::roll_back_phase(context, step, error).await
    }
}

impl RestoreUndoParams {
    async fn prepare_undo(&self, context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
        fence::require_unawaited(context, step).await?;
        step.require_state(STATES)?;
        let all = catalog::retained::of_tenant(&mut context.catalog.read().await?, step.tenant.id).await?;
        let kept = all.into_iter().find(|kept| Some(&kept.placement) == self.placement.as_ref());
        prepare_retained(context, step, kept.ok_or_else(|| nothing_to_undo(&step.tenant.name))?).await
    }
}

async fn prepare_retained(context: &StepContext, step: &ClaimedStep, kept: RetainedRecord) -> Result<PhaseOutcome> {
    let (engine, at) = context.resolve_placement(kept.server_id, &kept.placement).await?;
    context.fault_point("undo: claimed").await;
    let generation = state::after_swap(step.tenant.generation);
    let building = step.expected_at(context.fleet_id(), generation, &[IdentityState::Building]);
    if engine.inspect_database(&at, Some(&building), InspectionDepth::Ledger).await.is_err() {
        prepare_for_undo(context, step, &kept, generation).await?;
    }
    context.fault_point("undo: building").await;
    let goal = SchemaGoal::Stay(step.tenant.release_id);
    let (schema_version, release) =
        build::forward_schema(context, engine, &at, &building, goal, kept.schema_version).await?;
    let pin = kept.pin.or(PreviousSchema::from_database(context, &step.tenant).await?.pin_at(schema_version, step));
    context.fault_point("undo: looked at").await;
    let size_bytes = engine.database_size(&at).await?;
    let (placement, server) = (kept.placement, Some(kept.server_id));
    Ok(PhaseOutcome::next_phase(
        FREEZE,
        json!(BuiltDatabase {
            placement,
            server,
            generation,
            schema_version,
            release,
            size_bytes,
            pin,
            left_out: Vec::new()
        }),
    ))
}

/// Checks that the retained database is sound and stamps it `building`. Every state that an earlier attempt may have
/// left is accepted, because the database is this tenant's and serves nobody.
async fn prepare_for_undo(
    context: &StepContext,
    step: &ClaimedStep,
    kept: &RetainedRecord,
    generation: Generation,
) -> Result<()> {
    let (engine, at) = context.resolve_placement(kept.server_id, &kept.placement).await?;
    let found = engine.inspect_database(&at, None, InspectionDepth::Full).await?;
    if let Some(problem) = found.problems.first() {
        return Err(Error::new(ErrorKind::DatabaseCorrupt, format!("the retained database is damaged: {problem}"))
            .try_next(format!("fleetctl restore run {} --to latest", step.tenant.name)));
    }
    if step.tenant.placement.as_deref() == Some(kept.placement.as_str()) {
        return Err(Error::internal("the retained database is the current one"));
    }
    if found.identity.generation >= generation {
        // Another worker took it out, for this undo or a later one. It may serve by now.
        let detail =
            format!("{} was changed during the undo, or the catalog is older than its databases", step.tenant.name);
        return Err(Error::new(ErrorKind::Conflict, detail)
            .try_next(format!("fleetctl tenant repair {} --use-current, and the undo once more", step.tenant.name)));
    }
    // Active: an undo stamped it, died before the catalog was updated, and was cancelled.
    let states = [IdentityState::Moved, IdentityState::Frozen, IdentityState::Building, IdentityState::Active];
    let expected = step.expected_at(context.fleet_id(), found.identity.generation, &states);
    engine
        .stamp_identity(
            &at,
            &expected,
            &step.identity_to_stamp(context.fleet_id(), generation, IdentityState::Building),
        )
        .await?;
    Ok(())
}

async fn freeze_for_undo(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    let built: BuiltDatabase = step.parse_facts()?;
    step.require_state(STATES)?;
    if built.generation != state::after_swap(step.tenant.generation) {
        return Ok(PhaseOutcome::next_phase("", json!({})));
    }
    context.fault_point("undo: freezes").await;
    let new = state::new_database(&built, step);
    let open = act::fence_current(context, step, ReplacementKind::Undo, Some(new)).await?;
    context.fault_point("undo: frozen").await;
    Ok(state::fenced_outcome(step, SWAP, json!(SwapFacts::default()), open))
}

fn undone_event(_: &ClaimedStep, open: &ReplacementRecord, times: SwapTimes) -> (&'static str, serde_json::Value) {
    let new = open.new.as_ref();
    let (version, pinned) = (new.and_then(|new| new.schema_version), new.is_some_and(|new| new.pin.is_some()));
    let facts = json!({"schema_version": version, "pinned": pinned, "frozen_ms": times.frozen_ms});
    ("tenant.restore_undone", facts)
}

fn nothing_to_undo(name: &str) -> Error {
    Error::new(ErrorKind::NothingToUndo, format!("no replaced database of {name} is retained"))
        .try_next(format!("fleetctl backup list {name}"))
}
