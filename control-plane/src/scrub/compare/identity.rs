//! PURE: compares a database's own identity with the catalog's record.

use catalog::retained::RetainedReason;
use catalog::{TenantRecord, TenantState};
use tenant_engine::{ErrorKind as DatabaseError, IdentityState, ListedObject};

use super::super::finding::{DatabaseOwner, Finding, FindingKind, FindingSeverity};
use super::{ClaimIndex, ComparisonInput, DatabaseClaim, claim_finding};
use crate::error::{Error, ErrorKind};

/// The problem in the identity of a database that the catalog names, if the database was opened.
pub(super) fn of_claim(index: &ClaimIndex<'_>, claim: &DatabaseClaim<'_>, found: &ListedObject) -> Option<Finding> {
    let said = index.inspected_owner(claim.server, &found.name)?;
    let (kind, severity, detail) = match (said, claim.retained) {
        // The catalog retains this database because it is damaged.
        (_, Some(kept)) if kept.reason == RetainedReason::Damaged => return None,
        (Err(error), _) => unreadable_identity(claim, error),
        (Ok(whose), _) => identity_mismatch(&index.seen, claim, whose)?,
    };
    let next_step = next_step(kind, &claim.tenant.name);
    Some(claim_finding(index, claim, Some(found), (kind, severity), detail, next_step))
}

/// The advice for a finding. A restore goes back to the backup, so it is only advised if the database is proved to be
/// damaged or another one.
fn next_step(kind: FindingKind, name: &str) -> String {
    match kind {
        FindingKind::WrongTenant | FindingKind::WrongFleet => {
            format!("put the right file back, or fleetctl restore run {name} --to latest")
        }
        FindingKind::Unreadable => {
            format!("fleetctl op list --state failed,partial; then fleetctl restore run {name} --to latest")
        }
        FindingKind::NotLooked => "fix the cause, then run fleetctl scrub again".to_owned(),
        _ => format!("fleetctl op list --state failed,partial; then fleetctl tenant repair {name}"),
    }
}

/// The finding for a database that could not be read. Only an error of SQLite or PostgreSQL about the content proves
/// damage. Other errors concern the reading itself: no descriptors, memory or permission, no answer, a full disk.
fn unreadable_identity(claim: &DatabaseClaim<'_>, error: &Error) -> (FindingKind, FindingSeverity, String) {
    let code = error.code();
    let (kind, what) = match error.kind {
        ErrorKind::Engine(DatabaseError::WrongTenant) => (FindingKind::Unreadable, "it has no identity"),
        ErrorKind::Engine(DatabaseError::Corrupt) => (FindingKind::Unreadable, "it is damaged"),
        _ => (FindingKind::NotLooked, "it could not be inspected"),
    };
    let severity = if claim.retained.is_some() { FindingSeverity::Warning } else { FindingSeverity::Error };
    (kind, severity, format!("{what}: {code}: {}", error.detail))
}

fn identity_mismatch(
    seen: &ComparisonInput<'_>,
    claim: &DatabaseClaim<'_>,
    whose: &DatabaseOwner,
) -> Option<(FindingKind, FindingSeverity, String)> {
    let tenant = claim.tenant;
    if whose.tenant != tenant.id {
        let known = seen.after.tenants.get(&whose.tenant);
        let other = known.map_or_else(|| whose.tenant.to_string(), |other| format!("'{}'", other.name));
        return Some((
            FindingKind::WrongTenant,
            FindingSeverity::Error,
            format!("it says that it belongs to the tenant {other}"),
        ));
    }
    if whose.fleet != seen.after.fleet {
        return Some((
            FindingKind::WrongFleet,
            FindingSeverity::Error,
            format!("it says that it belongs to the fleet {}", whose.fleet),
        ));
    }
    let (generation, states) = match claim.retained {
        Some(kept) => (kept.generation, KEPT),
        None => (tenant.generation, states_of(tenant)),
    };
    if states.is_empty() {
        return None;
    }
    // A retained database may be stamped again when it is released. It only matters that it is not served.
    if claim.retained.is_none() && whose.generation != generation {
        let detail = format!("it is stamped with generation {}, but the catalog has {generation}", whose.generation);
        return Some((FindingKind::WrongGeneration, FindingSeverity::Error, detail));
    }
    if states.contains(&whose.state) {
        return None;
    }
    let words = states.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(" or ");
    let detail = format!("it is stamped {}, but by the catalog it should be {words}", whose.state);
    Some((FindingKind::WrongState, FindingSeverity::Error, detail))
}

/// The states of a retained database, which is never served.
const KEPT: &[IdentityState] = &[IdentityState::Frozen, IdentityState::Moved, IdentityState::Tombstone];

/// The identity states that a tenant without a running operation may have. Empty where the catalog expects nothing.
fn states_of(tenant: &TenantRecord) -> &'static [IdentityState] {
    match (tenant.state, tenant.block_writes) {
        (TenantState::Active | TenantState::Suspended, None) => &[IdentityState::Active],
        (TenantState::Active | TenantState::Suspended, Some(_)) => &[IdentityState::Frozen],
        (TenantState::Deleted, _) => &[IdentityState::Tombstone],
        (TenantState::Provisioning | TenantState::Archived | TenantState::Purged, _) => &[],
    }
}

/// How severe an orphan is, judged by its own identity, with the explanation.
pub(super) fn of_orphan(
    seen: &ComparisonInput<'_>,
    tenant: Option<&TenantRecord>,
    said: Option<&Result<DatabaseOwner, Error>>,
) -> (FindingSeverity, String) {
    let whose = match said {
        None => return (FindingSeverity::Warning, String::new()),
        Some(Err(error)) => {
            return (FindingSeverity::Warning, format!("; its owner cannot be read: {}", error.code()));
        }
        Some(Ok(whose)) => whose,
    };
    let serves = matches!(whose.state, IdentityState::Active | IdentityState::Frozen);
    let ours = whose.fleet == seen.after.fleet;
    let current = tenant.is_some_and(|tenant| tenant.id == whose.tenant && whose.generation >= tenant.generation);
    let mut words = format!("; it says: generation {}, {}", whose.generation, whose.state);
    if !ours {
        words += &format!(", of the fleet {}", whose.fleet);
    }
    match serves && ours && current {
        true => (FindingSeverity::Error, words + ", like a current database"),
        false => (FindingSeverity::Warning, words),
    }
}
