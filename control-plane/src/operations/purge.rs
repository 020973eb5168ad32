//! purge: the end of a deleted tenant. Its database and those kept of it are dropped; the row and the names stay, so
//! that no name ever leads to somebody else. Backups end with their own retention.

use async_trait::async_trait;
use catalog::TenantState;
use catalog::tenants::Flip;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{ErrorKind, IdentityState};

use super::kept::drop_kept;
use super::{Effect, Fleet, Operation, Outcome, Plan, Seen, Step, Targets};
use crate::error::{Error, Result};

/// The selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {
    /// Only those whose time for an undelete is over, also when it is tried again later.
    #[serde(default)]
    pub due: bool,
}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "purge"
    }

    fn targets(&self) -> Targets {
        Targets::Selected(&[TenantState::Deleted])
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let mut plan = Plan::default();
        for tenant in &seen.tenants {
            plan.step(tenant.id, &tenant.name, || "its databases are dropped, for good".to_owned());
        }
        let early = seen.tenants.iter().filter(|tenant| tenant.purge_after.is_some_and(|at| at > seen.now)).count();
        if early > 0 {
            plan.notes.push(format!("{early} of them could still be undeleted"));
        }
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        purge(fleet, step, self.due).await.into()
    }
}

async fn purge(fleet: &Fleet, step: &Step, due: bool) -> Result<Outcome> {
    step.require_state(&[TenantState::Deleted])?;
    if due && step.tenant.purge_after.is_none_or(|at| at > step.now) {
        return Err(Error::new(409, "conflict", format!("{} can still be undeleted", step.tenant.name)));
    }
    fleet.point("purge: claimed").await;
    let kept = catalog::retained::of_tenant(&mut fleet.catalog.read().await?, step.tenant.id).await?;
    let flip = Flip {
        state: Some(TenantState::Purged),
        placement: Some(None),
        purge_after: Some(None),
        ..Flip::of(step.tenant.id, step.tenant.generation)
    };
    let event = step.event("tenant.purged", json!({"databases": kept.len() + 1}));
    let mut outcome = Outcome::done(json!({})).with(Effect::Flip(flip)).with(Effect::Event(event));
    // The current one last: what stops a purge leaves a tenant that can still be undeleted.
    for record in kept {
        drop_kept(fleet, &record).await?;
        fleet.point("purge: dropped a kept one").await;
        outcome = outcome.with(Effect::Unretain { server: record.server_id, placement: record.placement });
    }
    drop_current(fleet, step).await?;
    fleet.point("purge: dropped").await;
    Ok(outcome)
}

/// Only with the tombstone in it; one that nobody can read any more is nobody's loss. One that came back stays: an undelete
/// that was given up may have stamped it, or one that this catalog does not know of, and then it serves.
async fn drop_current(fleet: &Fleet, step: &Step) -> Result<()> {
    if step.tenant.placement.is_none() {
        return Ok(());
    }
    let (engine, at) = fleet.current(&step.tenant).await?;
    let expected = step.expected(fleet.id(), &[IdentityState::Tombstone]);
    match engine.drop_database(&at, Some(&expected)).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(engine.drop_database(&at, None).await?),
        Err(error) if error.kind() == ErrorKind::Fenced => {
            let name = &step.tenant.name;
            let detail = format!("the database of {name} is no deleted one by what it says: {error}");
            Err(Error::new(409, "fenced", detail).try_next(format!("fleetctl tenant settle {name} --newest")))
        }
        dropped => Ok(dropped?),
    }
}
