//! Copies of the catalog in the backup store. The catalog says which tenant is called what and where its backups are:
//! without it the backups have no names.
//!
//! A copy is of the whole catalog, so it is not made at the end of every run of backups. Between two copies passes a
//! time that grows with what a copy takes: a small catalog is copied after nearly every run, a large one once in the
//! interval. A copy does not list the backups that were made after it.

use std::time::Instant;

use catalog::fleet::CatalogCopy;
use catalog::operations::OperationRecord;
use catalog::{changes, fleet as catalog_fleet};
use tenant_engine::Image;

use super::Fleet;
use crate::backup::{Key, manifest};
use crate::error::{Error, Result};

/// Tenants were changed since the last copy: the next one waits so many times what a copy takes.
const PAUSE_TIMES_CHANGED: i64 = 20;

/// Nothing but backups was added.
const PAUSE_TIMES: i64 = 200;

/// Makes a copy after a run of backups, so that it lists what the run made, if one is due.
pub(super) async fn store_if_due(fleet: &Fleet, record: &OperationRecord) -> Result<()> {
    let (last, at, change) = {
        let mut tx = fleet.catalog.read().await?;
        (catalog_fleet::last_copy(&mut tx).await?, tx.now(), changes::head(&mut tx).await?)
    };
    if !is_due(last, at, change, fleet.config.catalog_copy_ms) && is_there(fleet, last).await? {
        return Ok(());
    }
    let begun = Instant::now();
    store(fleet, record, at).await?;
    let took_ms = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
    let mut tx = fleet.catalog.write().await?;
    catalog_fleet::note_copy(&mut tx, CatalogCopy { at, change, took_ms, op: record.id }).await?;
    tx.commit().await?;
    Ok(())
}

/// Whether this store holds the last copy: it may be another store than then, or have lost it.
async fn is_there(fleet: &Fleet, last: Option<CatalogCopy>) -> Result<bool> {
    let Some(last) = last else { return Ok(false) };
    fleet.store.holds(&Key::of_catalog(fleet.id(), last.at, last.op)).await
}

/// PURE: whether a copy is due. A clock that was set back proves nothing about the last copy's age.
fn is_due(last: Option<CatalogCopy>, now: i64, change: i64, interval_ms: i64) -> bool {
    let Some(last) = last else { return true };
    let age = now.saturating_sub(last.at);
    let times = if change == last.change { PAUSE_TIMES } else { PAUSE_TIMES_CHANGED };
    age < 0 || age >= last.took_ms.saturating_mul(times).min(interval_ms)
}

async fn store(fleet: &Fleet, record: &OperationRecord, taken_at_ms: i64) -> Result<()> {
    let unwritable = |error: std::io::Error| {
        Error::new(500, "io", "the scratch directory cannot be written").with_source(error).transient()
    };
    // A directory, because the picture is written to a name that must not exist yet.
    let folder = tempfile::Builder::new().prefix("catalog-").tempdir_in(&fleet.scratch).map_err(unwritable)?;
    let path = folder.path().join("catalog.db");
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
