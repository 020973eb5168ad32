//! Applies what steps changed, a batch at a time, inside the recorder's transaction.

use std::collections::HashSet;

use catalog::events::NewEvent;
use catalog::tenants::{Flip, Reached};
use catalog::{TenantId, WriteTx};

use super::record::Report;
use crate::error::Result;
use crate::operations::Effect;

/// Applies the compare-and-sets; returns the tenants that somebody else had changed.
pub(super) async fn flip(tx: &mut WriteTx, reports: &[&Report]) -> Result<HashSet<TenantId>> {
    let flips: Vec<Flip> = each(reports)
        .filter_map(|effect| match effect {
            Effect::Flip(flip) => Some(flip.clone()),
            _ => None,
        })
        .collect();
    if flips.is_empty() {
        return Ok(HashSet::new());
    }
    Ok(catalog::tenants::flip_many(tx, &flips).await?.into_iter().collect())
}

/// Applies everything else.
pub(super) async fn apply(tx: &mut WriteTx, reports: &[&Report]) -> Result<()> {
    let (mut reached, mut sizes, mut backups, mut events) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut unpinned = Vec::new();
    for effect in each(reports) {
        match effect {
            Effect::Flip(_) => {}
            Effect::Schema { tenant, version, release, ledger } => {
                reached.push(Reached { tenant: *tenant, version: *version, release: *release, ledger: *ledger });
            }
            Effect::Unpin(tenant) => unpinned.push(*tenant),
            Effect::Size { tenant, size_bytes } => sizes.push((*tenant, *size_bytes)),
            Effect::Backup(backup) => backups.push((**backup).clone()),
            Effect::Event(event) => events.push(event.clone()),
            Effect::Verified { .. } | Effect::Retain(_) | Effect::Unretain { .. } | Effect::Promote { .. } => {}
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
    // After the backups: a verification may be of one that this batch makes known.
    for effect in each(reports) {
        rare(tx, effect).await?;
    }
    events.extend(promote(tx, reports).await?);
    catalog::events::append(tx, &events).await?;
    Ok(())
}

/// Makes releases current that succeeded for the first time; returns the events. Each operation is asked once a batch.
async fn promote(tx: &mut WriteTx, reports: &[&Report]) -> Result<Vec<NewEvent>> {
    let (mut asked, mut events) = (HashSet::new(), Vec::new());
    for effect in each(reports) {
        let Effect::Promote { op, from, release, event } = effect else { continue };
        if asked.insert(*op) && catalog::fleet::promote(tx, *op, *from, *release).await? {
            events.push(event.clone());
        }
    }
    Ok(events)
}

/// Those that never come by the thousand.
async fn rare(tx: &mut WriteTx, effect: &Effect) -> Result<()> {
    match effect {
        Effect::Verified { backup, error } => catalog::backups::set_verified(tx, *backup, error.as_deref()).await?,
        Effect::Retain(record) => catalog::retained::insert(tx, record).await?,
        Effect::Unretain { server, placement } => match catalog::retained::remove(tx, *server, placement).await {
            // It expired while the step waited for another attempt.
            Err(error) if error.kind() == catalog::ErrorKind::NotFound => {}
            removed => removed?,
        },
        _ => {}
    }
    Ok(())
}

fn each<'a>(reports: &'a [&'a Report]) -> impl Iterator<Item = &'a Effect> {
    reports.iter().flat_map(|report| &report.effects)
}
