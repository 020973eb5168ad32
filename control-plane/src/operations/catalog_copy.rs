//! Stores copies of the catalog in the backup store. The catalog maps tenant names to tenants and their backups.
//! Without it the backups have no names.
//!
//! A copy holds the whole catalog, so not every run of backups ends with one. The pause between two copies grows with
//! the time that a copy takes. A small catalog is copied after nearly every run, a large one once per interval. A copy
//! does not list the backups that were made after it.

use std::time::Instant;

use catalog::fleet::CatalogCopy;
use catalog::operations::OperationRecord;
use catalog::{changes, fleet as catalog_fleet};
use tenant_engine::SnapshotImage;

use crate::backup::{BackupObjectKey, manifest};
use crate::error::{Error, Result};
use crate::operation::StepContext;

/// Pause before the next copy, as a multiple of a copy's duration, if tenants were changed since the last one.
const PAUSE_TIMES_CHANGED: i64 = 20;

/// Pause before the next copy, as a multiple of a copy's duration, if only backups were added since the last one.
const PAUSE_TIMES: i64 = 200;

/// Stores a copy after a run of backups, if one is due. It then lists the backups of that run.
pub(super) async fn store_if_due(context: &StepContext, record: &OperationRecord) -> Result<()> {
    let (last, at, change) = {
        let mut tx = context.catalog.read().await?;
        (catalog_fleet::last_copy(&mut tx).await?, tx.now(), changes::feed_head(&mut tx).await?)
    };
    if !is_due(last, at, change, context.config.catalog_copy_ms) && has_last_copy(context, last).await? {
        return Ok(());
    }
    let begun = Instant::now();
    store_copy(context, record, at).await?;
    let took_ms = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
    let mut tx = context.catalog.write().await?;
    catalog_fleet::note_copy(&mut tx, CatalogCopy { at, change, took_ms, op: record.id }).await?;
    tx.commit().await?;
    Ok(())
}

/// Whether this store still holds the last copy. Another store may have been configured since, or this one may have
/// lost it.
async fn has_last_copy(context: &StepContext, last: Option<CatalogCopy>) -> Result<bool> {
    let Some(last) = last else { return Ok(false) };
    context.store.contains_object(&BackupObjectKey::of_catalog(context.fleet_id(), last.at, last.op)).await
}

/// PURE: whether a copy is due. A clock that went backwards proves nothing about the last copy's age.
fn is_due(last: Option<CatalogCopy>, now: i64, change: i64, interval_ms: i64) -> bool {
    let Some(last) = last else { return true };
    let age = now.saturating_sub(last.at);
    let times = if change == last.change { PAUSE_TIMES } else { PAUSE_TIMES_CHANGED };
    age < 0 || age >= last.took_ms.saturating_mul(times).min(interval_ms)
}

async fn store_copy(context: &StepContext, record: &OperationRecord, taken_at_ms: i64) -> Result<()> {
    // A directory of its own, because the snapshot is written to a name that must not exist yet.
    let folder =
        tempfile::Builder::new().prefix("catalog-").tempdir_in(&context.scratch).map_err(Error::scratch_unwritable)?;
    let path = folder.path().join("catalog.db");
    context.catalog.snapshot_to(&path).await?;
    let key = BackupObjectKey::of_catalog(context.fleet_id(), taken_at_ms, record.id);
    let picture = SnapshotImage::File(tempfile::TempPath::try_from_path(&path).map_err(Error::scratch_unwritable)?);
    let stored = context.store.put_image(&key, &picture).await?;
    let manifest = manifest::CatalogManifest {
        format: manifest::FORMAT,
        fleet: context.fleet_id(),
        op: record.id,
        taken_at_ms,
        image: stored.image,
        object: stored.object,
        authentication: None,
    };
    context.store.put_manifest(&key, &manifest.into_signed(context.catalog.sealer())).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use catalog::OperationId;

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn last(at: i64, took_ms: i64) -> Option<CatalogCopy> {
        Some(CatalogCopy { at, change: 7, took_ms, op: OperationId::generate() })
    }

    #[test]
    fn the_next_copy_waits_in_proportion_to_what_a_copy_takes() {
        let due = |now, change| is_due(last(1_000, 10), now, change, HOUR);
        assert!(is_due(None, 0, 0, HOUR), "never copied");
        assert!(!due(1_000 + 199, 8) && due(1_000 + 200, 8), "tenants were changed");
        assert!(!due(1_000 + 1_999, 7) && due(1_000 + 2_000, 7), "only backups were added");
        assert!(due(999, 7), "the clock was set back");
    }

    #[test]
    fn a_large_catalog_is_copied_once_in_the_interval() {
        assert!(!is_due(last(0, 20_000), 399_999, 8, HOUR));
        assert!(is_due(last(0, 20_000), 400_000, 8, HOUR));
        assert!(!is_due(last(0, 20_000), HOUR - 1, 7, HOUR));
        assert!(is_due(last(0, 20_000), HOUR, 7, HOUR));
    }
}
