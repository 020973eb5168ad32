//! verify: downloads backups, checks hashes, and restores them into scratch space. There pages, foreign keys and
//! identity are checked as in a restore.

use std::collections::BTreeMap;

use async_trait::async_trait;
use catalog::backups::BackupRecord;
use catalog::{BackupId, ReadTx, TenantId, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, ErrorKind, Result};
use crate::operation::{
    CatalogEffect, ClaimedStep, FleetOperation, OperationTargets, PhaseOutcome, PlanInput, PreparedSubmission,
    StepContext, StepPlan, StepVerdict, SubmissionScope,
};
use crate::replacement::build::{backup_not_found, unlisted_backup};
use crate::replacement::image;

/// Maximum number of backups named in one request, because the operation's row stores them.
pub const BACKUPS_MAX: usize = 1_000;

/// States in which a tenant may have backups.
const STATES: &[TenantState] =
    &[TenantState::Active, TenantState::Suspended, TenantState::Archived, TenantState::Deleted];

/// The parameters of a verification.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct VerifyParams {
    /// The backups to verify, at most [`BACKUPS_MAX`]. Empty: the newest backup of each selected tenant.
    #[serde(default)]
    pub backups: Vec<BackupId>,
}

#[async_trait]
impl FleetOperation for VerifyParams {
    fn target_tenants(&self) -> OperationTargets {
        if self.backups.is_empty() { OperationTargets::Selected(STATES) } else { OperationTargets::Own }
    }

    async fn prepare_submission(&self, _context: &StepContext, _scope: SubmissionScope) -> Result<PreparedSubmission> {
        if self.backups.len() > BACKUPS_MAX {
            return Err(Error::new(ErrorKind::Invalid, format!("at most {BACKUPS_MAX} backups can be named at once"))
                .try_next("select their tenants instead"));
        }
        Ok(PreparedSubmission::default())
    }

    async fn load_for_page(&mut self, tx: &mut ReadTx, seen: &mut PlanInput) -> Result<()> {
        let mut owners: BTreeMap<TenantId, Vec<BackupRecord>> = BTreeMap::new();
        for id in &self.backups {
            let found = catalog::backups::get(tx, *id).await?.ok_or_else(|| unlisted_backup(*id))?;
            owners.entry(found.tenant_id).or_default().push(found);
        }
        let ids: Vec<TenantId> = owners.keys().copied().collect();
        // Named backups determine their tenants. There are at most as many as fit one page.
        if !ids.is_empty() {
            seen.tenants = catalog::tenants::get_many(tx, &ids).await?;
            seen.backups = owners.into_iter().collect();
        }
        Ok(())
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        for tenant in &seen.tenants {
            let named = seen.backups.get(&tenant.id).map_or(0, Vec::len);
            plan.add_step(tenant.id, &tenant.name, || match named {
                0 => "its newest backup is verified".to_owned(),
                some => format!("{some} of its backups are verified"),
            });
        }
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        self.verify_backups(context, step).await.into()
    }
}

impl VerifyParams {
    async fn verify_backups(&self, context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
        let (mut effects, mut worst, mut proved, mut left_out) = (Vec::new(), None, Vec::new(), Vec::new());
        for backup in self.of_tenant(context, step).await? {
            let error = match image::prove_backup(context, step, &backup).await {
                Ok(found) => {
                    left_out.extend(found);
                    None
                }
                // Such an error says nothing about the backup.
                Err(error) if error.transient || error.kind == ErrorKind::BackupElsewhere => return Err(error),
                Err(error) => Some(error),
            };
            effects.push(CatalogEffect::Verified { backup: backup.id, error: error.as_ref().map(ToString::to_string) });
            match error {
                Some(error) => worst = worst.or(Some(error)),
                None => proved.push(backup.id),
            }
        }
        let verdict = worst
            .map_or_else(|| StepVerdict::Done(json!({"verified": proved, "left_out": left_out})), StepVerdict::Failed);
        Ok(PhaseOutcome { verdict, effects })
    }

    async fn of_tenant(&self, context: &StepContext, step: &ClaimedStep) -> Result<Vec<BackupRecord>> {
        let mut tx = context.catalog.read().await?;
        if self.backups.is_empty() {
            let newest = catalog::backups::newest_backup(&mut tx, step.tenant.id, None).await?;
            return newest.map(|backup| vec![backup]).ok_or_else(|| backup_not_found(&step.tenant.name));
        }
        let mut found = Vec::new();
        for id in &self.backups {
            found.extend(catalog::backups::get(&mut tx, *id).await?.filter(|b| b.tenant_id == step.tenant.id));
        }
        Ok(found)
    }
}
