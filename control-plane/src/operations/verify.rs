//! verify: downloads backups, checks hashes, and restores them into scratch space, where pages, foreign keys and
//! identity are checked as in a restore.

use std::collections::BTreeMap;

use async_trait::async_trait;
use catalog::backups::BackupRecord;
use catalog::{BackupId, ReadTx, TenantId, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Effect, Fleet, Operation, Outcome, Plan, Scope, Seen, Step, Targets, Verdict, image};
use crate::error::{Error, Result};
use crate::operations::Prepared;

/// Backups named in one request: they are stored in the operation's row.
pub const BACKUPS_MAX: usize = 1_000;

/// States in which a tenant may have backups.
const STATES: &[TenantState] =
    &[TenantState::Active, TenantState::Suspended, TenantState::Archived, TenantState::Deleted];

/// Which backups.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {
    /// These, at most [`BACKUPS_MAX`]; empty: the newest of each selected tenant.
    #[serde(default)]
    pub backups: Vec<BackupId>,
}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "verify"
    }

    fn targets(&self) -> Targets {
        if self.backups.is_empty() { Targets::Selected(STATES) } else { Targets::Own }
    }

    async fn prepare(&self, _fleet: &Fleet, _scope: Scope) -> Result<Prepared> {
        if self.backups.len() > BACKUPS_MAX {
            return Err(Error::new(422, "invalid", format!("at most {BACKUPS_MAX} backups can be named at once"))
                .try_next("select their tenants instead"));
        }
        Ok(Prepared::default())
    }

    async fn look(&mut self, tx: &mut ReadTx, seen: &mut Seen) -> Result<()> {
        let mut owners: BTreeMap<TenantId, Vec<BackupRecord>> = BTreeMap::new();
        for id in &self.backups {
            let found =
                catalog::backups::get(tx, *id).await?.ok_or_else(|| super::restore::not_found(&id.to_string()))?;
            owners.entry(found.tenant_id).or_default().push(found);
        }
        let ids: Vec<TenantId> = owners.keys().copied().collect();
        if !ids.is_empty() {
            seen.tenants = catalog::tenants::get_many(tx, &ids).await?;
            seen.backups = owners.into_iter().collect();
        }
        Ok(())
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let mut plan = Plan::default();
        for tenant in &seen.tenants {
            let named = seen.backups.get(&tenant.id).map_or(0, Vec::len);
            plan.step(tenant.id, &tenant.name, || match named {
                0 => "its newest backup is verified".to_owned(),
                some => format!("{some} of its backups are verified"),
            });
        }
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        self.verify(fleet, step).await.into()
    }
}

impl Params {
    async fn verify(&self, fleet: &Fleet, step: &Step) -> Result<Outcome> {
        let (mut effects, mut worst, mut proved, mut left_out) = (Vec::new(), None, Vec::new(), Vec::new());
        for backup in self.of_tenant(fleet, step).await? {
            let error = match image::prove(fleet, step, &backup).await {
                Ok(found) => {
                    left_out.extend(found);
                    None
                }
                // Says nothing about the backup.
                Err(error) if error.transient => return Err(error),
                Err(error) => Some(error),
            };
            effects.push(Effect::Verified { backup: backup.id, error: error.as_ref().map(ToString::to_string) });
            match error {
                Some(error) => worst = worst.or(Some(error)),
                None => proved.push(backup.id),
            }
        }
        let verdict =
            worst.map_or_else(|| Verdict::Done(json!({"verified": proved, "left_out": left_out})), Verdict::Failed);
        Ok(Outcome { verdict, effects })
    }

    async fn of_tenant(&self, fleet: &Fleet, step: &Step) -> Result<Vec<BackupRecord>> {
        let mut tx = fleet.catalog.read().await?;
        if self.backups.is_empty() {
            let newest = catalog::backups::newest(&mut tx, step.tenant.id, None).await?;
            return newest.map(|backup| vec![backup]).ok_or_else(|| super::restore::not_found(&step.tenant.name));
        }
        let mut found = Vec::new();
        for id in &self.backups {
            found.extend(catalog::backups::get(&mut tx, *id).await?.filter(|b| b.tenant_id == step.tenant.id));
        }
        Ok(found)
    }
}
