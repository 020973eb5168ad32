//! backup: a picture of each tenant in the backup store, its manifest written last; at the end one of the catalog too.

use async_trait::async_trait;
use catalog::TenantState;
use catalog::backups::BackupRecord;
use catalog::operations::OperationRecord;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::Image;

use super::{Effect, Fleet, Operation, Outcome, Plan, Seen, Step, Targets, Verdict, fence, image};
use crate::backup::{Key, manifest};
use crate::error::{Error, Result};

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
        store_catalog(fleet, record).await
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

/// The catalog says which tenant is called what and where its backups are: without it the backups have no names. Once
/// per run, after the steps, so that it lists what the run made.
async fn store_catalog(fleet: &Fleet, record: &OperationRecord) -> Result<()> {
    let unwritable = |error: std::io::Error| {
        Error::new(500, "io", "the scratch directory cannot be written").with_source(error).transient()
    };
    // A directory, because the picture is written to a name that must not exist yet.
    let folder = tempfile::Builder::new().prefix("catalog-").tempdir_in(&fleet.scratch).map_err(unwritable)?;
    let path = folder.path().join("catalog.db");
    let taken_at_ms = fleet.catalog.now();
    fleet.catalog.snapshot_to(&path).await?;
    let key = Key::of_catalog(fleet.id(), taken_at_ms, record.id);
    let picture = Image::File(tempfile::TempPath::try_from_path(&path).map_err(unwritable)?);
    let stored = fleet.store.put_image(&key, &picture).await?;
    let manifest = manifest::CatalogManifest {
        format: manifest::FORMAT,
        fleet: fleet.id(),
        op: record.id,
        taken_at_ms,
        image: stored.image,
        object: stored.object,
        authentication: None,
    };
    fleet.store.put_manifest(&key, &manifest.signed(fleet.catalog.sealer())).await?;
    Ok(())
}
