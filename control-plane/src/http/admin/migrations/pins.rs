//! Pinned tenants, as several answers list them. They stay at their version until a migration names them.

use catalog::{ReadTx, TenantRecord, fleet, releases};
use serde::Serialize;
use tenant_engine::MigrationSets;
use utoipa::ToSchema;

use crate::http::error::Result;
use crate::time_text;

/// Maximum number of pinned tenants in one answer. The list of tenants has all of them.
const NAMED_MAX: usize = 100;

/// The pin of a tenant: it stays at its version until a migration names it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantPin {
    /// Version at which the tenant stays; null if it has no migration.
    version: Option<i64>,
    /// Newest version of the current release; null before the first release.
    head_version: Option<i64>,
    /// Time at which the tenant was pinned, RFC 3339.
    since_at: String,
    /// Id of the operation that took the tenant back to this version.
    operation_id: String,
}

impl TenantPin {
    /// The API's view of a pin. `None` for a tenant that is not pinned.
    pub(crate) fn new(record: &TenantRecord, head_version: Option<i64>) -> Option<Self> {
        record.pin.map(|pin| Self {
            version: record.schema_version,
            head_version,
            since_at: time_text::format_time(pin.at),
            operation_id: pin.op.to_string(),
        })
    }
}

/// A tenant that is pinned to its version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PinnedTenant {
    /// Name of the tenant.
    tenant: String,
    /// Version, time and operation of the pin.
    #[serde(flatten)]
    pin: TenantPin,
}

impl PinnedTenant {
    /// The first pinned ones of these tenants.
    pub(crate) fn first_pinned(tenants: &[TenantRecord], head: Option<i64>) -> Vec<Self> {
        let one = |tenant: &TenantRecord| {
            let pin = TenantPin::new(tenant, head)?;
            Some(Self { tenant: tenant.name.clone(), pin })
        };
        tenants.iter().filter_map(one).take(NAMED_MAX).collect()
    }

    /// Adds pinned tenants to those of earlier pages, up to the maximum.
    pub(crate) fn add_all(named: &mut Vec<Self>, tenants: &[TenantRecord], head: Option<i64>) {
        named.extend(Self::first_pinned(tenants, head));
        named.truncate(NAMED_MAX);
    }
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
