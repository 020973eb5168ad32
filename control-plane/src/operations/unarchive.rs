//! unarchive: the database of an archived tenant from its last backup, brought to the release of the day. A pinned
//! tenant comes back at the version that it was archived with, and stays pinned.

use async_trait::async_trait;
use catalog::tenants::Flip;
use catalog::{BackupId, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::build::{self, Goal};
use super::{Effect, Fleet, Operation, Outcome, Placements, Plan, Seen, Step, Targets, fence, newest, restore};
use crate::error::Result;

/// Nothing to say: the selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "unarchive"
    }

    fn targets(&self) -> Targets {
        Targets::Selected(&[TenantState::Archived])
    }

    fn placements(&self) -> Placements {
        Placements::Fresh
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let mut plan = Plan { release: seen.current_release, ..Plan::default() };
        for tenant in &seen.tenants {
            plan.step(tenant.id, &tenant.name, || "gets its database back from its last backup".to_owned());
        }
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        unarchive(fleet, step).await.into()
    }
}

async fn unarchive(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    step.require_state(&[TenantState::Archived])?;
    newest::require_none_since(fleet, step).await?;
    let backup = archived_with(fleet, step).await?;
    let source = build::Source { backup, tenant: step.tenant.id };
    let goal = match step.tenant.pin {
        Some(_) => Goal::Stay(step.tenant.release_id),
        None => Goal::Head(step.op.release_id.or(step.tenant.release_id)),
    };
    let fill = build::from_backup(fleet, step, source, step.tenant.generation.next(), goal);
    let mut built = build::ready(fleet, step, fence::at_rest(&step.tenant), goal, fill).await?;
    built.pin = step.tenant.pin;
    let state = fence::awake(&step.tenant);
    let facts = built.told(json!({"backup": backup, "state": state, "schema_version": built.schema_version}));
    let flip = Flip { state: Some(state), ..built.flip(step) };
    let event = step.event("tenant.unarchived", facts.clone());
    Ok(Outcome::done(facts).with(Effect::Flip(flip)).with(Effect::Event(event)))
}

/// The backup that it was archived with: by the audit log, which no clock orders. A log that was cut leaves the newest,
/// as an archived tenant is never backed up.
async fn archived_with(fleet: &Fleet, step: &Step) -> Result<BackupId> {
    let mut tx = fleet.catalog.read().await?;
    let data = catalog::events::latest(&mut tx, step.tenant.id, "tenant.archived").await?;
    let named = data.and_then(|data| serde_json::from_str::<Archived>(&data).ok()).map(|archived| archived.backup);
    if let Some(named) = named {
        return Ok(named);
    }
    let newest = catalog::backups::newest(&mut tx, step.tenant.id, None).await?;
    newest.map(|newest| newest.id).ok_or_else(|| restore::not_found(&step.tenant.name))
}

/// What the audit log says of it.
#[derive(Deserialize)]
struct Archived {
    backup: BackupId,
}
