//! Applies the catalog effects of steps, a batch at a time, inside the recorder's transaction.

use std::collections::HashSet;

use catalog::events::NewEvent;
use catalog::tenants::{ReachedSchema, TenantUpdate};
use catalog::{TenantId, WriteTx};

use super::record::StepReport;
use crate::error::Result;
use crate::operation::CatalogEffect;

/// Applies the tenant updates. Returns the tenants that were changed by somebody else.
pub(super) async fn apply_updates(tx: &mut WriteTx, reports: &[&StepReport]) -> Result<HashSet<TenantId>> {
    let updates: Vec<TenantUpdate> = all_effects(reports)
        .filter_map(|effect| match effect {
            CatalogEffect::UpdateTenant(update) => Some(update.clone()),
            _ => None,
        })
        .collect();
    if updates.is_empty() {
        return Ok(HashSet::new());
    }
    Ok(catalog::tenants::update_many(tx, &updates).await?.into_iter().collect())
}

/// Applies all other effects.
pub(super) async fn apply_effects(tx: &mut WriteTx, reports: &[&StepReport]) -> Result<()> {
    let (mut reached, mut sizes, mut backups, mut events) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut unpinned = Vec::new();
    for effect in all_effects(reports) {
        match effect {
            CatalogEffect::UpdateTenant(_) => {}
            CatalogEffect::Schema { tenant, version, release, ledger } => {
                reached.push(ReachedSchema { tenant: *tenant, version: *version, release: *release, ledger: *ledger });
            }
            CatalogEffect::Unpin(tenant) => unpinned.push(*tenant),
            CatalogEffect::Size { tenant, size_bytes } => sizes.push((*tenant, *size_bytes)),
            CatalogEffect::Backup(backup) => backups.push((**backup).clone()),
            CatalogEffect::Event(event) => events.push(event.clone()),
            CatalogEffect::Verified { .. }
            | CatalogEffect::Retain(_)
            | CatalogEffect::Unretain { .. }
            | CatalogEffect::PutReplacement(_)
            | CatalogEffect::EndReplacement(_)
            | CatalogEffect::BuryJobs { .. }
            | CatalogEffect::Promote { .. } => {}
        }
    }
    if !reached.is_empty() {
        catalog::tenants::set_schema_many(tx, &reached).await?;
    }
    catalog::tenants::unpin_many(tx, &unpinned).await?;
    if !sizes.is_empty() {
        catalog::tenants::set_sizes(tx, &sizes).await?;
    }
    if !backups.is_empty() {
        catalog::backups::insert_many(tx, &backups).await?;
    }
    // After the backups, because a verification may concern a backup of the same batch.
    for effect in all_effects(reports) {
        apply_rare(tx, effect).await?;
    }
    events.extend(promote_releases(tx, reports).await?);
    catalog::events::append_events(tx, &events).await?;
    Ok(())
}

/// Makes releases current that succeeded for the first time, and returns the events. Each operation is checked once per
/// batch.
async fn promote_releases(tx: &mut WriteTx, reports: &[&StepReport]) -> Result<Vec<NewEvent>> {
    let (mut asked, mut events) = (HashSet::new(), Vec::new());
    for effect in all_effects(reports) {
        let CatalogEffect::Promote { op, from, release, event } = effect else { continue };
        if asked.insert(*op) && catalog::fleet::promote_release(tx, *op, *from, *release).await? {
            events.push(event.clone());
        }
    }
    Ok(events)
}

/// Applies the effects that never come in large numbers.
async fn apply_rare(tx: &mut WriteTx, effect: &CatalogEffect) -> Result<()> {
    match effect {
        CatalogEffect::Verified { backup, error } => {
            catalog::backups::set_verified(tx, *backup, error.as_deref()).await?
        }
        CatalogEffect::PutReplacement(open) => catalog::replacements::put_replacement(tx, open).await?,
        CatalogEffect::EndReplacement(tenant) => catalog::replacements::end_replacement(tx, *tenant).await?,
        CatalogEffect::BuryJobs { tenant, below, reason } => {
            catalog::job_queues::bury_jobs(tx, *tenant, *below, reason).await?
        }
        CatalogEffect::Retain(record) => catalog::retained::insert_retained(tx, record).await?,
        CatalogEffect::Unretain { server, placement } => {
            match catalog::retained::remove_retained(tx, *server, placement).await {
                // The retained database expired while the step waited for another attempt.
                Err(error) if error.kind() == catalog::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        _ => {}
    }
    Ok(())
}

fn all_effects<'a>(reports: &'a [&'a StepReport]) -> impl Iterator<Item = &'a CatalogEffect> {
    reports.iter().flat_map(|report| &report.effects)
}
