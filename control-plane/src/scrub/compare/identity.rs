//! PURE: what a database says of itself against what the catalog says of it.

use catalog::{TenantRecord, TenantState};
use tenant_engine::{ErrorKind, Found, IdentityState};

use super::super::finding::{Finding, Kind, Severity, Whose};
use super::{Claim, Index, Seen, finding};
use crate::error::Error;

/// What is wrong with the identity of a database that the catalog names, if it was asked.
pub(super) fn of_claim(index: &Index<'_>, claim: &Claim<'_>, found: &Found) -> Option<Finding> {
    let said = index.asked(claim.server, &found.name)?;
    let (kind, severity, detail) = match (said, claim.retained) {
        // It was kept because it is damaged.
        (_, Some(kept)) if kept.reason == "damaged" => return None,
        (Err(error), _) => unreadable(claim, error),
        (Ok(whose), _) => mismatch(&index.seen, claim, whose)?,
    };
    let next_step = next_step(kind, &claim.tenant.name);
    Some(finding(index, claim, Some(found), (kind, severity), detail, next_step))
}

/// A restore goes back to the backup: it is only advised where the database is proved to be damaged or another one.
fn next_step(kind: Kind, name: &str) -> String {
    match kind {
        Kind::WrongTenant | Kind::WrongFleet => {
            format!("put the right file back, or fleetctl restore run {name} --to latest")
        }
        Kind::Unreadable => {
            format!("fleetctl op list --state failed,partial; then fleetctl restore run {name} --to latest")
        }
        Kind::NotLooked => "fix what kept it from being looked at, then fleetctl scrub again".to_owned(),
        _ => format!("fleetctl op list --state failed,partial; then fleetctl tenant settle {name}"),
    }
}

/// Only what SQLite or PostgreSQL says of the database's own content proves damage. Any other error (no descriptors, no
/// memory, no right, no answer, a full disk) is about the looking.
fn unreadable(claim: &Claim<'_>, error: &Error) -> (Kind, Severity, String) {
    let code = error.code.as_ref();
    let (kind, what) = match () {
        () if code == ErrorKind::WrongTenant.code() => (Kind::Unreadable, "it carries no identity"),
        () if code == ErrorKind::Corrupt.code() => (Kind::Unreadable, "it is damaged"),
        () => (Kind::NotLooked, "it could not be looked at"),
    };
    let severity = if claim.retained.is_some() { Severity::Warning } else { Severity::Error };
    (kind, severity, format!("{what}: {code}: {}", error.detail))
}

fn mismatch(seen: &Seen<'_>, claim: &Claim<'_>, whose: &Whose) -> Option<(Kind, Severity, String)> {
    let tenant = claim.tenant;
    if whose.tenant != tenant.id {
        let known = seen.after.tenants.get(&whose.tenant);
        let other = known.map_or_else(|| whose.tenant.to_string(), |other| format!("'{}'", other.name));
        return Some((Kind::WrongTenant, Severity::Error, format!("it says that it belongs to the tenant {other}")));
    }
    if whose.fleet != seen.after.fleet {
        return Some((
            Kind::WrongFleet,
            Severity::Error,
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
    // A kept one may be stamped again when it is let go; only that it is never served matters.
    if claim.retained.is_none() && whose.generation != generation {
        let detail = format!("it is stamped with generation {}, the catalog has {generation}", whose.generation);
        return Some((Kind::WrongGeneration, Severity::Error, detail));
    }
    if states.contains(&whose.state) {
        return None;
    }
    let words = states.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(" or ");
    let detail = format!("it is stamped {}, by the catalog it should be {words}", whose.state);
    Some((Kind::WrongState, Severity::Error, detail))
}

/// A database that is kept is never served.
const KEPT: &[IdentityState] = &[IdentityState::Frozen, IdentityState::Moved, IdentityState::Tombstone];

/// What the identity of a tenant at rest may say; empty where the catalog promises nothing.
fn states_of(tenant: &TenantRecord) -> &'static [IdentityState] {
    match (tenant.state, tenant.block_writes) {
        (TenantState::Active | TenantState::Suspended, None) => &[IdentityState::Active],
        (TenantState::Active | TenantState::Suspended, Some(_)) => &[IdentityState::Frozen],
        (TenantState::Deleted, _) => &[IdentityState::Tombstone],
        (TenantState::Provisioning | TenantState::Archived | TenantState::Purged, _) => &[],
    }
}

/// How bad an orphan is by what it says of itself, and that in words.
pub(super) fn of_orphan(
    seen: &Seen<'_>,
    tenant: Option<&TenantRecord>,
    said: Option<&Result<Whose, Error>>,
) -> (Severity, String) {
    let whose = match said {
        None => return (Severity::Warning, String::new()),
        Some(Err(error)) => return (Severity::Warning, format!("; it does not say whose it is: {}", error.code)),
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
        true => (Severity::Error, words + ", as if it were the current one"),
        false => (Severity::Warning, words),
    }
}
