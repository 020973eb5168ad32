//! Checks of schemas: the versions of tenants, and the texts that they have applied.

use catalog::{ReadTx, TenantRecord, TenantState, tenants};

use super::check::HealthCheck;
use super::schema_state::{self, LedgerReadScope, SchemaState};
use crate::app::App;
use crate::error::Result;
use crate::plan::TenantSelection;
use crate::time_text;

/// Maximum number of pinned tenants in one line.
const PINNED_NAMED: u32 = 5;

/// Checks whether tenants are at the head of the current release.
pub(super) async fn schema_check(tx: &mut ReadTx) -> Result<HealthCheck> {
    let (release, sets) = schema_state::current_sets(tx).await?;
    if release.is_none() {
        let next = "fleetctl migrate run <directory> --all";
        return Ok(HealthCheck::new_warning("schema", "no release yet: new tenants start empty", next));
    }
    let head = sets.version_set().head_version();
    let below = |counts: Vec<(Option<i64>, i64)>| {
        counts.into_iter().filter(|(version, _)| *version < head).map(|(_, tenants)| tenants).sum::<i64>()
    };
    let pinned = below(tenants::count_pinned_by_version(tx).await?);
    let behind = below(tenants::count_by_version(tx).await?) - pinned;
    let named = tenants::pinned_tenants(tx, PINNED_NAMED).await?;
    Ok(versions_check(behind, pinned, &describe_pinned(&named, head)))
}

/// PURE: checks the tenants' versions. A pinned tenant is at its intended version, and is listed so that it is not
/// forgotten.
fn versions_check(behind: i64, pinned: i64, pins: &str) -> HealthCheck {
    let also = if pinned == 0 { String::new() } else { format!("; {pinned} pinned: {pins}") };
    match behind {
        0 if pinned == 0 => HealthCheck::new_ok("schema", "every tenant is at the head"),
        0 => HealthCheck::new_ok("schema", format!("every tenant that is not pinned is at the head{also}")),
        behind => {
            let detail = format!("{behind} tenants are behind the head{also}");
            HealthCheck::new_warning("schema", detail, "fleetctl migrate status")
        }
    }
}

/// Checks whether tenants have applied the same texts as each other and as the current release.
pub(super) async fn ledgers_check(app: &App) -> Result<HealthCheck> {
    let every = TenantSelection { allow_empty: true, ..TenantSelection::all_tenants() };
    let tenants = app.runner.select_in(&every, &[TenantState::Active, TenantState::Suspended]).await?;
    let sets = schema_state::current_sets(&mut app.catalog.read().await?).await?.1;
    Ok(agreement_check(&schema_state::load_schema_state(app, &tenants, &sets, LedgerReadScope::Few).await?))
}

/// PURE: the check made from the tenants' ledgers.
fn agreement_check(state: &SchemaState) -> HealthCheck {
    const NAME: &str = "ledgers";
    let next = "fleetctl migrate status; until tenants agree, run each text for the tenants that have it: \
                fleetctl migrate run DIR TENANT…";
    if let Some(split) = state.splits.first() {
        let detail = format!("tenants have applied different files of {} versions: {split}", state.splits.len());
        return HealthCheck::new_failure(NAME, detail, next);
    }
    if state.differ > 0 {
        let detail = format!("{} tenants have applied other files than the current release holds", state.differ);
        return HealthCheck::new_failure(NAME, detail, next);
    }
    match state.unreadable {
        0 => HealthCheck::new_ok(NAME, format!("tenants agree; {} databases were read", state.read)),
        unreadable => {
            HealthCheck::new_unknown(NAME, format!("{unreadable} databases could not be read"), "fleetctl scrub")
        }
    }
}

/// The pinned tenants that are behind the head, in words.
fn describe_pinned(tenants: &[TenantRecord], head: Option<i64>) -> String {
    let version = |version: Option<i64>| version.map_or_else(|| "none".to_owned(), |version| version.to_string());
    let one = |tenant: &TenantRecord| {
        let pin = tenant.pin.filter(|_| tenant.schema_version < head)?;
        let (at, head, since) = (version(tenant.schema_version), version(head), time_text::format_time(pin.at));
        Some(format!("{} at {at}, head {head}, since {since}, by {}", tenant.name, pin.op))
    };
    tenants.iter().filter_map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::check::HealthVerdict;

    #[test]
    fn a_pinned_tenant_is_named_and_is_no_fault() {
        assert_eq!(versions_check(0, 0, "").detail, "every tenant is at the head");
        let pinned = versions_check(0, 1, "acme at 1");
        assert_eq!((pinned.verdict, pinned.detail.contains("acme at 1")), (HealthVerdict::Ok, true));
        let behind = versions_check(2, 1, "acme at 1");
        assert_eq!((behind.verdict, behind.detail.contains("acme at 1")), (HealthVerdict::Warn, true));
    }

    #[test]
    fn tenants_that_disagree_fail_and_those_not_looked_at_are_unknown() {
        let check = |state: SchemaState| agreement_check(&state).verdict;
        assert_eq!(check(SchemaState { behind: 3, ..SchemaState::default() }), HealthVerdict::Ok);
        assert_eq!(check(SchemaState { differ: 1, ..SchemaState::default() }), HealthVerdict::Fail);
        assert_eq!(check(SchemaState { unreadable: 1, ..SchemaState::default() }), HealthVerdict::Unknown);
        assert_eq!(check(SchemaState { splits: vec!["1".to_owned()], ..SchemaState::default() }), HealthVerdict::Fail);
    }
}
