//! backup: a picture of each tenant in the backup store, its manifest written last; at the end one of the catalog too.

use async_trait::async_trait;
use catalog::TenantState;
use catalog::backups::BackupRecord;
use catalog::operations::OperationRecord;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Effect, Fleet, Operation, Outcome, Plan, Seen, Step, Targets, Verdict, catalog_copy, fence, image};
use crate::error::Result;

/// Nothing to say yet: the selection says which tenants, the submission says why.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "backup"
    }

    fn targets(&self) -> Targets {
        Targets::Selected(&[TenantState::Active, TenantState::Suspended])
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let mut plan = Plan::default();
        for tenant in &seen.tenants {
            plan.step(tenant.id, &tenant.name, || "is backed up".to_owned());
        }
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        take(fleet, step).await.into()
    }

    async fn close(&self, fleet: &Fleet, record: &OperationRecord) -> Result<()> {
        catalog_copy::store_if_due(fleet, record).await
    }
}

async fn take(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    fence::require_unblocked(step)?;
    let expected = step.expected(fleet.id(), &[fence::at_rest(&step.tenant)]);
    let record = image::take(fleet, step, &expected, "manual").await?;
    let proof = prove_first(fleet, step, &record).await?;
    let left_out = proof.as_ref().and_then(|proof| proof.as_ref().ok()).filter(|left_out| !left_out.is_empty());
    let mut facts = json!({"backup": record.id, "size_bytes": record.size_bytes, "stored_bytes": record.stored_bytes});
    if let Some(left_out) = left_out {
        facts["left_out"] = json!(left_out);
    }
    let backup = record.id;
    let mut outcome = Outcome::done(facts.clone())
        .with(Effect::Backup(Box::new(record)))
        .with(Effect::Event(step.event("backup.created", facts)));
    // Of the database: a snapshot of Postgres has another size.
    outcome.effects.extend(fleet.measured(&step.tenant).await);
    Ok(match proof {
        None => outcome,
        Some(Ok(_)) => outcome.with(Effect::Verified { backup, error: None }),
        Some(Err(error)) => {
            let outcome = outcome.with(Effect::Verified { backup, error: Some(error.to_string()) });
            Outcome { verdict: Verdict::Failed(error), ..outcome }
        }
    })
}

/// The first backup of a tenant at a version is proved at once: one that no server can restore is told while the
/// database is still there. It stays in the store, as what there is.
async fn prove_first(fleet: &Fleet, step: &Step, record: &BackupRecord) -> Result<Option<Result<Vec<String>>>> {
    if !image::is_unproved(fleet, record).await? {
        return Ok(None);
    }
    match image::prove(fleet, step, record).await {
        // Says nothing about the backup; the next one is proved instead.
        Err(error) if error.transient => Ok(None),
        proof => Ok(Some(proof)),
    }
}
