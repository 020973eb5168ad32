//! Pinned tenants, as several answers tell them: they stay at their version until a migration names them.

use catalog::{ReadTx, TenantRecord, fleet, releases};
use serde::Serialize;
use tenant_engine::MigrationSets;
use utoipa::ToSchema;

use crate::http::error::Result;
use crate::http::time;

/// Pinned tenants named in one answer: what a human reads. The list of tenants has all of them.
const NAMED_MAX: usize = 100;

/// Why a tenant stays at its version until a migration names it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantPin {
    /// The version it stays at; null: none.
    version: Option<i64>,
    /// The newest version of the current release; null before the first.
    head_version: Option<i64>,
    /// RFC 3339: since when.
    since_at: String,
    /// The operation that took it back.
    operation_id: String,
}

impl TenantPin {
    /// The wire form; `None` of a tenant that is not pinned.
    pub(crate) fn new(record: &TenantRecord, head_version: Option<i64>) -> Option<Self> {
        record.pin.map(|pin| Self {
            version: record.schema_version,
            head_version,
            since_at: time::text(pin.at),
            operation_id: pin.op.to_string(),
        })
    }
}

/// A tenant that stays at its version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PinnedTenant {
    /// Its name.
    tenant: String,
    /// Where, since when and by what.
    #[serde(flatten)]
    pin: TenantPin,
}

impl PinnedTenant {
    /// The first of these tenants.
    pub(crate) fn all(tenants: &[TenantRecord], head: Option<i64>) -> Vec<Self> {
        let one = |tenant: &TenantRecord| {
            let pin = TenantPin::new(tenant, head)?;
            Some(Self { tenant: tenant.name.clone(), pin })
        };
        tenants.iter().filter_map(one).take(NAMED_MAX).collect()
    }
}

/// The newest version of what new tenants start from.
pub(crate) async fn head_version(tx: &mut ReadTx) -> Result<Option<i64>> {
    let Some(id) = fleet::current_release(tx).await? else { return Ok(None) };
    Ok(releases::get(tx, id).await?.and_then(|release| release.head_version))
}

/// The pinned tenants that are behind the head, and the others.
pub(crate) fn apart(
    sets: &MigrationSets,
    tenants: Vec<TenantRecord>,
    include_pinned: bool,
) -> (Vec<TenantRecord>, Vec<TenantRecord>) {
    let head = sets.versions().head();
    tenants.into_iter().partition(|tenant| !include_pinned && tenant.pin.is_some() && tenant.schema_version < head)
}

/// Those that are behind the head, in words.
pub(crate) fn told(tenants: &[TenantRecord], head: Option<i64>) -> String {
    let version = |version: Option<i64>| version.map_or_else(|| "none".to_owned(), |version| version.to_string());
    let one = |tenant: &TenantRecord| {
        let pin = tenant.pin.filter(|_| tenant.schema_version < head)?;
        let (at, head, since) = (version(tenant.schema_version), version(head), time::text(pin.at));
        Some(format!("{} at {at}, head {head}, since {since}, by {}", tenant.name, pin.op))
    };
    tenants.iter().filter_map(one).collect::<Vec<_>>().join("; ")
}
