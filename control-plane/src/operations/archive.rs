//! archive: only a verified backup is left of a tenant, and its next request wakes it.
//!
//! *freeze* stops writers, so that the backup holds everything; *back up* takes and proves it, and lets the tenant
//! serve again if that fails; *bury* stamps a tombstone and takes the database out of the catalog, which keeps it for a
//! moment; *drop* removes it.

use async_trait::async_trait;
use catalog::retained::RetainedRecord;
use catalog::tenants::Flip;
use catalog::{BackupId, Generation, ServerId, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{Depth, ErrorKind, IdentityState};

use super::fence::{self, Fence};
use super::{Effect, Fleet, Operation, Outcome, Plan, Seen, Step, Targets, image, stamp, thaw};
use crate::error::{Error, Result};

/// Nothing to say: the selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {}

const BACK_UP: &str = "back_up";
const BURY: &str = "bury";
const DROP: &str = "drop";

/// Why the catalog keeps the database between its burial and its end.
const RETAINED: &str = "archive";

#[derive(Debug, Serialize, Deserialize)]
struct BackedUp {
    #[serde(flatten)]
    fence: Fence,
    backup: BackupId,
}

#[derive(Debug, Serialize, Deserialize)]
struct Buried {
    backup: BackupId,
    /// Of its tombstone.
    generation: Generation,
    server: ServerId,
    placement: String,
}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "archive"
    }

    fn targets(&self) -> Targets {
        Targets::Selected(&[TenantState::Active, TenantState::Suspended])
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let mut plan = Plan::default();
        for tenant in &seen.tenants {
            plan.step(tenant.id, &tenant.name, || "is backed up, then its database is dropped".to_owned());
        }
        plan.notes
            .push("the next request of a member brings it back, within seconds to minutes by its size".to_owned());
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        match step.phase.as_str() {
            "" => freeze(fleet, step).await,
            BACK_UP => back_up_or_thaw(fleet, step).await,
            BURY => bury_or_thaw(fleet, step).await,
            DROP => drop_buried(fleet, step).await,
            thaw::THAW => thaw::thaw(fleet, step).await,
            _ => Err(step.unknown_phase()),
        }
        .into()
    }

    async fn give_up(&self, fleet: &Fleet, step: &Step, error: Error) -> Outcome {
        thaw::give_up_phase(fleet, step, error).await
    }
}

async fn freeze(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    fence::require_unblocked(step)?;
    step.require_state(&[TenantState::Active, TenantState::Suspended])?;
    fleet.point("archive: claimed").await;
    let fence = fence::freeze_sound(fleet, step).await?;
    fleet.point("archive: frozen").await;
    Ok(Outcome::next(BACK_UP, json!(fence)).with(Effect::Flip(fence::block(step))))
}

async fn back_up_or_thaw(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    let fence: Fence = step.facts()?;
    if !fence::stands(step, &fence) {
        return Ok(Outcome::next("", json!({})));
    }
    match back_up(fleet, step, &fence).await {
        Err(error) => thaw::give_up(step, &fence, None, error),
        done => done,
    }
}

async fn back_up(fleet: &Fleet, step: &Step, fence: &Fence) -> Result<Outcome> {
    let expected = step.expected(fleet.id(), &[IdentityState::Frozen]);
    let backup = image::take(fleet, step, &expected, "pre_archive").await?;
    image::prove(fleet, step, &backup).await?;
    fleet.point("archive: proved").await;
    let id = backup.id;
    let facts = json!(BackedUp { fence: fence.clone(), backup: id });
    Ok(Outcome::next(BURY, facts)
        .with(Effect::Backup(Box::new(backup)))
        .with(Effect::Verified { backup: id, error: None })
        .with(Effect::Event(step.event("backup.created", json!({"backup": id, "reason": "pre_archive"})))))
}

async fn bury_or_thaw(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    let BackedUp { fence, backup } = step.facts()?;
    if !fence::stands(step, &fence) {
        // It was written to since the backup.
        return Ok(Outcome::next("", json!({})));
    }
    match bury(fleet, step, &fence, backup).await {
        Err(error) => thaw::give_up(step, &fence, None, error),
        done => done,
    }
}

async fn bury(fleet: &Fleet, step: &Step, fence: &Fence, backup: BackupId) -> Result<Outcome> {
    stamp::restamp(fleet, step, &[IdentityState::Frozen], IdentityState::Tombstone).await?;
    fleet.point("archive: stamped").await;
    let now = fleet.catalog.now();
    let placement = step.tenant.placement.clone().unwrap_or_default();
    let flip = Flip {
        state: Some(TenantState::Archived),
        block_writes: Some(fence::asleep(step.tenant.state, fence.block())),
        placement: Some(None),
        reason: Some(fence.reason().map(str::to_owned)),
        ..Flip::of(step.tenant.id, step.tenant.generation)
    };
    let kept = RetainedRecord {
        tenant_id: step.tenant.id,
        server_id: step.tenant.server_id,
        placement: placement.clone(),
        generation: step.tenant.generation.next(),
        reason: RETAINED.to_owned(),
        op_id: step.op.id,
        schema_version: step.tenant.schema_version,
        pin: step.tenant.pin,
        created_at: now,
        keep_until: now + 1,
    };
    let generation = step.tenant.generation.next();
    let facts = json!(Buried { backup, generation, server: step.tenant.server_id, placement });
    Ok(Outcome::next(DROP, facts)
        .with(Effect::Flip(flip))
        .with(Effect::Retain(kept))
        .with(Effect::Event(step.event("tenant.archived", json!({"backup": backup})))))
}

async fn drop_buried(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    let Buried { backup, generation, server, placement } = step.facts()?;
    let (engine, at) = fleet.at(server, &placement).await?;
    let expected = step.expected_at(fleet.id(), generation, &[IdentityState::Tombstone]);
    if let Err(error) = engine.drop_database(&at, Some(&expected)).await {
        // What is gone is dropped, whatever was heard of it.
        let found = engine.inspect(&at, None, Depth::Ledger).await;
        if found.err().is_none_or(|found| found.kind() != ErrorKind::Missing) {
            return Err(error.into());
        }
    }
    fleet.point("archive: dropped").await;
    Ok(Outcome::done(json!({"backup": backup})).with(Effect::Unretain { server, placement }))
}
