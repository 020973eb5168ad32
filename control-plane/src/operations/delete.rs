//! delete: a final verified backup, a tombstone, and a date after which nothing is left.
//!
//! Until the tombstone is stamped the tenant serves; the database itself stays until the date. What is written between
//! backup and tombstone is therefore in the database that can still come back, though not in the final backup.

use async_trait::async_trait;
use catalog::tenants::Flip;
use catalog::{BackupId, Generation, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::IdentityState;

use super::{Effect, Fleet, Operation, Outcome, Plan, Seen, Step, Targets, fence, image, stamp};
use crate::error::{Error, Result};

/// The selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {
    /// Takes no final backup: the database can still be undeleted until its purge, and nothing is left after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_backup: bool,
}

const STATES: &[TenantState] = &[TenantState::Active, TenantState::Suspended, TenantState::Archived];

const TOMBSTONE: &str = "tombstone";

#[derive(Debug, Serialize, Deserialize)]
struct BackedUp {
    /// `None`: it was archived, with a backup of its own, or none was wanted.
    backup: Option<BackupId>,
    /// The tenant's then: another one later, and the backup may not be its last.
    generation: Generation,
}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "delete"
    }

    fn targets(&self) -> Targets {
        Targets::Selected(STATES)
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        if let Some(tenant) = seen.tenants.iter().find(|tenant| tenant.protected) {
            return Err(Error::new(409, "protected", format!("{} is protected from deletion", tenant.name))
                .try_next("lift the protection first, or leave the tenant out"));
        }
        let mut plan = Plan::default();
        for tenant in &seen.tenants {
            let what = if self.without_backup { "answers no more" } else { "is backed up, then answers no more" };
            plan.step(tenant.id, &tenant.name, || what.to_owned());
        }
        plan.notes.push("the databases stay on disk until their purge date".to_owned());
        if self.without_backup {
            plan.notes.push("no final backup is taken".to_owned());
        }
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        match step.phase.as_str() {
            "" => back_up(fleet, step, self.without_backup).await,
            TOMBSTONE => bury(fleet, step).await,
            _ => Err(step.unknown_phase()),
        }
        .into()
    }
}

async fn back_up(fleet: &Fleet, step: &Step, without: bool) -> Result<Outcome> {
    fence::require_unblocked(step)?;
    step.require_state(STATES)?;
    require_unprotected(step)?;
    fleet.point("delete: claimed").await;
    if without || step.tenant.state == TenantState::Archived {
        // An archived one has a backup, and no database.
        let facts = BackedUp { backup: None, generation: step.tenant.generation };
        return Ok(Outcome::next(TOMBSTONE, json!(facts)));
    }
    let expected = step.expected(fleet.id(), &[fence::at_rest(&step.tenant)]);
    let backup = image::take(fleet, step, &expected, "pre_delete").await.map_err(advise)?;
    image::prove(fleet, step, &backup).await.map_err(advise)?;
    fleet.point("delete: proved").await;
    let id = backup.id;
    Ok(Outcome::next(TOMBSTONE, json!(BackedUp { backup: Some(id), generation: step.tenant.generation }))
        .with(Effect::Backup(Box::new(backup)))
        .with(Effect::Verified { backup: id, error: None })
        .with(Effect::Event(step.event("backup.created", json!({"backup": id, "reason": "pre_delete"})))))
}

/// A full disk must be freed in some way, also when the final backup finds no room.
fn advise(mut error: Error) -> Error {
    if error.code == "disk_full" {
        error
            .detail
            .push_str("; to delete the tenant without a final backup: fleetctl tenant delete TENANT --no-backup");
    }
    error
}

fn require_unprotected(step: &Step) -> Result<()> {
    match step.tenant.protected {
        true => Err(Error::new(409, "protected", format!("{} was protected meanwhile", step.tenant.name))),
        false => Ok(()),
    }
}

async fn bury(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    let BackedUp { backup, generation } = step.facts()?;
    if generation != step.tenant.generation {
        return Ok(Outcome::next("", json!({})));
    }
    require_unprotected(step)?;
    fleet.point("delete: begins").await;
    if step.tenant.placement.is_some() {
        stamp::restamp(fleet, step, &[fence::at_rest(&step.tenant)], IdentityState::Tombstone).await?;
    }
    fleet.point("delete: stamped").await;
    let purge_after = step.now + fleet.config.purge_after_ms;
    let flip = Flip {
        state: Some(TenantState::Deleted),
        block_writes: Some(fence::asleep(step.tenant.state, step.tenant.block_writes)),
        purge_after: Some(Some(purge_after)),
        ..Flip::of(step.tenant.id, step.tenant.generation)
    };
    let facts = json!({"backup": backup, "purge_after": purge_after});
    Ok(Outcome::done(facts.clone()).with(Effect::Flip(flip)).with(Effect::Event(step.event("tenant.deleted", facts))))
}
