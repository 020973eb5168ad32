//! Pinned tenants, as several answers list them. They stay at their version until a migration names them.

use catalog::{ReadTx, TenantRecord, fleet, releases};
use fleet_api::migrations::{PinnedTenant, TenantPin};
use tenant_engine::MigrationSets;

use crate::http::error::Result;
use crate::time_text;

/// Maximum number of pinned tenants in one answer. The list of tenants has all of them.
const NAMED_MAX: usize = 100;

/// The API's view of a pin. `None` for a tenant that is not pinned.
pub(crate) fn tenant_pin(record: &TenantRecord, head_version: Option<i64>) -> Option<TenantPin> {
    record.pin.map(|pin| TenantPin {
        version: record.schema_version,
        head_version,
        since_at: time_text::format_time(pin.at),
        operation_id: pin.op.to_string(),
    })
}

/// The first pinned ones of these tenants.
pub(crate) fn first_pinned(tenants: &[TenantRecord], head: Option<i64>) -> Vec<PinnedTenant> {
    let one = |tenant: &TenantRecord| {
        let pin = tenant_pin(tenant, head)?;
        Some(PinnedTenant { tenant: tenant.name.clone(), pin })
    };
    tenants.iter().filter_map(one).take(NAMED_MAX).collect()
}

/// Adds pinned tenants to those of earlier pages, up to the maximum.
pub(crate) fn add_pinned(named: &mut Vec<PinnedTenant>, tenants: &[TenantRecord], head: Option<i64>) {
    named.extend(first_pinned(tenants, head));
    named.truncate(NAMED_MAX);
}

/// The newest version of the release that new tenants start from.
pub(crate) async fn head_version(tx: &mut ReadTx) -> Result<Option<i64>> {
    let Some(id) = fleet::current_release(tx).await? else { return Ok(None) };
    Ok(releases::get(tx, id).await?.and_then(|release| release.head_version))
}

/// Splits tenants into pinned ones that are behind the head, and all others.
pub(crate) fn split_pinned(
    sets: &MigrationSets,
    tenants: Vec<TenantRecord>,
    include_pinned: bool,
) -> (Vec<TenantRecord>, Vec<TenantRecord>) {
    let head = sets.version_set().head_version();
    tenants.into_iter().partition(|tenant| !include_pinned && tenant.pin.is_some() && tenant.schema_version < head)
}
