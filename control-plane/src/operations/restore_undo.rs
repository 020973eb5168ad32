//! restore undo: the one allowed return to an old placement, the database that the last restore replaced.
//!
//! *prepare* looks into the kept database and takes it out of its fence, still not to be served; *freeze* stops writers
//! of the current one; *swap* stamps and flips. The database that was current is kept in its place, so that an undo can
//! be undone. It comes back with its own schema, and with the pin that the tenant had with it.

use async_trait::async_trait;
use catalog::retained::RetainedRecord;
use catalog::{Generation, ReadTx, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{Depth, IdentityState};

use super::build::{self, Built, Goal};
use super::fence;
use super::pin::{Before, version_text};
use super::swap::{self, RETAINED, Swap, Times, Why};
use super::{Effect, Fleet, Operation, Outcome, Plan, Seen, Step, Targets, thaw};
use crate::error::{Error, Result};

/// The selection names exactly one tenant.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {
    /// The kept database that was the last one at submission; filled there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub placement: Option<String>,
}

const STATES: &[TenantState] = &[TenantState::Active, TenantState::Suspended];

const FREEZE: &str = "freeze";
const SWAP: &str = "swap";

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "restore_undo"
    }

    fn targets(&self) -> Targets {
        Targets::One(STATES)
    }

    async fn look(&mut self, tx: &mut ReadTx, seen: &mut Seen) -> Result<()> {
        if let Some(tenant) = seen.tenants.first() {
            let before = tenant.generation;
            seen.retained.extend(catalog::retained::newest(tx, tenant.id, RETAINED, before).await?);
            self.placement = seen.retained.first().map(|kept| kept.placement.clone());
        }
        Ok(())
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let tenant = seen.tenants.first().ok_or_else(|| Error::internal("an undo is about one tenant"))?;
        let kept = seen.retained.first().ok_or_else(|| nothing(&tenant.name))?;
        let until = jiff::Timestamp::from_millisecond(kept.created_at).map(|at| at.to_string()).unwrap_or_default();
        let mut plan = Plan::default();
        plan.step(tenant.id, &tenant.name, || format!("returns to the database that was replaced at {until}"));
        plan.notes.push("the database that is current now is kept in its place".to_owned());
        if kept.schema_version < tenant.schema_version {
            let (then, now) = (version_text(kept.schema_version), version_text(tenant.schema_version));
            plan.notes.push(format!("its schema stays at {then}, and the tenant, at {now} now, is pinned there"));
        }
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        match step.phase.as_str() {
            "" => self.prepare(fleet, step).await,
            FREEZE => freeze(fleet, step).await,
            SWAP => swap::exchange(fleet, step, told).await,
            thaw::THAW => thaw::thaw(fleet, step).await,
            _ => Err(step.unknown_phase()),
        }
        .into()
    }

    async fn give_up(&self, fleet: &Fleet, step: &Step, error: Error) -> Outcome {
        thaw::give_up_phase(fleet, step, error).await
    }
}

impl Params {
    async fn prepare(&self, fleet: &Fleet, step: &Step) -> Result<Outcome> {
        fence::require_unawaited(fleet, step).await?;
        step.require_state(STATES)?;
        let all = catalog::retained::of_tenant(&mut fleet.catalog.read().await?, step.tenant.id).await?;
        let kept = all.into_iter().find(|kept| Some(&kept.placement) == self.placement.as_ref());
        prepare(fleet, step, kept.ok_or_else(|| nothing(&step.tenant.name))?).await
    }
}

async fn prepare(fleet: &Fleet, step: &Step, kept: RetainedRecord) -> Result<Outcome> {
    let (engine, at) = fleet.at(kept.server_id, &kept.placement).await?;
    fleet.point("undo: claimed").await;
    let generation = swap::after_swap(step.tenant.generation);
    let building = step.expected_at(fleet.id(), generation, &[IdentityState::Building]);
    if engine.inspect(&at, Some(&building), Depth::Ledger).await.is_err() {
        take_out(fleet, step, &kept, generation).await?;
    }
    fleet.point("undo: building").await;
    let goal = Goal::Stay(step.tenant.release_id);
    let (schema_version, release) = build::forward(fleet, engine, &at, &building, goal, kept.schema_version).await?;
    let pin = kept.pin.or(Before::read(fleet, &step.tenant).await?.pin(schema_version, step));
    fleet.point("undo: looked at").await;
    let size_bytes = engine.size(&at).await?;
    let (placement, server) = (kept.placement, Some(kept.server_id));
    Ok(Outcome::next(
        FREEZE,
        json!(Built { placement, server, generation, schema_version, release, size_bytes, pin, left_out: Vec::new() }),
    ))
}

/// Makes sure that the kept database is sound and stamps it `building`. Whatever state an earlier attempt left it in,
/// it is this tenant's and nobody serves it.
async fn take_out(fleet: &Fleet, step: &Step, kept: &RetainedRecord, generation: Generation) -> Result<()> {
    let (engine, at) = fleet.at(kept.server_id, &kept.placement).await?;
    let found = engine.inspect(&at, None, Depth::Full).await?;
    if let Some(problem) = found.problems.first() {
        return Err(Error::new(409, "database_corrupt", format!("the kept database is damaged: {problem}"))
            .try_next(format!("fleetctl restore run {} --to latest", step.tenant.name)));
    }
    if step.tenant.placement.as_deref() == Some(kept.placement.as_str()) {
        return Err(Error::internal("the kept database is the current one"));
    }
    if found.identity.generation >= generation {
        // It was taken out for this undo, or a later one, by another worker; it may serve by now.
        let detail =
            format!("{} was changed during the undo, or the catalog is older than its databases", step.tenant.name);
        return Err(Error::new(409, "conflict", detail)
            .try_next(format!("fleetctl tenant settle {} --back, and the undo once more", step.tenant.name)));
    }
    // Active: an undo stamped it, died before the catalog heard of it, and was cancelled.
    let states = [IdentityState::Moved, IdentityState::Frozen, IdentityState::Building, IdentityState::Active];
    let expected = step.expected_at(fleet.id(), found.identity.generation, &states);
    engine.stamp(&at, &expected, &step.identity(fleet.id(), generation, IdentityState::Building)).await?;
    Ok(())
}

async fn freeze(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    let built: Built = step.facts()?;
    step.require_state(STATES)?;
    if built.generation != swap::after_swap(step.tenant.generation) {
        return Ok(Outcome::next("", json!({})));
    }
    fleet.point("undo: freezes").await;
    let fence = fence::freeze(fleet, step).await?;
    fleet.point("undo: frozen").await;
    Ok(Outcome::next(SWAP, json!(Swap { built, fence, why: Why::Undo })).with(Effect::Flip(fence::block(step))))
}

fn told(_: &Step, swap: &Swap, times: Times) -> (&'static str, serde_json::Value) {
    let (version, pinned) = (swap.built.schema_version, swap.built.pin.is_some());
    let facts = json!({"schema_version": version, "pinned": pinned, "frozen_ms": times.frozen_ms});
    ("tenant.restore_undone", facts)
}

fn nothing(name: &str) -> Error {
    Error::new(404, "nothing_to_undo", format!("no database that a restore replaced is kept for {name}"))
        .try_next(format!("fleetctl backup list {name}"))
}
